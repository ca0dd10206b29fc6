"""The sampler on a GPU: the same tokens as :func:`minillm_serve.sample.sampler.sample` for the same logits."""

from __future__ import annotations

import torch
from torch import Tensor

from minillm_kernels.triton.logits import add_bias, apply_bitmask
from minillm_kernels.triton.sample import draw
from minillm_kernels.triton.truncate import cutoffs
from minillm_serve.sample.edits import LogitEdits
from minillm_serve.sample.sampler import SampleSettings, sample


def sample_on_device(logits: Tensor, settings: SampleSettings) -> Tensor:
    """logits: [S, vocab] on the device; settings on the host, where it is seen what has to be done -> ids [S] int64."""
    device = logits.device
    cuts = settings.top_k.gt(0).any() or settings.top_p.lt(1).any() or settings.min_p.gt(0).any()
    typical, there = settings.typical_p.lt(1).any(), settings.to(device)
    if typical:
        return sample(logits, there)
    cut = None
    if cuts:
        cut = cutoffs(logits, there.temperature, there.min_p, there.top_k, there.top_p)
    ids = torch.empty(len(logits), dtype=torch.int64, device=device)
    draw(logits, there.temperature, there.seeds, there.positions, cut, ids)
    return ids


def edit_on_device(logits: Tensor, edits: LogitEdits) -> None:
    """Change ``logits`` [S, vocab] in place; the edits come from the host, without penalties (penalties.py)."""
    assert edits.penalties is None, "the device keeps the counts of what was seen"
    device = logits.device

    def sent(*values: Tensor) -> tuple[Tensor, ...]:
        if device.type == "cuda":  # of pageable memory, a large copy would wait for the device
            values = tuple(value.pin_memory() for value in values)
        return tuple(value.to(device, non_blocking=True) for value in values)

    if edits.allowed is not None:
        rows, words = edits.allowed
        apply_bitmask(logits, *sent(torch.tensor(rows), torch.from_numpy(words.view("int32"))))
    if edits.bias is not None:
        add_bias(logits, *sent(*edits.bias))
    if edits.forbidden is not None:
        bans = torch.full_like(edits.forbidden[0], float("-inf"), dtype=torch.float32)
        add_bias(logits, *sent(*edits.forbidden, bans))

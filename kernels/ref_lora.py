"""Batched LoRA, the specification: every token of a batch may have its own adapter, or none.

An adapter adds ``scale * B A x`` to a layer's output (Hu et al. 2021, arXiv:2106.09685); adapters of one batch side by
side: Punica (Chen et al. 2023, arXiv:2310.18547) and S-LoRA (Sheng et al. 2023, arXiv:2311.03285).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class LoraWeights:
    """What some adapters add to one layer. A layer that joins projections (q, k and v) has a slice for each of them.

    a: [adapters, slices * rank, in], a slice's rows side by side; b: [adapters, out, rank]; scales: [adapters] fp32,
    alpha / rank. bounds: [slices + 1] int32, where each slice's outputs begin; outputs: how many each has. An adapter
    of a smaller rank has zeros in the rest, as in a slice that it leaves alone.
    """

    a: Tensor
    b: Tensor
    scales: Tensor
    bounds: Tensor
    outputs: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The largest that an adapter may have."""
        return self.b.shape[2]


def stack_lora(
    adapters: Sequence[Sequence[tuple[Tensor, Tensor] | None]], scales: Sequence[float], outputs: tuple[int, ...]
) -> LoraWeights:
    """Lay adapters side by side. For each adapter and slice: (A [r, in], B [outputs of the slice, r]) or None.

    r may differ from adapter to adapter. Raises ValueError for shapes that do not fit together.
    """
    pairs = [pair for adapter in adapters for pair in adapter if pair is not None]
    if not pairs or len(scales) != len(adapters) or any(len(adapter) != len(outputs) for adapter in adapters):
        raise ValueError(f"{len(adapters)} adapters with {len(scales)} scales: each needs {len(outputs)} slices")
    rank, (_, num_inputs), like = max(len(a) for a, _ in pairs), pairs[0][0].shape, pairs[0][0]
    bounds = (0, *accumulate(outputs))
    stacked_a = like.new_zeros(len(adapters), len(outputs) * rank, num_inputs)
    stacked_b = like.new_zeros(len(adapters), bounds[-1], rank)
    for number, adapter in enumerate(adapters):
        for place, (pair, size) in enumerate(zip(adapter, outputs, strict=True)):
            if pair is None:
                continue
            a, b = pair
            if a.shape[1] != num_inputs or b.shape != (size, len(a)):
                raise ValueError(
                    f"adapter {number}, slice {place}: A {list(a.shape)} and B {list(b.shape)} for {num_inputs} inputs "
                    f"and {size} outputs"
                )
            stacked_a[number, place * rank : place * rank + len(a)] = a
            stacked_b[number, bounds[place] : bounds[place + 1], : len(a)] = b
    device = like.device
    on_device = (
        torch.tensor(scales, dtype=torch.float32, device=device),
        torch.tensor(bounds, dtype=torch.int32, device=device),
    )
    return LoraWeights(stacked_a, stacked_b, *on_device, outputs)


def add_lora(y: Tensor, x: Tensor, weights: LoraWeights, index: Tensor) -> None:
    """y [T, out] += scale * B A x for each token, in place. x: [T, in]; index: [T] int32, its adapter, -1: none."""
    for adapter, (a, b, scale) in enumerate(zip(weights.a, weights.b, weights.scales, strict=True)):
        rows = (index == adapter).nonzero().squeeze(1)
        hidden = (x[rows].float() @ a.float().T * scale).unflatten(1, (len(weights.outputs), weights.rank))
        parts = zip(hidden.unbind(1), b.float().split(weights.outputs), strict=True)
        delta = torch.cat([part @ slice.T for part, slice in parts], 1)
        y[rows] = (y[rows].float() + delta).to(y.dtype)

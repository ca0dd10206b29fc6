"""From logits to token ids: temperature, min-p, top-k, top-p, typical-p, then the Gumbel-max draw. No full sort.

Masks, biases and penalties are in the logits already (:mod:`minillm_serve.sample.edits`). The order is vLLM's, and
typical-p stands where transformers has it. A row's token depends on its own logits and settings alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from minillm_kernels.noise import BLOCK, block_noise, first_arrivals, streams
from minillm_serve.sample.blocks import BlockedLogits
from minillm_serve.sample.truncate import truncate

FIRST_BLOCKS = 4


@dataclass(frozen=True)
class SampleSettings:
    """One row per sequence: temperature [S] fp32 (0 is greedy), top_k [S] int64 (<= 0: all), top_p [S] (1: off),
    min_p [S] (0: off), typical_p [S] (1: off), seeds [S] int64, positions [S] int64 (index of the token drawn)."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    typical_p: Tensor
    seeds: Tensor
    positions: Tensor

    def __getitem__(self, rows: Tensor) -> SampleSettings:
        return SampleSettings(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device) -> SampleSettings:
        """The same on another device."""
        return SampleSettings(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def sample(logits: Tensor, settings: SampleSettings) -> Tensor:
    """logits: [S, vocab] fp32, -inf where a token is forbidden -> token ids [S] int64. Leaves its arguments alone."""
    blocked = BlockedLogits.of(logits)
    rows = torch.nonzero(settings.temperature > 0).flatten()
    if not len(rows):
        return blocked.argmax()
    if len(rows) == len(logits):
        return _draw(blocked, settings)
    ids = blocked.argmax()
    ids[rows] = _draw(blocked[rows], settings[rows])
    return ids


def _draw(logits: BlockedLogits, settings: SampleSettings) -> Tensor:
    """Every row with a temperature above 0."""
    limits = settings.min_p, settings.top_k, settings.top_p, settings.typical_p
    kept, cut = truncate(logits, settings.temperature, *limits)
    return gumbel_argmax(kept, settings.temperature, cut, streams(settings.seeds, settings.positions))


def gumbel_argmax(logits: BlockedLogits, temperature: Tensor, cut: Tensor, stream: Tensor) -> Tensor:
    """argmax of logits / temperature + noise over the tokens not under ``cut``: [S] int64.

    A block's bound is its largest logit with its largest noise. The blocks of highest bound are opened first; then, of
    the others, those whose bound is above the best token found there.
    """
    rows, num_blocks = logits.maxima.shape
    noise = -torch.log(first_arrivals(stream, torch.arange(num_blocks, device=stream.device).unsqueeze(0))[0])
    bound = (logits.maxima.double() / temperature.unsqueeze(1)).add_(noise)
    bound.masked_fill_(logits.maxima < cut.unsqueeze(1), float("-inf"))

    def best_of(row: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        """Score and token of the best in each of N blocks: row, block [N]."""
        values = logits.blocks(row, block)
        scores = (values.double() / temperature[row, None]).add_(block_noise(stream[row], block.unsqueeze(1))[:, 0])
        score, lane = scores.masked_fill_(values < cut[row, None], float("-inf")).max(-1)
        return score, block * BLOCK + lane

    first = bound.topk(min(FIRST_BLOCKS, num_blocks)).indices
    row = torch.arange(rows, device=stream.device)
    score, token = (x.view(rows, -1) for x in best_of(row.repeat_interleave(first.shape[1]), first.flatten()))
    best, where = score.max(-1)
    ids = token.gather(1, where.unsqueeze(1)).squeeze(1)
    row, block = torch.nonzero(bound.scatter_(1, first, float("-inf")) > best.unsqueeze(1), as_tuple=True)
    if len(row):
        score, token = best_of(row, block)
        winners = best.scatter_reduce_(0, row, score, "amax")[row] == score
        ids[row[winners]] = token[winners]
    return ids

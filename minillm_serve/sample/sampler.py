"""From logits to token ids: mask, temperature, top-k, top-p, then the Gumbel-max draw.

The noise is a pure function of (request seed, position, token): the same request draws the same tokens whatever
else is in the batch, and again after preemption.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleSettings:
    """One row per sequence. temperature [S] fp32 (0 is greedy), top_k [S] (<= 0: all), top_p [S], seeds [S] int64,
    positions [S] int64 (index of the token being drawn), allowed [S, vocab] bool or None (guided decoding)."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    seeds: Tensor
    positions: Tensor
    allowed: Tensor | None = None


def sample(logits: Tensor, settings: SampleSettings) -> Tensor:
    """logits: [S, vocab] fp32 -> token ids [S] int64."""
    if settings.allowed is not None:
        logits = logits.masked_fill(~settings.allowed, float("-inf"))
    ids = logits.argmax(-1)
    rows = torch.nonzero(settings.temperature > 0).flatten()
    if len(rows):
        ids[rows] = _draw(logits[rows], settings, rows)
    return ids


def _draw(logits: Tensor, settings: SampleSettings, rows: Tensor) -> Tensor:
    scaled = logits / settings.temperature[rows].unsqueeze(1)
    scaled = keep_top(scaled, settings.top_k[rows], settings.top_p[rows])
    return (scaled + gumbel_noise(settings.seeds[rows], settings.positions[rows], logits.shape[1])).argmax(-1)


def keep_top(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """-inf outside each row's top_k tokens, then outside the smallest set whose probability reaches top_p.

    The top-p set (Holtzman et al. 2020, arXiv:1904.09751) is taken over what top_k left, and is never empty.
    """
    limited = (top_k > 0) & (top_k < logits.shape[1])
    if not bool(limited.any()) and bool((top_p >= 1).all()):
        return logits
    values, order = logits.sort(-1, descending=True)
    rank = torch.arange(logits.shape[1], device=logits.device)
    values = values.masked_fill(limited.unsqueeze(1) & (rank >= top_k.unsqueeze(1)), float("-inf"))
    before = values.softmax(-1).cumsum(-1).roll(1, -1)
    before[:, 0] = 0.0
    values = values.masked_fill((before >= top_p.unsqueeze(1)) & (top_p < 1).unsqueeze(1), float("-inf"))
    return torch.empty_like(values).scatter_(1, order, values)


def gumbel_noise(seeds: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Standard Gumbel noise [S, vocab] by a counter-based generator (Salmon et al. 2011): no state, no order.

    argmax(logits + noise) is an exact draw from softmax(logits) (Maddison et al. 2014, arXiv:1411.0030).
    """
    stream = _mix(_mix(seeds) + positions)
    bits = _mix(stream.unsqueeze(1) + torch.arange(vocab_size, device=seeds.device))
    uniform = ((bits >> 11) & ((1 << 53) - 1)).double().add_(0.5).mul_(2.0**-53)
    return -torch.log(-torch.log(uniform)).float()


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 step (Steele et al. 2014) on int64 tensors; products wrap modulo 2**64."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, count: int) -> Tensor:
    """Logical shift right: int64 tensors shift in copies of the sign, which the mask clears."""
    return (x >> count) & ((1 << (64 - count)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

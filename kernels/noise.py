"""Gumbel noise that needs no state and no order: a pure function of (request seed, position, token).

argmax(logits + noise) is an exact draw from softmax(logits) (Maddison et al. 2014, arXiv:1411.0030). The noise is
-log of an Exp(1) arrival time, and the earliest of BLOCK arrivals is Exp(1) / BLOCK; by memorylessness the others
come independent Exp(1) times after it. So a block's best noise costs one random number, and a sampler may pass over
every block whose best cannot win: the same draw as over the full vocabulary, without visiting it.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64  # tokens that share one earliest arrival
BLOCK_COUNTERS = 1 << 40  # counters of blocks start here, above every token id


def streams(seeds: Tensor, positions: Tensor) -> Tensor:
    """The generator's state for each sequence's next token: [S] int64 from seeds [S] and positions [S], int64."""
    return _mix(_mix(seeds) + positions)


def first_arrivals(stream: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """When the earliest token of each block arrives, and which of its BLOCK tokens that is.

    stream: [S]; blocks: [S or 1, N] block indices -> float64 times [S, N], int64 places [S, N].
    """
    bits = _mix(stream.unsqueeze(-1) + (blocks + BLOCK_COUNTERS))
    return _exponential(bits) / BLOCK, bits & (BLOCK - 1)  # the low bits are not part of the exponential


def block_noise(stream: Tensor, blocks: Tensor) -> Tensor:
    """Standard Gumbel noise of every token of some blocks: float64 [S, N, BLOCK]."""
    first, place = first_arrivals(stream, blocks)
    lane = torch.arange(BLOCK, device=stream.device)
    tokens = blocks.unsqueeze(-1) * BLOCK + lane
    later = _exponential(_mix(stream[:, None, None] + tokens)).masked_fill_(lane == place.unsqueeze(-1), 0.0)
    return -torch.log(later.add_(first.unsqueeze(-1)))


def gumbel_noise(seeds: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """The noise of the whole vocabulary, float64 [S, vocab_size]: the specification of the lazy draw."""
    blocks = torch.arange(-(-vocab_size // BLOCK), device=seeds.device).unsqueeze(0)
    return block_noise(streams(seeds, positions), blocks).flatten(1)[:, :vocab_size]


def _exponential(bits: Tensor) -> Tensor:
    """Exp(1) times from the upper 53 of 64 random bits."""
    return -torch.log(((bits >> 11) & ((1 << 53) - 1)).double().add_(0.5).mul_(2.0**-53))


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

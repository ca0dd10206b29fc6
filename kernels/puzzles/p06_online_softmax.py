"""Puzzle 6, online softmax: a row too long for registers, its largest number and its sum found in one walk.

Spec: out[r, c] = exp(x[r, c] - max of row r) / sum over j of exp(x[r, j] - max of row r)

Write ``kernel(x_ptr, out_ptr, N, BLOCK: tl.constexpr)``: one program for each row, in tiles of BLOCK < N. Walk along
the row with a running maximum and the sum of exp(x - maximum so far); when a tile has a larger maximum, what was
summed before it shrinks by exp(old maximum - new maximum). Then walk again and write. (Milakov & Gimelshein 2018,
arXiv:1805.02867.)

New: state that is carried from tile to tile and corrected; it begins at -inf and 0.
Prepares for: triton/prefill.py, triton/decode.py
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles.judge import Puzzle

BLOCK = 16


def spec(x: Tensor) -> Tensor:
    return x.softmax(-1)


@triton.jit
def online_softmax(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    x_ptr += tl.program_id(0) * N
    out_ptr += tl.program_id(0) * N
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for first in range(0, N, BLOCK):
        at = first + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < N, other=float("-inf"))
        new_largest = tl.maximum(largest, tl.max(x, 0))
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(x - new_largest), 0)
        largest = new_largest
    for first in range(0, N, BLOCK):
        at = first + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < N, other=float("-inf"))
        tl.store(out_ptr + at, tl.exp(x - largest) / total, mask=at < N)


def launch(kernel, x: Tensor, out: Tensor) -> None:
    rows, size = x.shape
    kernel[(rows,)](x, out, size, BLOCK=BLOCK)


def cases(rand):
    for rows, size in ((2, BLOCK), (3, 3 * BLOCK), (2, 1), (3, 50)):
        yield {"x": rand(rows, size)}
    yield {"x": rand(2, 40).sort(-1).values * 40}  # the maximum grows from tile to tile


def _never_shrunk(x: Tensor) -> Tensor:
    """The sum of exp(x - maximum up to the tile), as it was when each tile was added."""
    ends = torch.arange(x.shape[1], device=x.device).div(BLOCK, rounding_mode="floor").mul(BLOCK).add(BLOCK - 1)
    so_far = x.cummax(-1).values[:, ends.clamp_max(x.shape[1] - 1)]
    return (x - x.amax(-1, keepdim=True)).exp() / (x - so_far).exp().sum(-1, keepdim=True)


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (online_softmax,),
    mistakes={
        "each tile is normalised on its own": lambda x: torch.cat(
            [tile.softmax(-1) for tile in x.split(BLOCK, -1)], -1
        ),
        "the sum does not shrink when the maximum grows": _never_shrunk,
    },
)
check = puzzle.check

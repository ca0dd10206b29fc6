"""Puzzle 3, softmax: a row per program, all of it in registers.

Spec: out[r, c] = exp(x[r, c] - max of row r) / sum over j of exp(x[r, j] - max of row r)

Write ``kernel(x_ptr, out_ptr, N, BLOCK: tl.constexpr)``: one program for each row, rows are N long and lie end to end.
BLOCK is the power of two from N up, because tl.arange takes no other: the lanes beyond N must add nothing to the sum.

New: tl.max, tl.exp, and why the largest number is subtracted (exp(89) is inf in fp32).
Prepares for: triton/norms.py, triton/sample.py
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from minillm_kernels.puzzles.judge import Puzzle


def spec(x: Tensor) -> Tensor:
    return x.softmax(-1)


@triton.jit
def softmax(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < N
    x = tl.load(x_ptr + row * N + column, mask=inside, other=float("-inf"))  # exp(-inf) is 0
    share = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + row * N + column, share / tl.sum(share, 0), mask=inside)


def launch(kernel, x: Tensor, out: Tensor) -> None:
    rows, size = x.shape
    kernel[(rows,)](x, out, size, BLOCK=triton.next_power_of_2(size))


def cases(rand):
    for rows, size in ((4, 32), (3, 1), (5, 20)):
        yield {"x": rand(rows, size)}
    yield {"x": rand(3, 33) * 40 + 100}


def _padded(x: Tensor) -> Tensor:
    size = x.shape[1]
    return functional.pad(x, (0, triton.next_power_of_2(size) - size)).softmax(-1)[:, :size]


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (softmax,),
    mistakes={
        "the sum is over all rows": lambda x: x.exp() / x.exp().sum(),
        "it is not divided by the sum": lambda x: (x - x.amax(1, keepdim=True)).exp(),
        "the lanes beyond the end count as x = 0": _padded,
    },
)
check = puzzle.check

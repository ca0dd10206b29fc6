"""Puzzle 1, vector add: many programs, each with a stretch of the vectors; the last one needs a mask.

Spec: out[i] = x[i] + y[i]

Write ``kernel(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr)``. It is started ceil(N / BLOCK) times;
``tl.program_id(0)`` says which of them this one is. N need not be a multiple of BLOCK.

New: tl.program_id, tl.arange, tl.load and tl.store with a mask.
Prepares for: triton/activation.py, triton/decode_inputs.py
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles.judge import Puzzle

BLOCK = 32


def spec(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@triton.jit
def add(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N
    x = tl.load(x_ptr + at, mask=inside)
    y = tl.load(y_ptr + at, mask=inside)
    tl.store(out_ptr + at, x + y, mask=inside)


def launch(kernel, x: Tensor, y: Tensor, out: Tensor) -> None:
    size = x.shape[0]
    kernel[(triton.cdiv(size, BLOCK),)](x, y, out, size, BLOCK=BLOCK)


def cases(rand):
    for size in (BLOCK, 3 * BLOCK, 1, 100):
        yield {"x": rand(size), "y": rand(size)}


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (add,),
    mistakes={"the first vector is copied": lambda x, y: x, "the vectors are multiplied": lambda x, y: x * y},
)
check = puzzle.check

"""Puzzle 2, row sum: tiles of two dimensions, a loop along the rows, and a reduction over the right axis.

Spec: out[r] = sum over c of x[r, c]

Write ``kernel(x_ptr, out_ptr, R, C, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr)``. A program owns ROWS rows
and walks along them with tiles [ROWS, COLUMNS]. Row r begins at x_ptr + r * row_stride: rows may lie further apart
than C.

New: broadcasting (``rows[:, None] + columns[None, :]``), masks of two dimensions, ``other=``, tl.sum.
Prepares for: triton/quantize.py, triton/gemv.py, triton/truncate.py
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles.judge import Puzzle

ROWS = COLUMNS = 16


def spec(x: Tensor) -> Tensor:
    return x.sum(1)


@triton.jit
def row_sum(x_ptr, out_ptr, R, C, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for first in range(0, C, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = (rows < R)[:, None] & (columns < C)[None, :]
        x = tl.load(x_ptr + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)
        total += tl.sum(x, 1)
    tl.store(out_ptr + rows, total, mask=rows < R)


def launch(kernel, x: Tensor, out: Tensor) -> None:
    rows, columns = x.shape
    grid = (triton.cdiv(rows, ROWS),)
    kernel[grid](x, out, rows, columns, x.stride(0), ROWS=ROWS, COLUMNS=COLUMNS)


def cases(rand):
    for rows, columns in ((16, 16), (16, 48), (1, 1), (21, 37)):
        yield {"x": rand(rows, columns)}
    yield {"x": rand(5, 40)[:, :19]}  # rows cut out of longer ones


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (row_sum,),
    mistakes={
        "the columns are summed (the other axis of the tile)": lambda x: x.sum(0),
        "only the first tile of each row is summed": lambda x: x[:, :COLUMNS].sum(1),
        "only the last tile of each row is summed": lambda x: x[:, (x.shape[1] - 1) // COLUMNS * COLUMNS :].sum(1),
    },
)
check = puzzle.check

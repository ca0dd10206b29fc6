"""Puzzle 5, matrix product: a tile of the result per program, tensor cores by tl.dot, a loop over the inner dimension.

Spec: out[m, n] = sum over k of a[m, k] * b[k, n]

Write ``kernel(a_ptr, b_ptr, out_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr)``: program (i, j)
of a grid of two dimensions makes the tile [BM, BN] of rows from i * BM and columns from j * BN. a, b and out are
dense. Sum in fp32; ``input_precision="ieee"`` keeps a GPU from cutting fp32 numbers to 10 bits of fraction (tf32).

New: tl.dot (tiles of 16 or more each way), program_id of a second axis, masks that differ for a, b and out.
Prepares for: triton/skinny.py, triton/linear_int8.py, triton/linear_fp8.py, triton/linear_w4.py, triton/lora.py,
triton/prefill.py
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles.judge import Puzzle

TILE = 16


def spec(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@triton.jit
def matmul(a_ptr, b_ptr, out_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        a = tl.load(a_ptr + m[:, None] * K + k[None, :], mask=(m < M)[:, None] & (k < K)[None, :], other=0.0)
        b = tl.load(b_ptr + k[:, None] * N + n[None, :], mask=(k < K)[:, None] & (n < N)[None, :], other=0.0)
        acc += tl.dot(a, b, input_precision="ieee")
    tl.store(out_ptr + m[:, None] * N + n[None, :], acc, mask=(m < M)[:, None] & (n < N)[None, :])


def launch(kernel, a: Tensor, b: Tensor, out: Tensor) -> None:
    (rows, inner), columns = a.shape, b.shape[1]
    grid = (triton.cdiv(rows, TILE), triton.cdiv(columns, TILE))
    kernel[grid](a, b, out, rows, columns, inner, BM=TILE, BN=TILE, BK=TILE)


def cases(rand):
    for rows, inner, columns in ((16, 16, 16), (16, 48, 16), (1, 7, 1), (19, 20, 37)):
        yield {"a": rand(rows, inner), "b": rand(inner, columns)}


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (matmul,),
    mistakes={
        "a and b are multiplied element by element": lambda a, b: a * b if a.shape == b.shape else a.new_empty(0),
        "only the first tile of k is added": lambda a, b: a[:, :TILE] @ b[:TILE],
        "only the last tile of k is added": lambda a, b: (
            a[:, (len(b) - 1) // TILE * TILE :] @ b[(len(b) - 1) // TILE * TILE :]
        ),
    },
    tolerance=5e-3,  # tf32 passes, a term left out does not
)
check = puzzle.check

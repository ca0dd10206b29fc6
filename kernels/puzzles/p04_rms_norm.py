"""Puzzle 4, RMSNorm: the first op of the engine. A row per program, a weight that all rows share.

Spec: out[t, i] = x[t, i] / sqrt(mean of row t's squares + eps) * weight[i]

Write ``kernel(x_ptr, weight_ptr, out_ptr, row_stride, eps, N: tl.constexpr, BLOCK: tl.constexpr)``: one program for
each of the rows of x, which begin row_stride apart; out is dense. The mean is over N numbers, not over BLOCK.

New: tl.rsqrt, rows of different strides in and out.
Prepares for: triton/norms.py, triton/rope_kv.py
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles.judge import Puzzle


def spec(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """:func:`minillm_kernels.ref.rms_norm`, without its roundings."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


@triton.jit
def rms_norm(x_ptr, weight_ptr, out_ptr, row_stride, eps, N: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    inside = column < N
    x = tl.load(x_ptr + row * row_stride + column, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + column, mask=inside)
    out = x * tl.rsqrt(tl.sum(x * x, 0) / N + eps) * weight
    tl.store(out_ptr + row * N + column, out, mask=inside)


def launch(kernel, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    rows, size = x.shape
    kernel[(rows,)](x, weight, out, x.stride(0), eps, N=size, BLOCK=triton.next_power_of_2(size))


def cases(rand):
    for rows, size in ((4, 64), (1, 1), (3, 48)):
        yield {"x": rand(rows, size), "weight": rand(size), "eps": 1e-5}
    yield {"x": rand(3, 60)[:, :20], "weight": rand(20), "eps": 1e-5}  # rows cut out of longer ones
    yield {"x": rand(2, 32) * 1e-3, "weight": rand(32), "eps": 1e-5}  # so small that eps counts


def _divided_by(count: int, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / count + eps) * weight


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (rms_norm,),
    mistakes={
        "eps is left out": lambda x, weight, eps: spec(x, weight, 0.0),
        "the weight is left out": lambda x, weight, eps: spec(x, torch.ones_like(weight), eps),
        "the mean is over BLOCK numbers": lambda x, weight, eps: _divided_by(
            triton.next_power_of_2(x.shape[1]), x, weight, eps
        ),
        "squares are summed, not averaged": lambda x, weight, eps: _divided_by(1, x, weight, eps),
        "the mean square is not square-rooted": lambda x, weight, eps: (
            x / (x.square().mean(-1, keepdim=True) + eps) * weight
        ),
    },
)
check = puzzle.check

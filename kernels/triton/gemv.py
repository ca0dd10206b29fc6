"""Matrix times one vector: every linear layer of a single decoded token.

Spec: ``ref.linear``, x [1, K], weight [N, K], bias [N] or None -> [1, N], sums in fp32.

A program owns a few rows of the weight and walks over K with a wide block. There is no ``tl.dot``: with one token a
tensor core would be 15/16 idle, and a product and a sum per weight keep up with memory. All programs read the same x,
out of L2. The weights are nobody's result, so the first of them are asked for before the kernel that makes x has ended
(overlap.py).

Roofline: bytes, N * K * itemsize (all else is K + N); flops, 2 * N * K, one per byte in bf16: bandwidth is the bound.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs


class GemvTile(NamedTuple):
    """block_n: rows of the weight per program; block_k: inputs per turn of its loop. Both powers of two."""

    block_n: int
    block_k: int
    num_warps: int


@triton.jit
def _gemv(x_ptr, weight_ptr, bias_ptr, out_ptr, N, K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    start_next()
    local, column = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    rows = tl.program_id(0) * BLOCK_N + local
    weight_ptr += tl.program_id(0).to(tl.int64) * BLOCK_N * K  # N * K may pass 2**31, a program's part does not
    at = local[:, None] * K + column[None, :]
    mine = (rows < N)[:, None]
    # One sum per row and column of the block: no thread waits for another until the weight has been read.
    inside = (column < K) | (K % BLOCK_K == 0)  # the compiler drops the mask where K is whole blocks
    weight = tl.load(weight_ptr + at, mask=mine & inside[None, :], other=0.0)
    wait_for_inputs()  # the first weights are on their way while the kernel before ends
    x = tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32)
    sums = weight.to(tl.float32) * x[None, :]
    for k in range(BLOCK_K, K, BLOCK_K):
        inside = (k + column < K) | (K % BLOCK_K == 0)
        weight = tl.load(weight_ptr + at + k, mask=mine & inside[None, :], other=0.0)
        x = tl.load(x_ptr + k + column, mask=inside, other=0.0).to(tl.float32)
        sums += weight.to(tl.float32) * x[None, :]
    out = tl.sum(sums, 1)
    if bias_ptr is not None:
        out += tl.load(bias_ptr + rows, mask=rows < N, other=0.0).to(tl.float32)
    tl.store(out_ptr + rows, out.to(out_ptr.dtype.element_ty), mask=rows < N)


def gemv(x: Tensor, weight: Tensor, bias: Tensor | None, tile: GemvTile) -> Tensor:
    """x: [1, K], weight: [N, K] contiguous, bias: [N] -> x @ weight.T + bias, [1, N]. Raises ValueError for others."""
    rows, depth = weight.shape
    if x.shape != (1, depth) or not weight.is_contiguous():
        raise ValueError(
            f"expected x [1, {depth}] and a contiguous weight [{rows}, {depth}], got x {list(x.shape)} and "
            f"strides {weight.stride()}"
        )
    if bias is not None and (bias.shape != (rows,) or not bias.is_contiguous()):
        raise ValueError(f"bias must be contiguous [{rows}], got {list(bias.shape)}")
    if x.stride(1) != 1:
        x = x.contiguous()
    out = torch.empty((1, rows), dtype=x.dtype, device=x.device)
    _gemv[(triton.cdiv(rows, tile.block_n),)](
        x,
        weight,
        bias,
        out,
        rows,
        depth,
        tile.block_n,
        tile.block_k,
        num_warps=tile.num_warps,
        num_stages=1,  # many small programs hide the latency, a pipeline in each only costs registers
        **LAUNCH,
    )
    return out

"""What 8-bit linear layers share, int8 or FP8: the product for one token, and the frame of the tiled one for more.

Spec: ``out = (x_codes * x_scales) @ (w_codes * w_scales).T + bias``. Roofline: one token reads N * K bytes and makes as
many products: bound by memory, half the bytes of bf16. Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

DEPTH = 128  # inputs of a tile: 128 bytes of a row, a whole cache line
MULTIPROCESSORS = 132  # of an H100
SHARED_MEMORY = 224 << 10  # bytes of a multiprocessor that its programs' pipelines share


class Tile(NamedTuple):
    """What a program computes, [BM tokens, BN outputs], and how: stages are the tiles in flight or in use."""

    bm: int
    bn: int
    warps: int
    stages: int


class Weight8(Protocol):
    """codes: [N, K] of one byte; scales: [N] fp32 (``ref.Int8Weight``, ``ref_fp8.Fp8Weight``)."""

    codes: Tensor
    scales: Tensor


@triton.jit
def _gemv(x, x_scales, w, w_scales, bias, out, N, K, GROUP: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """T = 1, one program per BN outputs. No tensor core: a weight is used once, getting it here is what takes time."""
    n, k = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BK)
    w_tile = w + n[:, None].to(tl.int64) * K + k[None, :]
    acc = tl.zeros((BN, BK), tl.float32)  # summed over BK once, at the end
    for start in range(0, K, BK):
        inside = start + k < K
        scale = tl.load(x_scales + (start + k) // GROUP, mask=inside, other=0.0)
        x_part = tl.load(x + start + k, mask=inside, other=0.0).to(tl.float32) * scale
        w_part = tl.load(w_tile + start, mask=(n[:, None] < N) & inside[None, :], other=0.0)
        acc += w_part.to(tl.float32) * x_part[None, :]
    total = tl.sum(acc, 1) * tl.load(w_scales + n, mask=n < N, other=0.0)
    if bias is not None:
        total += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out + n, total.to(out.dtype.element_ty), mask=n < N)


@triton.jit
def own_tile(T, N, BM: tl.constexpr, BN: tl.constexpr):
    """The tokens [BM] and outputs [BN] of a program. Those that run together form a square: L2 serves most reads."""
    tiles_m, tiles_n = tl.cdiv(T, BM), tl.cdiv(N, BN)
    pid = tl.program_id(0)
    pid_m, pid_n = tl.swizzle2d(pid // tiles_n, pid % tiles_n, tiles_m, tiles_n, 8)
    return pid_m * BM + tl.arange(0, BM), pid_n * BN + tl.arange(0, BN)


@triton.jit
def store_tile(acc, w_scales, bias, out, m, n, T, N):
    """The outputs' scales and bias, then the tile [BM, BN] where it belongs."""
    acc *= tl.load(w_scales + n, mask=n < N, other=0.0)[None, :]
    if bias is not None:
        acc += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    inside = (m[:, None] < T) & (n[None, :] < N)
    tl.store(out + m[:, None].to(tl.int64) * N + n[None, :], acc.to(out.dtype.element_ty), mask=inside)


def check_shapes(x: Tensor, weight: Weight8, bias: Tensor | None) -> None:
    """Raises ValueError where a layer's operands do not fit together."""
    outputs, depth = weight.codes.shape
    if x.dim() != 2 or x.shape[1] != depth:
        raise ValueError(f"this layer takes [tokens, {depth}], got {list(x.shape)}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"the bias of this layer is [{outputs}], got {list(bias.shape)}")


def multiply(
    product: Any, codes: Tensor, scales: Tensor, group: int, weight: Weight8, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Rounded activations (from :func:`quantize`, with its ``group``) times a weight: [T, K] -> [T, N] in ``dtype``.

    product: the tiled kernel, for more than one token.
    """
    (tokens, depth), outputs = codes.shape, weight.codes.shape[0]
    out = torch.empty(tokens, outputs, dtype=dtype, device=codes.device)
    operands = codes, scales, weight.codes, weight.scales, bias, out
    if tokens == 1:
        bn, bk = gemv_tile(outputs)
        _gemv[(triton.cdiv(outputs, bn),)](*operands, outputs, depth, group, bn, bk, num_warps=4)
    elif tokens > 1:
        bm, bn, warps, stages = choose(codes.dtype, tokens, outputs)
        programs = triton.cdiv(tokens, bm) * triton.cdiv(outputs, bn)
        product[(programs,)](*operands, tokens, outputs, depth, DEPTH, bm, bn, num_warps=warps, num_stages=stages)
    return out


# The rules below were read off a sweep on an H100 over the layers of Llama 3 8B, 1, 8 and 50 tokens in both formats and
# 256 of int8 qkv. They are within 3 % of its fastest, but 6 % off in int8 down (N 4096, K 14336) with 50 tokens. More
# tokens have not been swept.


def gemv_tile(outputs: int) -> tuple[int, int]:
    """(BN, BK) for one token: the most rows that still give a multiprocessor three programs to switch between."""
    bn = next((bn for bn in (8, 4, 2) if triton.cdiv(outputs, bn) >= 3 * MULTIPROCESSORS), 1)
    return bn, 512 if outputs > 4096 else 1024


def choose(dtype: torch.dtype, tokens: int, outputs: int) -> Tile:
    """The tile for more than one token. dtype: of the codes.

    int8 wants two programs on a multiprocessor: each step of its loop ends with a wait for products and scales, which
    the other program fills. FP8 sums inside the tensor core: one program with six stages reads as fast as it can. Its
    tile has 64 rows even for few tokens: that many take Hopper's own instruction (wgmma), which reads shared memory.
    """
    int8 = dtype == torch.int8
    if tokens > 256 and triton.cdiv(tokens, 128) * triton.cdiv(outputs, 128) >= MULTIPROCESSORS:
        return Tile(128, 128, warps=8, stages=4)  # fewest bytes per product
    bm = min(max(triton.next_power_of_2(tokens), 16), 64) if int8 else 64
    rows = triton.cdiv(tokens, bm)
    enough = 2 * MULTIPROCESSORS if int8 else 2 * MULTIPROCESSORS // 3
    bn = next((bn for bn in (64, 32) if rows * triton.cdiv(outputs, bn) >= enough), 16)
    # As many stages as let all programs run at once: those that wait for the others begin a second round.
    sharing = triton.cdiv(rows * triton.cdiv(outputs, bn), MULTIPROCESSORS)
    stages = SHARED_MEMORY // sharing // (DEPTH * (bm + bn))
    return Tile(bm, bn, warps=4, stages=min(max(stages, 3), 4 if int8 else 6))

"""A few tokens times a weight matrix: the linear layers of a small decode batch, with K split over programs (split-K).

Spec: ``ref.linear``: x [T, K], T at most 64, weight [N, K], bias [N] or None -> [T, N], sums in fp32.

One program for each tile of the output leaves most of the GPU without work where N is small: at N = 1024 and tiles of
64 outputs there are 16 programs. So ``split`` programs share an output tile, each with its own slice of K, and every
weight is still read once. Their partial sums meet in memory: each program stores its own, then counts itself in; the
one that finds all others there adds them up, always in the order of the slices, so the same input gives the same bits
however the programs are scheduled. (Only the counter is atomic. A second kernel could add the sums as well, at the
price of one more launch.)

The weight is the first operand of ``tl.dot`` and the tokens the second: out.T = weight @ x.T. The tensor cores'
wide side then lies along N, and a batch of 16 does not have to be padded to 64.

Roofline: bytes, N * K * itemsize, and split * T * N * 8 of partial sums, which stay in L2; flops, 2 * T * N * K, T per
byte in bf16: bandwidth is the bound up to T of about 250. Below some 8 MB of weights latency is: all of the weight has
to be on its way at once, which takes ``split`` high enough for every multiprocessor to have a program or two.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs

MAX_TOKENS = 64
MIN_BLOCK_N = 16  # smallest side of an operand of tl.dot
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


class SkinnyTile(NamedTuple):
    """block_n: outputs of a tile; block_k: inputs per turn of the loop, both powers of two; split: slices of K."""

    block_n: int
    block_k: int
    split: int
    num_warps: int
    num_stages: int


@triton.jit(do_not_specialize=["T"])
def _skinny(
    x_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    partial_ptr,
    arrivals_ptr,
    T,
    N,
    x_stride,
    K: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    start_next()
    wait_for_inputs()
    tile, part = tl.program_id(0), tl.program_id(1)
    SLICE: tl.constexpr = (K + SPLIT * BLOCK_K - 1) // (SPLIT * BLOCK_K) * BLOCK_K
    local = tl.arange(0, BLOCK_N)
    tokens = tl.arange(0, BLOCK_T)
    rows = tile * BLOCK_N + local
    weight_ptr += tile.to(tl.int64) * BLOCK_N * K

    acc = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
    for k in range(0, SLICE, BLOCK_K):
        cols = part * SLICE + k + tl.arange(0, BLOCK_K)
        inside = (cols < K) | (K % (SPLIT * BLOCK_K) == 0)  # the compiler drops the mask where all slices are whole
        weight = tl.load(
            weight_ptr + local[:, None] * K + cols[None, :], mask=(rows < N)[:, None] & inside[None, :], other=0.0
        )
        x = tl.load(
            x_ptr + tokens[None, :] * x_stride + cols[:, None], mask=(tokens < T)[None, :] & inside[:, None], other=0.0
        )
        if INTERPRETED:  # its tl.dot (triton 3.6 to 3.9) multiplies the bits of bf16 numbers
            weight, x = weight.to(tl.float32), x.to(tl.float32)
        acc = tl.dot(weight, x, acc, input_precision="ieee")

    inside = (rows < N)[:, None] & (tokens < T)[None, :]
    if SPLIT > 1:
        AREA: tl.constexpr = BLOCK_N * BLOCK_T
        sums = partial_ptr + tile * SPLIT * AREA + tokens[None, :] * BLOCK_N + local[:, None]
        tl.store(sums + part * AREA, acc, mask=inside)
        tl.debug_barrier()  # all threads have stored before one of them releases the stores to the other programs
        if tl.atomic_add(arrivals_ptr + tile, 1, sem="acq_rel") != SPLIT - 1:
            return  # a later program finds all sums there
        tl.store(arrivals_ptr + tile, 0)  # for the next launch: nobody else of this one will look
        acc = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
        for i in tl.static_range(SPLIT):
            acc += tl.load(sums + i * AREA, mask=inside, other=0.0)
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + rows, mask=rows < N, other=0.0).to(tl.float32)[:, None]
    tl.store(out_ptr + tokens[None, :] * N + rows[:, None], acc.to(out_ptr.dtype.element_ty), mask=inside)


def bucket(num_tokens: int) -> int:
    """Rows that T tokens are padded to, which a kernel is compiled for: 16, 32 or 64."""
    return max(16, triton.next_power_of_2(num_tokens))


def arrivals(out_features: int, device: torch.device) -> Tensor:
    """The counters that :func:`skinny` needs for a weight of so many outputs, all zero, as each call leaves them."""
    return torch.zeros(triton.cdiv(out_features, MIN_BLOCK_N), dtype=torch.int32, device=device)


def skinny(x: Tensor, weight: Tensor, bias: Tensor | None, counters: Tensor, tile: SkinnyTile) -> Tensor:
    """x: [T, K], weight: [N, K] contiguous, bias: [N] -> x @ weight.T + bias, [T, N].

    counters: of :func:`arrivals`; two calls that may run at the same time, on two streams, must not share them. Raises
    ValueError for other shapes and for T outside 1..64.
    """
    (num_tokens, width), (rows, depth) = x.shape, weight.shape
    if width != depth or not 1 <= num_tokens <= MAX_TOKENS or not weight.is_contiguous():
        raise ValueError(
            f"expected x [1..{MAX_TOKENS}, {depth}] and a contiguous weight [{rows}, {depth}], got x {list(x.shape)} "
            f"and strides {weight.stride()}"
        )
    if bias is not None and (bias.shape != (rows,) or not bias.is_contiguous()):
        raise ValueError(f"bias must be contiguous [{rows}], got {list(bias.shape)}")
    tiles = triton.cdiv(rows, tile.block_n)
    if counters.numel() < tiles:
        raise ValueError(f"{tiles} tiles of {tile.block_n} outputs need as many counters, got {counters.numel()}")
    if x.stride(1) != 1:
        x = x.contiguous()
    block_t = bucket(num_tokens)
    out = torch.empty((num_tokens, rows), dtype=x.dtype, device=x.device)
    sums = None
    if tile.split > 1:
        sums = torch.empty(tiles * tile.split * tile.block_n * block_t, dtype=torch.float32, device=x.device)
    _skinny[(tiles, tile.split)](
        x,
        weight,
        bias,
        out,
        sums,
        counters,
        num_tokens,
        rows,
        x.stride(0),
        depth,
        tile.split,
        block_t,
        tile.block_n,
        tile.block_k,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **LAUNCH,
    )
    return out

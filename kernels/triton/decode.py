"""Paged decode attention: one query token per sequence against all its keys and values, split over the GPU (split-K).

Spec: ``ref.attention`` with query_lens of 1, and zeros for a sequence of length 0.

Two kernels. ``_decode_tiles``: one program for a tile (a run of one sequence's tokens, see tiles.py) and a KV head;
online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867) over the tile, all query heads of the group together, so
each key and value is read once. Its result is a partial output and the log-sum-exp of its scores. ``_merge_tiles``:
weighs the partial outputs of a sequence by their share of the whole sum (Flash-Decoding, Dao et al. 2023). A sequence
of one tile is written where it belongs at once, and the second kernel has nothing to do.

Roofline: bytes, 2 * G * D * itemsize for each token; flops, 4 * H * D for each token, that is 2 * H / G flops per
element read: far below a GPU's ratio, so bandwidth is the bound, and tl.dot on 16 rows of which H / G are used costs
nothing. The second kernel moves 8 * H * D bytes for each tile, under 1 % of the first at 1024 tokens, 4 query heads a
group, bf16. Merging in the last program to finish (an atomic counter per sequence) would save a launch, but then one
program walks through the tiles of a whole group of heads while the others' multiprocessors idle; this one has H times
B programs, and no counter to reset.

Everything that changes from step to step is read from device memory, so a CUDA graph can replay it.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs
from minillm_kernels.triton.tiles import STEP

if TYPE_CHECKING:
    from minillm_kernels.triton.cache import TritonKV

NUM_STAGES = 3
LOAD_BYTES = 16384  # of keys, and as many of values, in one turn of the loop; NUM_STAGES - 1 turns are read ahead
MERGED_HEADS, MERGE_PROGRAMS = 8, 2048  # a program merges 8 heads where one each would be more programs than this
EVERYTHING = 2**31 - 1
# Views of one packed buffer begin anywhere: where they begin must not be a reason to compile again.
PACKED = [
    f"{name}_ptr" for name in ("table", "row", "len", "tile_seq", "tile_start", "tile_first", "num_tiles", "chunk")
]
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@dataclass(frozen=True)
class DecodeWork:
    """Who attends to what in this step, in device memory. Integers are int32, ``cap`` is the length of the tile list.

    tables: [rows, max_blocks], physical block of each logical one; rows: [B], each sequence's row in it; seq_lens: [B];
    tile_seq, tile_start: [cap]; tile_first: [B + 1]; num_tiles, chunk: [1], all five from ``tiles.plan_tiles``;
    partials: [cap, H, D] fp32 and lse: [cap, H] fp32, scratch (entries past num_tiles are neither read nor written).
    """

    tables: Tensor
    rows: Tensor
    seq_lens: Tensor
    tile_seq: Tensor
    tile_start: Tensor
    tile_first: Tensor
    num_tiles: Tensor
    chunk: Tensor
    partials: Tensor
    lse: Tensor


@triton.jit
def cast(x, kind: tl.constexpr):
    """x.to(kind). The interpreter (triton 3.6 to 3.9) takes an integer for bfloat16's bits: there, by way of fp32."""
    if INTERPRETED:
        x = x.to(tl.float32)
    return x.to(kind)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """tl.dot. The interpreter multiplies the bits of bfloat16 numbers, so there they are widened first."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=PACKED)
def _decode_tiles(
    q_ptr,
    key_ptr,
    value_ptr,
    key_scale_ptr,
    value_scale_ptr,
    table_ptr,
    row_ptr,
    len_ptr,
    tile_seq_ptr,
    tile_start_ptr,
    tile_first_ptr,
    num_tiles_ptr,
    chunk_ptr,
    partial_ptr,
    lse_ptr,
    out_ptr,
    log2_scale,
    window,
    table_stride,
    q_stride,
    q_head_stride,
    out_stride,
    out_head_stride,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads per KV head
    DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    SCALED: tl.constexpr,  # int8 cache, one scale per token and head
    ROWS: tl.constexpr,  # GROUP, padded for tl.dot
    LANES: tl.constexpr,  # DIM, padded to a power of two
    TOKENS: tl.constexpr,  # read in one turn of the loop
    PRECISION: tl.constexpr,
):
    start_next()
    kv_head, tile = tl.program_id(0), tl.program_id(1)
    num_tiles = tl.load(num_tiles_ptr)
    wait_for_inputs()
    if tile >= num_tiles:
        return  # the grid has room for the largest step
    seq = tl.load(tile_seq_ptr + tile).to(tl.int64)
    length = tl.load(len_ptr + seq)
    start = tl.load(tile_start_ptr + tile)
    end = tl.minimum(start + tl.load(chunk_ptr), length)
    start = tl.maximum(start, length - window)
    table_ptr += tl.load(row_ptr + seq).to(tl.int64) * table_stride

    group, lane = tl.arange(0, ROWS), tl.arange(0, LANES)
    heads = kv_head * GROUP + group
    used = (group < GROUP)[:, None] & (lane < DIM)[None, :]
    q_at = seq * q_stride + heads[:, None] * q_head_stride + lane[None, :]
    q = tl.load(q_ptr + q_at, mask=used, other=0.0)
    # An int8 value's scale goes into its weight, which then may be too small for fp16.
    weight_type: tl.constexpr = tl.bfloat16 if SCALED and q.dtype == tl.float16 else q.dtype

    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, LANES), tl.float32)
    for first in range(start, end, TOKENS):
        token = first + tl.arange(0, TOKENS)
        alive = token < end
        block = tl.load(table_ptr + token // BLOCK_SIZE, mask=alive, other=0).to(tl.int64)
        place = (block * KV_HEADS + kv_head) * BLOCK_SIZE + token % BLOCK_SIZE
        here, wanted = place[:, None] * DIM + lane[None, :], alive[:, None] & (lane < DIM)[None, :]

        keys = cast(tl.load(key_ptr + here, mask=wanted, other=0.0), q.dtype)
        scores = dot(q, tl.trans(keys), PRECISION) * log2_scale
        if SCALED:
            scores *= tl.load(key_scale_ptr + place, mask=alive, other=0.0)[None, :]
        scores = tl.where(alive[None, :], scores, float("-inf"))

        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        if SCALED:
            weights *= tl.load(value_scale_ptr + place, mask=alive, other=0.0)[None, :]
        values = cast(tl.load(value_ptr + here, mask=wanted, other=0.0), weight_type)
        acc = acc * shrink[:, None] + dot(weights.to(weight_type), values, PRECISION)
        largest = new_largest

    # A sum is at least 1, the share of its largest score; it is 0 where the window hides the whole tile.
    total = tl.maximum(total, 1.0)
    acc /= total[:, None]
    if tl.load(tile_first_ptr + seq + 1) - tl.load(tile_first_ptr + seq) == 1:
        out_at = seq * out_stride + heads[:, None] * out_head_stride + lane[None, :]
        tl.store(out_ptr + out_at, acc.to(out_ptr.dtype.element_ty), mask=used)
    else:
        partial = tile.to(tl.int64) * KV_HEADS * GROUP + heads
        tl.store(partial_ptr + partial[:, None] * DIM + lane[None, :], acc, mask=used)
        tl.store(lse_ptr + partial, largest + tl.log2(total), mask=group < GROUP)


@triton.jit(do_not_specialize_on_alignment=["tile_first_ptr"])
def _merge_tiles(
    tile_first_ptr,
    partial_ptr,
    lse_ptr,
    out_ptr,
    out_stride,
    out_head_stride,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    TOGETHER: tl.constexpr,  # heads of a program
    TILES: tl.constexpr,  # read in one turn of the loop
):
    start_next()
    seq = tl.program_id(1).to(tl.int64)
    wait_for_inputs()
    first, last = tl.load(tile_first_ptr + seq), tl.load(tile_first_ptr + seq + 1)
    if last - first == 1:
        return  # the only tile has written the output
    head, lane = tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER), tl.arange(0, LANES)
    largest = tl.full((TOGETHER,), -1e30, tl.float32)  # finite: hidden tiles have a log-sum-exp of -inf
    total = tl.zeros((TOGETHER,), tl.float32)
    acc = tl.zeros((TOGETHER, LANES), tl.float32)
    for at in range(first, last, TILES):
        tile = at + tl.arange(0, TILES)
        partial = tile.to(tl.int64)[:, None] * HEADS + head[None, :]
        there = (tile < last)[:, None] & (head < HEADS)[None, :]
        lse = tl.load(lse_ptr + partial, mask=there, other=float("-inf"))
        wanted = there[:, :, None] & (lane < DIM)[None, None, :]
        outputs = tl.load(partial_ptr + partial[:, :, None] * DIM + lane[None, None, :], mask=wanted, other=0.0)
        new_largest = tl.maximum(largest, tl.max(lse, 0))
        weights = tl.exp2(lse - new_largest[None, :])
        shrink = tl.exp2(largest - new_largest)
        acc = acc * shrink[:, None] + tl.sum(outputs * weights[:, :, None], 0)
        total = total * shrink + tl.sum(weights, 0)
        largest = new_largest
    acc /= tl.maximum(total, 1.0)[:, None]  # no tile, no token: zeros
    out_at = seq * out_stride + head[:, None] * out_head_stride + lane[None, :]
    tl.store(out_ptr + out_at, acc.to(out_ptr.dtype.element_ty), mask=(head < HEADS)[:, None] & (lane < DIM)[None, :])


def decode_attention(q: Tensor, cache: TritonKV, work: DecodeWork, scale: float, window: int, out: Tensor) -> Tensor:
    """q, out: [B, H, D], the last dimension dense; H a multiple of the cache's G. Returns ``out``.

    window: tokens that a token sees, itself the last of them; 0: all. It may be narrower than the one the tiles were
    planned for, not wider. Raises ValueError for shapes that do not fit together.
    """
    batch, heads, dim = q.shape
    _, kv_heads, block_size, cache_dim = cache.keys.shape
    cap = work.tile_seq.shape[0]
    if heads % kv_heads or cache_dim != dim or out.shape != q.shape:
        raise ValueError(f"q {tuple(q.shape)} and out {tuple(out.shape)} do not fit keys {tuple(cache.keys.shape)}")
    if work.seq_lens.shape != (batch,) or work.tile_first.shape != (batch + 1,):
        raise ValueError(f"{batch} queries, a work list of {work.seq_lens.shape[0]} sequences")
    if work.partials.shape != (cap, heads, dim) or work.lse.shape != (cap, heads):
        raise ValueError(f"scratch {tuple(work.partials.shape)}, expected {(cap, heads, dim)}")
    if q.stride(2) != 1 or out.stride(2) != 1 or not (cache.keys.is_contiguous() and cache.values.is_contiguous()):
        raise ValueError("the last dimension of q and out, and the whole cache, must be dense")
    scaled = cache.key_scales is not None
    lanes = max(16, triton.next_power_of_2(dim))
    rows = max(16, triton.next_power_of_2(heads // kv_heads))
    tokens = LOAD_BYTES // (lanes * cache.keys.element_size())
    _decode_tiles[(kv_heads, cap)](
        q,
        cache.keys,
        cache.values,
        cache.key_scales if scaled else work.lse,  # any pointer: not read
        cache.value_scales if scaled else work.lse,
        work.tables,
        work.rows,
        work.seq_lens,
        work.tile_seq,
        work.tile_start,
        work.tile_first,
        work.num_tiles,
        work.chunk,
        work.partials,
        work.lse,
        out,
        scale * math.log2(math.e),
        window or EVERYTHING,
        work.tables.stride(0),
        q.stride(0),
        q.stride(1),
        out.stride(0),
        out.stride(1),
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        DIM=dim,
        BLOCK_SIZE=block_size,
        SCALED=scaled,
        ROWS=rows,
        LANES=lanes,
        TOKENS=max(16, min(STEP, tokens)),
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=2 if rows * lanes * q.element_size() <= 4096 else 4,
        num_stages=NUM_STAGES,
        **LAUNCH,
    )
    together = min(MERGED_HEADS, triton.next_power_of_2(heads)) if batch * heads >= MERGE_PROGRAMS else 1
    _merge_tiles[(triton.cdiv(heads, together), batch)](
        work.tile_first,
        work.partials,
        work.lse,
        out,
        out.stride(0),
        out.stride(1),
        HEADS=heads,
        DIM=dim,
        LANES=lanes,
        TOGETHER=together,
        TILES=16 // together,
        num_warps=2 if together == 1 else 4,
        **LAUNCH,
    )
    return out

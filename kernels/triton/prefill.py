"""Paged prefill attention: the prompt chunks of several sequences, of any lengths, in one launch (FlashAttention-2).

Spec: ``ref.attention`` for the sequences of the work list; other rows of ``out`` are left as they are.

One program computes a tile of one sequence's queries for one KV head: ROWS rows, all query heads of the group for
ROWS // group tokens, so that short chunks fill the tensor cores too and the triangle cut off by causality stays thin.
It walks through the keys with an online softmax (Dao 2023, arXiv:2307.08691). Key tiles that no query of the tile sees
are not touched (the future, and what lies before the window); only those that some see and some do not are masked.

There is no list of tiles: a chunk with ``before`` tokens in front of it begins at place ``before // tokens + b`` of the
grid, which leaves it room for any tile size, and each program finds its own (one place for each chunk may stay empty).

Roofline: flops, 4 * H * D for each pair of a query and a key it sees; bytes, 2 * G * D * itemsize for each key, from
memory once and from L2 for every tile of queries: 2 * ROWS / itemsize flops per byte of it. With some hundred rows
(tokens x heads of a group) in a chunk tensor cores are the bound, below it is bandwidth.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.cache import TritonKV
from minillm_kernels.triton.decode import cast, dot

# Views of one packed buffer begin anywhere: where they begin must not be a reason to compile again.
LONG_CHUNK = 16384  # rows (tokens x heads of a group) from which wider key tiles are faster
PACKED = [f"{name}_ptr" for name in ("table", "row", "start", "query_len", "seq_len", "before")]


@dataclass(frozen=True)
class PrefillWork:
    """The prompt chunks of a step, in device memory; integers are int32. The longest sequence should come last.

    tables: [rows, max_blocks], physical block of each logical one; for each of the B chunks: its row of ``tables``, its
    first row of q (starts), its tokens (query_lens), the tokens of its sequence in the cache (seq_lens, its own
    included), and how many tokens the chunks before it in this list have (before).
    num_tokens: of all chunks; longest: tokens of the longest chunk.
    """

    tables: Tensor
    rows: Tensor
    starts: Tensor
    query_lens: Tensor
    seq_lens: Tensor
    before: Tensor
    num_tokens: int
    longest: int


class Tile(NamedTuple):
    """Rows of queries (tokens x heads of a group), keys met in one turn of the loop, warps, stages of its pipeline."""

    rows: int
    keys: int
    warps: int
    stages: int


def tile_for(rows: int, dim: int, dtype: torch.dtype) -> Tile:
    """rows: tokens x heads of a group in the longest chunk; dim: head size; dtype: of the queries."""
    wide = dim > 128
    if dtype == torch.float32:
        return Tile(32, 16 if wide else 32, 4, 2)
    if rows <= 64:
        return Tile(64, 32, 4, 3)
    if wide:
        return Tile(128, 32, 8, 3)
    return Tile(128, 32, 4, 5) if rows <= LONG_CHUNK else Tile(128, 64, 8, 5)


@triton.jit
def _load(ptr, slot, readable, DIM: tl.constexpr, LANES: tl.constexpr, MASKED: tl.constexpr):
    """Vectors of some slots of one head: [slots, LANES]. Unreadable ones, which may hold anything, are zeros."""
    lane = tl.arange(0, LANES)
    at = ptr + slot[:, None] * DIM + lane[None, :]
    if MASKED or LANES != DIM:
        return tl.load(at, mask=readable[:, None] & (lane < DIM)[None, :], other=0.0)
    return tl.load(at)


@triton.jit
def _scan(
    acc,
    total,
    largest,
    q,
    positions,
    key_ptr,
    value_ptr,
    key_scale_ptr,
    value_scale_ptr,
    table_ptr,
    begin,  # a multiple of KEYS
    end,
    lowest,
    highest,
    log2_scale,
    WINDOW: tl.constexpr,
    BLOCK_STRIDE: tl.constexpr,  # slots of a block, all heads
    BLOCK_SIZE: tl.constexpr,
    SCALED: tl.constexpr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    MASKED: tl.constexpr,  # not every query sees every key of [begin, end)
):
    """Online softmax over keys begin .. end - 1: acc and total are relative to exp2(largest)."""
    weight_type: tl.constexpr = tl.bfloat16 if SCALED and q.dtype == tl.float16 else q.dtype
    step = tl.arange(0, KEYS)
    for first in range(begin, end, KEYS):
        key = first + step
        readable = (key >= lowest) & (key < highest)
        if KEYS % BLOCK_SIZE == 0:  # whole blocks: places within them are the same in every turn
            block = tl.load(table_ptr + first // BLOCK_SIZE + step // BLOCK_SIZE, mask=readable if MASKED else None)
            slot = block.to(tl.int64) * BLOCK_STRIDE + step % BLOCK_SIZE
        elif BLOCK_SIZE % KEYS == 0:  # all in one block
            block = tl.load(table_ptr + first // BLOCK_SIZE)
            slot = block.to(tl.int64) * BLOCK_STRIDE + first % BLOCK_SIZE + step
        else:
            block = tl.load(table_ptr + key // BLOCK_SIZE, mask=readable if MASKED else None)
            slot = block.to(tl.int64) * BLOCK_STRIDE + key % BLOCK_SIZE

        keys = cast(_load(key_ptr, slot, readable, DIM, LANES, MASKED), q.dtype)
        scores = dot(q, tl.trans(keys), PRECISION)
        if SCALED:
            scores *= tl.load(key_scale_ptr + slot, mask=readable, other=0.0)[None, :]
        if MASKED:
            seen = key[None, :] <= positions[:, None]
            if WINDOW:
                seen &= key[None, :] > positions[:, None] - WINDOW
            scores = tl.where(seen, scores, float("-inf"))

        new_largest = tl.maximum(largest, tl.max(scores, 1) * log2_scale)
        weights = tl.exp2(scores * log2_scale - new_largest[:, None])  # one multiply-add each
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        if SCALED:
            weights *= tl.load(value_scale_ptr + slot, mask=readable, other=0.0)[None, :]
        values = cast(_load(value_ptr, slot, readable, DIM, LANES, MASKED), weight_type)
        acc = acc * shrink[:, None] + dot(weights.to(weight_type), values, PRECISION)
        largest = new_largest
    return acc, total, largest


@triton.jit(do_not_specialize=["table_stride", "num_seqs"], do_not_specialize_on_alignment=PACKED)
def _prefill_tiles(
    q_ptr,
    key_ptr,
    value_ptr,
    key_scale_ptr,
    value_scale_ptr,
    table_ptr,
    row_ptr,
    start_ptr,
    query_len_ptr,
    seq_len_ptr,
    before_ptr,
    out_ptr,
    log2_scale,
    num_seqs,
    table_stride,
    q_stride,
    q_head_stride,
    out_stride,
    out_head_stride,
    WINDOW: tl.constexpr,  # 0: all
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads per KV head
    BLOCK_SIZE: tl.constexpr,
    SCALED: tl.constexpr,  # int8 cache, one scale per token and head
    DIM: tl.constexpr,
    LANES: tl.constexpr,  # DIM, padded to a power of two
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    TOKENS: tl.constexpr = ROWS // GROUP
    kv_head = tl.program_id(0)
    place = tl.num_programs(1) - 1 - tl.program_id(1)  # the most work comes last in the list: begin with it

    seq = -1
    for first in range(0, num_seqs, 128):
        other = first + tl.arange(0, 128)
        before = tl.load(before_ptr + other, mask=other < num_seqs, other=0)
        begins = (other < num_seqs) & (before // TOKENS + other <= place)
        seq += tl.sum(begins.to(tl.int32), 0)
    token = (place - tl.load(before_ptr + seq) // TOKENS - seq) * TOKENS  # the tile's first, counted in the chunk
    query_len, seq_len = tl.load(query_len_ptr + seq), tl.load(seq_len_ptr + seq)
    if token >= query_len:
        return
    table_ptr += tl.load(row_ptr + seq).to(tl.int64) * table_stride

    row, lane = tl.arange(0, ROWS), tl.arange(0, LANES)
    tokens, heads = token + row // GROUP, kv_head * GROUP + row % GROUP
    used = ((row < TOKENS * GROUP) & (tokens < query_len))[:, None] & (lane < DIM)[None, :]
    flat = (tl.load(start_ptr + seq) + tokens).to(tl.int64)[:, None]
    q = tl.load(q_ptr + flat * q_stride + heads[:, None] * q_head_stride + lane[None, :], mask=used, other=0.0)

    # Keys that the first query sees all see, from the front; in a window those that the last sees, from behind.
    nearest = seq_len - query_len + token
    highest = tl.minimum(nearest + TOKENS, seq_len)
    positions = nearest + row // GROUP
    lowest = 0
    full = 0
    if WINDOW:
        lowest = tl.maximum(nearest - WINDOW + 1, 0)
        full = tl.maximum(highest - WINDOW, 0)
        full = (full + KEYS - 1) // KEYS * KEYS
    full_end = tl.maximum((nearest + 1) // KEYS * KEYS, full)
    head_slots = kv_head.to(tl.int64) * BLOCK_SIZE
    key_ptr += head_slots * DIM
    value_ptr += head_slots * DIM
    if SCALED:
        key_scale_ptr += head_slots
        value_scale_ptr += head_slots

    acc = tl.zeros((ROWS, LANES), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    largest = tl.full((ROWS,), -1e30, tl.float32)  # finite: a row may see nothing in its first tile of keys
    for part in tl.static_range(3):  # cut by the window; seen by all; cut by causality
        if part != 0 or WINDOW:
            if part == 0:
                begin, end = lowest // KEYS * KEYS, tl.minimum(full, highest)
            elif part == 1:
                begin, end = full, full_end
            else:
                begin, end = full_end, highest
            acc, total, largest = _scan(
                acc,
                total,
                largest,
                q,
                positions,
                key_ptr,
                value_ptr,
                key_scale_ptr,
                value_scale_ptr,
                table_ptr,
                begin,
                end,
                lowest,
                highest,
                log2_scale,
                WINDOW,
                KV_HEADS * BLOCK_SIZE,
                BLOCK_SIZE,
                SCALED,
                DIM,
                LANES,
                KEYS,
                PRECISION,
                part != 1,
            )
    total = tl.maximum(total, 0.5)  # its largest share is about 1; 0 in rows that are not stored
    out = (acc / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + flat * out_stride + heads[:, None] * out_head_stride + lane[None, :], out, mask=used)


def prefill_attention(q: Tensor, cache: TritonKV, work: PrefillWork, scale: float, window: int, out: Tensor) -> Tensor:
    """q, out: [T, H, D], the last dimension dense; H a multiple of the cache's G. Returns ``out``.

    window: tokens that a token sees, itself the last of them; 0: all. Raises ValueError for shapes that do not fit.
    """
    _, heads, dim = q.shape
    _, kv_heads, block_size, cache_dim = cache.keys.shape
    group = heads // kv_heads
    tile = tile_for(work.longest * group, dim, q.dtype)
    if heads % kv_heads or cache_dim != dim or out.shape != q.shape:
        raise ValueError(f"q {tuple(q.shape)} and out {tuple(out.shape)} do not fit keys {tuple(cache.keys.shape)}")
    if group > tile.rows:
        raise ValueError(f"{group} query heads share a KV head; at most {tile.rows} may")
    if q.stride(2) != 1 or out.stride(2) != 1 or not (cache.keys.is_contiguous() and cache.values.is_contiguous()):
        raise ValueError("the last dimension of q and out, and the whole cache, must be dense")
    num_seqs, scaled = work.rows.shape[0], cache.key_scales is not None
    _prefill_tiles[(kv_heads, work.num_tokens // (tile.rows // group) + num_seqs)](
        q,
        cache.keys,
        cache.values,
        cache.key_scales if scaled else work.rows,  # any pointer: not read
        cache.value_scales if scaled else work.rows,
        work.tables,
        work.rows,
        work.starts,
        work.query_lens,
        work.seq_lens,
        work.before,
        out,
        scale * math.log2(math.e),
        num_seqs,
        work.tables.stride(0),
        q.stride(0),
        q.stride(1),
        out.stride(0),
        out.stride(1),
        WINDOW=window,
        KV_HEADS=kv_heads,
        GROUP=group,
        BLOCK_SIZE=block_size,
        SCALED=scaled,
        DIM=dim,
        LANES=max(16, triton.next_power_of_2(dim)),
        ROWS=tile.rows,
        KEYS=tile.keys,
        PRECISION="tf32x3",  # of fp32: three products on tensor cores; fp32 units would not have the registers
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out

"""Puzzle 10, paged decode attention: everything so far. One query token for each sequence, keys and values in blocks.

Spec: out[b, h] = attention of q[b, h] over keys and values [table[b, s // BS], h // GROUP, s % BS] of all s < lens[b]

Write ``kernel(q_ptr, key_ptr, value_ptr, table_ptr, len_ptr, out_ptr, scale, table_stride, GROUP: tl.constexpr, ROWS:
tl.constexpr, DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TOKENS: tl.constexpr)``, one program for each (KV head,
sequence); BS is BLOCK_SIZE; GROUP query heads share a KV head (GQA), and its keys are read once for all of them. q and
out are [B, G * GROUP, DIM], keys and values [blocks, G, BLOCK_SIZE, DIM] (the engine's layout), table int32 [B,
max_blocks], lens int32 [B]. tl.dot takes no fewer than 16 rows, so the group is padded to ROWS. BLOCK_SIZE is any
number, DIM a power of two. A sequence of length 0 (the empty places of a CUDA graph) gives zeros. Memory that is not
of the sequence is NaN. The engine's page adds split-K, puzzle 9.

New: nothing. Prepares for: triton/decode.py
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles import p08_one_query
from minillm_kernels.puzzles.judge import Puzzle

TOKENS = 16


def spec(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lens: Tensor, scale: float) -> Tensor:
    out = torch.zeros_like(q)
    group = q.shape[1] // keys.shape[1]
    for b, length in enumerate(lens.tolist()):
        mine = (x[table[b].long()].transpose(0, 1).flatten(1, 2)[:, :length] for x in (keys, values))
        out[b] = p08_one_query.spec(q[b], *(x.repeat_interleave(group, 0) for x in mine), scale)
    return out


@triton.jit
def paged_decode(
    q_ptr, key_ptr, value_ptr, table_ptr, len_ptr, out_ptr, scale, table_stride,
    GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    kv_head, seq = tl.program_id(0), tl.program_id(1)
    kv_heads = tl.num_programs(0)
    length = tl.load(len_ptr + seq)
    row, lane = tl.arange(0, ROWS), tl.arange(0, DIM)
    mine = (row < GROUP)[:, None]
    q_at = ((seq * kv_heads + kv_head) * GROUP + row)[:, None] * DIM + lane[None, :]
    q = tl.load(q_ptr + q_at, mask=mine, other=0.0)
    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, DIM), tl.float32)
    for first in range(0, length, TOKENS):
        token = first + tl.arange(0, TOKENS)
        alive = token < length
        block = tl.load(table_ptr + seq * table_stride + token // BLOCK_SIZE, mask=alive, other=0).to(tl.int64)
        place = (block * kv_heads + kv_head) * BLOCK_SIZE + token % BLOCK_SIZE
        at = place[:, None] * DIM + lane[None, :]
        keys = tl.load(key_ptr + at, mask=alive[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(alive[None, :], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - new_largest[:, None])
        shrink = tl.exp(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(value_ptr + at, mask=alive[:, None], other=0.0)
        acc = acc * shrink[:, None] + tl.dot(weights, values, input_precision="ieee")
        largest = new_largest
    tl.store(out_ptr + q_at, acc / tl.maximum(total, 1.0)[:, None], mask=mine)  # no token: 0 / 1


def launch(
    kernel, q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lens: Tensor, scale: float, out: Tensor
) -> None:
    batch, heads, dim = q.shape
    _, kv_heads, block_size, _ = keys.shape
    group = heads // kv_heads
    kernel[(kv_heads, batch)](
        q, keys, values, table, lens, out, scale, table.stride(0), GROUP=group,
        ROWS=max(16, triton.next_power_of_2(group)), DIM=dim, BLOCK_SIZE=block_size, TOKENS=TOKENS,
    )  # fmt: skip


def cases(rand):
    # KV heads, group, D, block size, lengths
    yield _case(rand, 1, 1, 16, 16, [16])
    yield _case(rand, 2, 4, 16, 16, [32, 32])
    yield _case(rand, 2, 3, 32, 16, [1, 37, 0, 16])
    yield _case(rand, 1, 2, 16, 5, [23, 5])


def _case(rand, kv_heads: int, group: int, dim: int, block_size: int, lens: list[int]) -> dict:
    """Blocks are handed out from the last down; block 0 has no owner, and is named where a table has nothing to say."""
    counts = [-(-length // block_size) for length in lens]
    blocks = sum(counts) + 1
    keys, values = (torch.full((blocks, kv_heads, block_size, dim), float("nan")) for _ in range(2))
    table = torch.zeros(len(lens), max(counts), dtype=torch.int32)
    for b, length in enumerate(lens):
        for i in range(counts[b]):
            blocks -= 1
            table[b, i] = blocks
            used = min(block_size, length - i * block_size)
            for x in (keys, values):
                x[blocks, :, :used] = rand(kv_heads, used, dim)
    q = 2 * rand(len(lens), kv_heads * group, dim)
    return {
        "q": q,
        "keys": keys,
        "values": values,
        "table": table,
        "lens": torch.tensor(lens, dtype=torch.int32),
        "scale": 0.25,
    }


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (paged_decode,),
    mistakes={
        "the scale is left out": lambda scale, **case: spec(**case, scale=1.0),
        "only the first tile of keys is read": lambda lens, **case: spec(**case, lens=lens.clamp_max(TOKENS)),
        "the last token is left out": lambda lens, **case: spec(**case, lens=(lens - 1).clamp_min(0)),
        "query head h reads KV head h % G": lambda q, keys, **case: _interleaved(q, keys, **case),
    },
    tolerance=5e-3,
)
check = puzzle.check


def _interleaved(q: Tensor, keys: Tensor, **case) -> Tensor:
    group = q.shape[1] // keys.shape[1]
    shuffled = q.unflatten(1, (group, -1)).transpose(1, 2).flatten(1, 2)
    return spec(shuffled, keys, **case).unflatten(1, (-1, group)).transpose(1, 2).flatten(1, 2)

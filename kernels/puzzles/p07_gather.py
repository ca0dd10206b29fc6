"""Puzzle 7, gather by table: the tokens of one sequence, scattered over the blocks of a cache.

Spec: out[t] = cache[table[t // block_size], t % block_size]

Write ``kernel(cache_ptr, table_ptr, out_ptr, T, DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TOKENS: tl.constexpr)``.
cache is [blocks, BLOCK_SIZE, DIM] dense, table int32, out [T, DIM]; a program owns TOKENS tokens. Blocks that are not
in the table, and the rest of the last one, belong to others: here they hold NaN. DIM is a power of two, BLOCK_SIZE
need not be one.

New: pointers made of loaded numbers. A real cache has more than 2**31 elements: make the block's number 64 bits wide
(``.to(tl.int64)``) before it is multiplied, or the product wraps around. No test here is large enough to notice.
Prepares for: triton/rope_kv.py, triton/decode_inputs.py, triton/decode.py, triton/logits.py
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles.judge import Puzzle

TOKENS = 8


def spec(cache: Tensor, table: Tensor, length: int) -> Tensor:
    return cache[table.long()].flatten(0, 1)[:length]


@triton.jit
def gather(
    cache_ptr, table_ptr, out_ptr, T, DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TOKENS: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    lane = tl.arange(0, DIM)
    alive = token < T
    block = tl.load(table_ptr + token // BLOCK_SIZE, mask=alive, other=0).to(tl.int64)
    slot = block * BLOCK_SIZE + token % BLOCK_SIZE
    row = tl.load(cache_ptr + slot[:, None] * DIM + lane[None, :], mask=alive[:, None])
    tl.store(out_ptr + token[:, None] * DIM + lane[None, :], row, mask=alive[:, None])


def launch(kernel, cache: Tensor, table: Tensor, length: int, out: Tensor) -> None:
    _, block_size, dim = cache.shape
    grid = (triton.cdiv(length, TOKENS),)
    kernel[grid](cache, table, out, length, DIM=dim, BLOCK_SIZE=block_size, TOKENS=TOKENS)


def cases(rand):
    for blocks, block_size, dim, length in (
        (2, 16, 16, 32),
        (3, 8, 16, 24),
        (4, 16, 32, 50),
        (5, 3, 16, 13),
        (1, 16, 16, 1),
    ):
        cache = rand(blocks + 2, block_size, dim)  # the first block and the last are not in the table
        table = torch.arange(blocks, 0, -1, dtype=torch.int32)
        rest = blocks * block_size - length
        cache[0] = cache[-1] = cache[table[-1], block_size - rest :] = float("nan")
        yield {"cache": cache, "table": table, "length": length}


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (gather,),
    mistakes={
        "the place within the block is left out": lambda cache, table, length: (
            cache[table.long()][:, :1].expand(-1, cache.shape[1], -1).flatten(0, 1)[:length]
        ),
        "blocks are taken in order, not by the table": lambda cache, table, length: cache[1:].flatten(0, 1)[:length],
    },
)
check = puzzle.check

"""What a decode step reads, made on the GPU inside its CUDA graph: token ids, positions, KV slots; block table updates.

Spec, for sequence b of the step, in row r = rows[b] of the tables, its length n = seq_lens[b] counting the new token:
id = ids_in[b], or where that is negative one that the host has not seen: recent[0, r] for -1 (drawn by the step
before), recent[i, r] for -1 - i (the i-th of the tokens drafted since);
position = n - 1; slot = tables[r, position // block_size] * block_size + position % block_size.
A graph is captured for a fixed number of sequences: those too many have n = 0 and get id 0, position 0, slot -1.

Roofline: neither bytes nor flops, some 50 bytes a sequence: one launch each, whatever the batch.

Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs

BLOCK = 128  # sequences, or table entries, of a program: one a thread


@triton.jit(do_not_specialize=["B"])
def _prepare_decode(
    rows_ptr, seq_lens_ptr, ids_in_ptr, recent_ptr, recent_stride, tables_ptr, table_stride, ids_ptr, positions_ptr,
    slots_ptr, B, BLOCK_SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    start_next()
    wait_for_inputs()
    b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = b < B
    length = tl.load(seq_lens_ptr + b, mask=inside, other=0)
    live = length > 0
    row = tl.load(rows_ptr + b, mask=live, other=0).to(tl.int64)
    given = tl.load(ids_in_ptr + b, mask=live, other=0).to(tl.int64)
    drawn = tl.load(recent_ptr + (-1 - given) * recent_stride + row, mask=live & (given < 0), other=0)
    position = tl.where(live, length - 1, 0)
    block = tl.load(tables_ptr + row * table_stride + position // BLOCK_SIZE, mask=live, other=0).to(tl.int64)
    tl.store(ids_ptr + b, tl.where(given < 0, drawn, given), mask=inside)
    tl.store(positions_ptr + b, position.to(tl.int64), mask=inside)
    tl.store(slots_ptr + b, tl.where(live, block * BLOCK_SIZE + position % BLOCK_SIZE, -1), mask=inside)


@triton.jit(do_not_specialize=["cap"])
def _scatter_tables(tables_ptr, where_ptr, values_ptr, count_ptr, cap, BLOCK: tl.constexpr):
    start_next()
    wait_for_inputs()
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = i < tl.minimum(tl.load(count_ptr), cap)
    where = tl.load(where_ptr + i, mask=real, other=0)
    tl.store(tables_ptr + where, tl.load(values_ptr + i, mask=real, other=0), mask=real)


def prepare_decode(
    rows: Tensor,
    seq_lens: Tensor,
    ids_in: Tensor,
    recent: Tensor,
    tables: Tensor,
    block_size: int,
    ids: Tensor,
    positions: Tensor,
    slots: Tensor,
) -> None:
    """Fill ids, positions, slots ([B] int64) of a decode step as the module's spec says.

    rows, seq_lens, ids_in: [B] int32, an id at least -K; recent: [K, R] int64; tables: [R, W] int32, the physical block
    of each logical one. All contiguous, on one device.
    """
    batch = rows.shape[0]
    lengths = [len(x) for x in (rows, seq_lens, ids_in, ids, positions, slots)]
    if len(set(lengths)) > 1:
        raise ValueError(f"rows, seq_lens, ids_in, ids, positions and slots are of one length, got {lengths}")
    _prepare_decode[(triton.cdiv(batch, BLOCK),)](
        rows, seq_lens, ids_in, recent, recent.stride(0), tables, tables.stride(0), ids, positions, slots, batch,
        BLOCK_SIZE=block_size, BLOCK=BLOCK, **LAUNCH,
    )  # fmt: skip


def scatter_tables(tables: Tensor, where: Tensor, values: Tensor, count: Tensor) -> None:
    """tables.flatten()[where[i]] = values[i] for i < count: the blocks that sequences got since the step before.

    tables: [R, W] int32, contiguous; where, values: [cap] int32; count: [1] int32, at most cap, in device memory: the
    launch is the same for any count. No two of the first ``count`` entries of where are equal.
    """
    if where.shape != values.shape or not tables.is_contiguous():
        raise ValueError(
            f"where and values are of one length and tables contiguous, got {list(where.shape)}, {list(values.shape)} "
            f"and strides {tables.stride()}"
        )
    cap = where.shape[0]
    _scatter_tables[(triton.cdiv(cap, BLOCK),)](tables, where, values, count, cap, BLOCK=BLOCK, **LAUNCH)

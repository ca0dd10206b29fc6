"""Kernels that go wrong as students' do, for the judge of the puzzles."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_unmasked(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at) + tl.load(y_ptr + at))


@triton.jit
def add_one_too_many(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at <= N
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=inside) + tl.load(y_ptr + at, mask=inside), mask=inside)


@triton.jit
def add_one_too_few(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N - 1
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=inside) + tl.load(y_ptr + at, mask=inside), mask=inside)


@triton.jit
def add_full_tiles_only(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < N // BLOCK * BLOCK
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=inside) + tl.load(y_ptr + at, mask=inside), mask=inside)


@triton.jit
def add_shifted(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at + 1, mask=at < N - 1, other=0.0)
    tl.store(out_ptr + at, x + tl.load(y_ptr + at, mask=at < N), mask=at < N)


@triton.jit
def add_in_place(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x_ptr + at, mask=at < N) + tl.load(y_ptr + at, mask=at < N)
    tl.store(x_ptr + at, total, mask=at < N)
    tl.store(out_ptr + at, total, mask=at < N)


@triton.jit
def add_before_the_start(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x_ptr + at, mask=at < N) + tl.load(y_ptr + at, mask=at < N)
    tl.store(out_ptr + at - 2, total, mask=at < N)


@triton.jit
def sum_of_columns(x_ptr, out_ptr, R, C, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, C, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = (rows < R)[:, None] & (columns < C)[None, :]
        total += tl.sum(tl.load(x_ptr + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0), 0)
    tl.store(out_ptr + rows, total, mask=rows < R)


@triton.jit
def sum_past_the_row(x_ptr, out_ptr, R, C, row_stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for first in range(0, C, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        x = tl.load(x_ptr + rows[:, None] * row_stride + columns[None, :], mask=(rows < R)[:, None], other=0.0)
        total += tl.sum(x, 1)
    tl.store(out_ptr + rows, total, mask=rows < R)


@triton.jit
def softmax_of_zeros(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    at = tl.program_id(0) * N + column
    x = tl.load(x_ptr + at, mask=column < N, other=0.0)
    share = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + at, share / tl.sum(share, 0), mask=column < N)


@triton.jit
def softmax_that_overflows(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    at = tl.program_id(0) * N + column
    share = tl.exp(tl.load(x_ptr + at, mask=column < N, other=float("-inf")))
    tl.store(out_ptr + at, share / tl.sum(share, 0), mask=column < N)


@triton.jit
def merge_by_mean(partial_ptr, lse_ptr, out_ptr, DIM: tl.constexpr, SPLITS: tl.constexpr):
    head = tl.program_id(0)
    lane, part = tl.arange(0, DIM), tl.arange(0, SPLITS)
    partial = tl.load(partial_ptr + (head * SPLITS + part)[:, None] * DIM + lane[None, :])
    tl.store(out_ptr + head * DIM + lane, tl.sum(partial, 0) / SPLITS)


@triton.jit
def split_nothing(
    q_ptr, key_ptr, value_ptr, partial_ptr, lse_ptr, S, scale,
    DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    tl.store(partial_ptr - 1, 0.0)


@triton.jit
def add_tiles_of_two_sizes(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(out_ptr + tl.arange(0, BLOCK), x + tl.load(y_ptr + tl.arange(0, 2 * BLOCK)))


@triton.jit
def add_without_size(x_ptr, y_ptr, out_ptr, BLOCK: tl.constexpr):
    pass


@triton.jit
def query_without_the_last_key(q_ptr, key_ptr, value_ptr, out_ptr, S, scale, DIM: tl.constexpr, BLOCK: tl.constexpr):
    head, token, lane = tl.program_id(0), tl.arange(0, BLOCK), tl.arange(0, DIM)
    at = (head * S + token)[:, None] * DIM + lane[None, :]
    q = tl.load(q_ptr + head * DIM + lane)
    scores = tl.sum(tl.load(key_ptr + at) * q[None, :], 1) * scale
    weights = tl.where(token < S - 1, tl.exp(scores - tl.max(scores, 0)), 0.0)
    out = tl.sum(weights[:, None] * tl.load(value_ptr + at), 0) / tl.sum(weights, 0)
    tl.store(out_ptr + head * DIM + lane, out)

"""The draw: greedy or Gumbel-max, one token id per row, in one reading of the logits.

Computes, for each row, ``argmax(logits / temperature + noise)`` over the tokens not under ``cut``; temperature 0: the
first of the largest logits. Noise and scores are float64, so that the token is the same on every machine and in every
batch.

Spec: ``minillm_serve/sample/sampler.py`` (:func:`sample`, without its filters), noise of ``kernels/noise.py``.
Roofline: S * V logits read once, 2 or 4 bytes each, against one comparison each: bound by memory. What would spoil that
is the noise, two float64 logarithms a token. So only the first arrival of each block of 64 tokens is computed along
with the block's largest logit: their sum bounds every score in the block, and blocks are opened, best bound first,
until no bound is above the best score found.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels import noise
from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs

BLOCK = tl.constexpr(noise.BLOCK)
BLOCK_COUNTERS = tl.constexpr(noise.BLOCK_COUNTERS)
OPENED_AT_ONCE = 16


@triton.jit
def _mix(x):
    """The splitmix64 step on uint64, which wraps."""
    x += 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _stream(seeds, positions, row):
    seed = tl.load(seeds + row).to(tl.int64).to(tl.uint64)
    return _mix(_mix(seed) + tl.load(positions + row).to(tl.int64).to(tl.uint64))


@triton.jit
def _exponential(bits):
    return -tl.log(((bits >> 11).to(tl.float64) + 0.5) * 1.1102230246251565e-16)  # 2**-53


@triton.jit
def _first_arrivals(stream, block):
    """When each block's earliest token arrives, and which of its tokens that is."""
    bits = _mix(stream + (block + BLOCK_COUNTERS).to(tl.uint64))
    return _exponential(bits) / BLOCK, (bits & (BLOCK - 1)).to(tl.int32)


@triton.jit
def _bounds_kernel(
    logits,
    temperature,
    seeds,
    positions,
    cut,
    bounds,
    vocab,
    num_blocks,
    stride,
    HAS_CUT: tl.constexpr,
    TILE: tl.constexpr,
):
    """bounds[row, block] of TILE blocks: no score in the block is above it. Greedy: the largest logit itself."""
    start_next()
    wait_for_inputs()
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * TILE + tl.arange(0, TILE)
    token = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(logits + row * stride + token, mask=token < vocab, other=float("-inf"))
    largest = tl.max(x.to(tl.float32), 1)
    bound = largest.to(tl.float64)
    heat = tl.load(temperature + row)
    if heat > 0:
        first, _ = _first_arrivals(_stream(seeds, positions, row), block.to(tl.int64))
        bound = bound / heat.to(tl.float64) - tl.log(first)
    floor = tl.load(cut + row) if HAS_CUT else float("-inf")
    bound = tl.where(largest >= floor, bound, float("-inf"))  # NaN is not drawn
    tl.store(bounds + row * num_blocks + block, bound, mask=block < num_blocks)


@triton.jit
def _draw_kernel(
    logits,
    temperature,
    seeds,
    positions,
    cut,
    bounds,
    out,
    last_drawn,
    rows,
    vocab,
    num_blocks,
    stride,
    HAS_CUT: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    RANKS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """One program a row. Block b belongs to group b % GROUPS; each round opens the best block of every group."""
    start_next()
    wait_for_inputs()
    row = tl.program_id(0).to(tl.int64)
    rank, group, lane = tl.arange(0, RANKS), tl.arange(0, GROUPS), tl.arange(0, BLOCK)
    block = rank[:, None] * GROUPS + group[None, :]
    bound = tl.load(bounds + row * num_blocks + block, mask=block < num_blocks, other=float("-inf"))
    heat = tl.load(temperature + row)
    stream = _stream(seeds, positions, row)
    floor = tl.load(cut + row) if HAS_CUT else float("-inf")
    best = tl.full((), float("-inf"), tl.float64)
    drawn = tl.full((), 0, tl.int64)
    while tl.max(bound) > best:
        top, top_rank = tl.max(bound, 0, return_indices=True)
        opened = (top_rank * GROUPS + group).to(tl.int64)
        token = opened[:, None] * BLOCK + lane[None, :]
        worth = (top > best)[:, None] & (token < vocab)
        x = tl.load(logits + row * stride + token, mask=worth, other=float("-inf")).to(tl.float32)
        score = x.to(tl.float64)
        if heat > 0:
            first, place = _first_arrivals(stream, opened)
            later = _exponential(_mix(stream + token.to(tl.uint64)))
            later = tl.where(lane[None, :] == place[:, None], 0.0, later)
            score = score / heat.to(tl.float64) - tl.log(later + first[:, None])
        score = tl.where(x >= floor, score, float("-inf"))
        found = tl.max(score)
        if found > best:
            best = found
            drawn = tl.min(tl.where(score == found, token, vocab))  # the first where scores tie
        bound = tl.where(rank[:, None] == top_rank[None, :], float("-inf"), bound)
    tl.store(out + row, drawn)
    if HAS_ROWS:
        tl.store(last_drawn + tl.load(rows + row).to(tl.int64), drawn)


def draw(
    logits: Tensor,
    temperature: Tensor,
    seeds: Tensor,
    positions: Tensor,
    cut: Tensor | None,
    out: Tensor,
    last_drawn: Tensor | None = None,
    rows: Tensor | None = None,
) -> None:
    """Draw one token per row into ``out`` [S], and into ``last_drawn[rows]`` where given: padding may share an entry.

    logits: [S, V], rows contiguous, any float type; temperature: [S] fp32 (0: greedy); seeds, positions: [S] integers;
    cut: [S] fp32, no token under it is drawn, or None; out: [S] int64; last_drawn: [R] int64; rows: [S] integers.
    A row without a token above -inf gives token 0.
    """
    num_rows, vocab = logits.shape
    vectors = {"temperature": temperature, "seeds": seeds, "positions": positions, "cut": cut, "out": out, "rows": rows}
    for name, vector in vectors.items():
        if vector is not None and (vector.shape != (num_rows,) or not vector.is_contiguous()):
            raise ValueError(f"{name}: expected [{num_rows}], one entry per row of the logits, got {[*vector.shape]}")
    if logits.stride(1) != 1:
        raise ValueError("logits: the tokens of a row must be contiguous")
    if (rows is None) != (last_drawn is None):
        raise ValueError("last_drawn and rows: expected both or none")
    if not num_rows:
        return
    num_blocks = triton.cdiv(vocab, noise.BLOCK)
    bounds = torch.empty(num_rows, num_blocks, dtype=torch.float64, device=logits.device)
    shared = (temperature, seeds, positions, temperature if cut is None else cut, bounds)
    tile = 64 if num_rows >= 16 else 16  # of few rows, more programs read
    _bounds_kernel[num_rows, triton.cdiv(num_blocks, tile)](
        logits, *shared, vocab, num_blocks, logits.stride(0), HAS_CUT=cut is not None, TILE=tile, num_warps=4, **LAUNCH
    )
    ranks = triton.next_power_of_2(triton.cdiv(num_blocks, OPENED_AT_ONCE))
    _draw_kernel[(num_rows,)](
        logits,
        *shared,
        out,
        out if last_drawn is None else last_drawn,
        out if rows is None else rows,
        vocab,
        num_blocks,
        logits.stride(0),
        HAS_CUT=cut is not None,
        HAS_ROWS=rows is not None,
        RANKS=ranks,
        GROUPS=OPENED_AT_ONCE,
        num_warps=8,
        **LAUNCH,
    )

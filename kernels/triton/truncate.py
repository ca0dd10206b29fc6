"""Top-k, top-p and min-p as one threshold a row, found without a sort: the smallest logit that may still be drawn.

Computes, for each row: the floor that min-p sets; the k-th largest logit; of what those leave, the largest logit v such
that the tokens not under v hold top_p of the mass. Tokens that tie with the threshold are kept. Counts are exact, and
the threshold is one of the logits or the floor; masses are sums of fp32 weights.

Spec: ``cutoffs`` of ``minillm_serve/sample/truncate.py``.
Idea: floats keep their order as integers (flip the lower bits of the negative ones), so a threshold is found by
bisection, and each round snaps to the nearest logit, so that it takes the logarithm of how many distinct logits are
left and not all 32 bits. A round reads the row. To need few, the first reading keeps in registers the largest logit of
each of TILE lanes (token t is in lane t % TILE): what suffices of the lanes suffices of the row, so a bisection over
registers bounds the threshold from below. It nearly always meets it when few tokens are kept: one round more proves it.
Roofline: one program a row, 2 or 4 bytes a token and round, out of L2 from the second round on; nothing is read for a
row without limits.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.triton.overlap import LAUNCH, start_next, wait_for_inputs

TILE = 8192
WARPS = 32


@triton.jit
def _key(value):
    """fp32 -> an integer of the same order, as int64: differences of two keys do not fit in int32."""
    bits = value.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)


@triton.jit
def _value(key):
    """The inverse of :func:`_key`."""
    bits = key.to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _read(row, vocab, start, TILE: tl.constexpr):
    token = start + tl.arange(0, TILE)
    return tl.load(row + token, mask=token < vocab, other=float("-inf")).to(tl.float32)


@triton.jit
def _weight(x, top, scale):
    """Proportional to the probability; 1 for the likeliest token."""
    return tl.exp2((x - top) * scale)


@triton.jit
def _survey(row, vocab, top, scale, pivot, TILE: tl.constexpr):
    """Of the logits not under ``pivot``: how many, their mass, the smallest; and the largest of the others.

    Callers use some of the four; the compiler drops the rest.
    """
    count = tl.zeros([TILE], tl.int32)
    mass = tl.zeros([TILE], tl.float32)
    above = tl.full([TILE], float("inf"), tl.float32)
    below = tl.full([TILE], float("-inf"), tl.float32)
    for start in tl.range(0, vocab, TILE, num_stages=3):
        x = _read(row, vocab, start, TILE)
        inside = x >= pivot
        count += inside.to(tl.int32)
        mass += tl.where(inside, _weight(x, top, scale), 0.0)
        above = tl.where(inside, tl.minimum(above, x), above)
        below = tl.where(inside, below, tl.maximum(below, x))
    return tl.sum(count).to(tl.float64), tl.sum(mass.to(tl.float64)), tl.min(above), tl.max(below)


@triton.jit
def _search(row, lanes, vocab, top, scale, lo, target, WEIGHTED: tl.constexpr, TILE: tl.constexpr):
    """The largest logit, as a key, such that those not under it hold ``target`` (a mass or a count); ``lo`` if only
    keys up to ``lo`` do."""
    hi = _key(top)
    lane_weights = _weight(lanes, top, scale).to(tl.float64) if WEIGHTED else tl.full([TILE], 1.0, tl.float64)
    while lo < hi:
        middle = lo + (hi - lo + 1) // 2
        inside = lanes >= _value(middle)
        if tl.sum(tl.where(inside, lane_weights, 0.0)) >= target:
            lo = _key(tl.min(tl.where(inside, lanes, float("inf"))))
        else:
            hi = tl.maximum(lo, _key(tl.max(tl.where(inside, float("-inf"), lanes))))
    hi = _key(top)
    middle = lo + 1  # most often nothing above the bound suffices
    while lo < hi:
        count, mass, above, below = _survey(row, vocab, top, scale, _value(middle), TILE)
        held = mass if WEIGHTED else count
        if held >= target:
            lo = _key(above)
        else:
            hi = tl.maximum(lo, _key(below))
        middle = lo + (hi - lo + 1) // 2
    return lo


@triton.jit
def _cutoffs_kernel(
    logits,
    temperature,
    min_p,
    top_k,
    top_p,
    cut,
    vocab,
    stride,
    TILE: tl.constexpr,
    LOG2_E: tl.constexpr = 1.4426950408889634,
):
    start_next()
    wait_for_inputs()
    index = tl.program_id(0).to(tl.int64)
    row = logits + index * stride
    heat = tl.load(temperature + index)
    least = tl.load(min_p + index)
    nucleus = tl.load(top_p + index)
    k = tl.load(top_k + index).to(tl.int64)
    limited = (k > 0) & (k < vocab)
    threshold = tl.full((), float("-inf"), tl.float32)
    if (heat > 0) & ((least > 0) | limited | (nucleus < 1)):
        lanes = tl.full([TILE], float("-inf"), tl.float32)
        for start in tl.range(0, vocab, TILE, num_stages=3):
            lanes = tl.maximum(lanes, _read(row, vocab, start, TILE))
        top = tl.max(lanes)
        scale = LOG2_E / heat
        if least > 0:  # p >= min_p * p_max, without a softmax
            floor = top.to(tl.float64) + heat.to(tl.float64) * tl.log(least.to(tl.float64))
            threshold = tl.minimum(floor.to(tl.float32), top)
        lo = _key(threshold)
        if limited:
            lo = _search(row, lanes, vocab, top, scale, lo, k.to(tl.float64), False, TILE)
        if nucleus < 1:
            last = _value(lo)
            count, mass, _, _ = _survey(row, vocab, top, scale, last, TILE)
            if limited:  # of those that tie for the k-th place, only as many as fit count in the mass
                mass -= tl.maximum(count - k.to(tl.float64), 0.0) * _weight(last, top, scale).to(tl.float64)
            # Deeper, vocab tokens together hold less than 1 - top_p of the likeliest one's weight.
            depth = heat * (tl.log(vocab / (1 - nucleus)) + 0.01)
            lo = tl.maximum(lo, _key(top - depth))
            lo = _search(row, lanes, vocab, top, scale, lo, nucleus.to(tl.float64) * mass, True, TILE)
        threshold = _value(lo)
    tl.store(cut + index, threshold)


def cutoffs(logits: Tensor, temperature: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The threshold of each row: [S] fp32, -inf where every token may be drawn, and for a greedy row.

    logits: [S, V], rows contiguous, any float type; temperature (0: greedy), min_p (0: off), top_p (1: off): [S] fp32;
    top_k: [S] integers (<= 0: off).
    """
    num_rows, vocab = logits.shape
    for name, vector in {"temperature": temperature, "min_p": min_p, "top_k": top_k, "top_p": top_p}.items():
        if vector.shape != (num_rows,) or not vector.is_contiguous():
            raise ValueError(f"{name}: expected [{num_rows}], one entry per row of the logits, got {[*vector.shape]}")
    if logits.stride(1) != 1:
        raise ValueError("logits: the tokens of a row must be contiguous")
    cut = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows:
        tile = min(TILE, triton.next_power_of_2(vocab))
        _cutoffs_kernel[(num_rows,)](
            logits, temperature, min_p, top_k, top_p, cut, vocab, logits.stride(0), TILE=tile, num_warps=WARPS, **LAUNCH
        )
    return cut

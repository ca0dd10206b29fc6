"""Puzzle 9, split-K: one query's keys shared out among several programs, a second kernel that puts the parts together.

Spec: out[h] = sum over s of softmax over s of (scale * q[h] . keys[h, s]) * values[h, s]

As puzzle 8, but one program for each head would leave a GPU idle. Write two kernels, ``check(split, merge)``:
``split(q_ptr, key_ptr, value_ptr, partial_ptr, lse_ptr, S, scale, DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK:
tl.constexpr)``, started for (head, part): attention over the part's ceil(S / SPLITS) keys. It writes its output to
partial [H, SPLITS, DIM] and log(sum of exp(scores)) to lse [H, SPLITS]. A part may have no keys: 0 and -inf.
``merge(partial_ptr, lse_ptr, out_ptr, DIM: tl.constexpr, SPLITS: tl.constexpr)``, started for each head: the parts'
weights are the softmax of lse. SPLITS is a power of two. (Flash-Decoding, Dao et al. 2023.)

New: a reduction over programs, made exact by the log-sum-exp; empty work.
Prepares for: triton/decode.py, triton/tiles.py, triton/skinny.py
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from minillm_kernels.puzzles import p08_one_query
from minillm_kernels.puzzles.judge import Puzzle

BLOCK = 16
SPLITS = 4
spec = p08_one_query.spec


@triton.jit
def split(
    q_ptr, key_ptr, value_ptr, partial_ptr, lse_ptr, S, scale,
    DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head, part = tl.program_id(0), tl.program_id(1)
    chunk = tl.cdiv(S, SPLITS)
    start = part * chunk
    end = tl.minimum(start + chunk, S)
    lane = tl.arange(0, DIM)
    q = tl.load(q_ptr + head * DIM + lane)
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    acc = tl.zeros((DIM,), tl.float32)
    for first in range(start, end, BLOCK):
        token = first + tl.arange(0, BLOCK)
        at = (head * S + token)[:, None] * DIM + lane[None, :]
        alive = token < end
        keys = tl.load(key_ptr + at, mask=alive[:, None], other=0.0)
        scores = tl.where(alive, tl.sum(keys * q[None, :], 1) * scale, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 0))
        weights = tl.exp(scores - new_largest)
        shrink = tl.exp(largest - new_largest)
        total = total * shrink + tl.sum(weights, 0)
        values = tl.load(value_ptr + at, mask=alive[:, None], other=0.0)
        acc = acc * shrink + tl.sum(weights[:, None] * values, 0)
        largest = new_largest
    total = tl.maximum(total, 1.0)  # the largest score's share is 1: less means that there was no key
    tl.store(partial_ptr + (head * SPLITS + part) * DIM + lane, acc / total)
    tl.store(lse_ptr + head * SPLITS + part, largest + tl.log(total))


@triton.jit
def merge(partial_ptr, lse_ptr, out_ptr, DIM: tl.constexpr, SPLITS: tl.constexpr):
    head = tl.program_id(0)
    lane, part = tl.arange(0, DIM), tl.arange(0, SPLITS)
    lse = tl.load(lse_ptr + head * SPLITS + part)
    weights = tl.exp(lse - tl.max(lse, 0))
    partial = tl.load(partial_ptr + (head * SPLITS + part)[:, None] * DIM + lane[None, :])
    tl.store(out_ptr + head * DIM + lane, tl.sum(partial * weights[:, None], 0) / tl.sum(weights, 0))


def launch(
    split, merge, q: Tensor, keys: Tensor, values: Tensor, scale: float, partial: Tensor, lse: Tensor, out: Tensor
) -> None:
    heads, length, dim = keys.shape
    split[(heads, SPLITS)](q, keys, values, partial, lse, length, scale, DIM=dim, SPLITS=SPLITS, BLOCK=BLOCK)
    merge[(heads,)](partial, lse, out, DIM=dim, SPLITS=SPLITS)


def scratch(q: Tensor, **_) -> dict[str, tuple[int, ...]]:
    heads, dim = q.shape
    return {"partial": (heads, SPLITS, dim), "lse": (heads, SPLITS)}


def cases(rand):
    for heads, length, dim in (
        (2, SPLITS * BLOCK, 16),
        (2, 3 * SPLITS * BLOCK, 16),
        (3, 90, 32),
        (2, 5, 16),
        (1, 1, 16),
    ):
        yield {
            "q": 2 * rand(heads, dim),
            "keys": rand(heads, length, dim),
            "values": rand(heads, length, dim),
            "scale": 0.25,
        }


def _plain_mean(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    parts = zip(keys.chunk(SPLITS, 1), values.chunk(SPLITS, 1), strict=True)
    return sum(spec(q, k, v, scale) for k, v in parts) / SPLITS


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (split, merge),
    scratch,
    mistakes={
        "the scale is left out": lambda q, keys, values, scale: spec(q, keys, values, 1.0),
        "all parts weigh the same": _plain_mean,
        "only the first part is used": lambda q, keys, values, scale: spec(
            q, keys.chunk(SPLITS, 1)[0], values.chunk(SPLITS, 1)[0], scale
        ),
    },
)
check = puzzle.check

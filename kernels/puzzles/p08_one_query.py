"""Puzzle 8, attention of one query: online softmax, and the weighted values summed on the way.

Spec: out[h] = sum over s of softmax over s of (scale * q[h] . keys[h, s]) * values[h, s]

Write ``kernel(q_ptr, key_ptr, value_ptr, out_ptr, S, scale, DIM: tl.constexpr, BLOCK: tl.constexpr)``: one program for
each head h, which walks along the S keys in tiles of BLOCK. q is [H, DIM], keys and values [H, S, DIM], all dense, DIM
a power of two. No weight is written to memory: beside the maximum and the sum, carry the output so far, [DIM], and
shrink it with the sum.

New: an accumulator that is a vector; a product with one query is a sum, no tl.dot.
Prepares for: triton/decode.py
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from minillm_kernels.puzzles.judge import Puzzle

BLOCK = 16


def spec(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    weights = (scale * keys @ q.unsqueeze(-1)).softmax(1)  # [H, S, 1]
    return (weights * values).sum(1)


@triton.jit
def one_query(q_ptr, key_ptr, value_ptr, out_ptr, S, scale, DIM: tl.constexpr, BLOCK: tl.constexpr):
    head = tl.program_id(0)
    lane = tl.arange(0, DIM)
    q = tl.load(q_ptr + head * DIM + lane)
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    acc = tl.zeros((DIM,), tl.float32)
    for first in range(0, S, BLOCK):
        token = first + tl.arange(0, BLOCK)
        at = (head * S + token)[:, None] * DIM + lane[None, :]
        alive = token < S
        keys = tl.load(key_ptr + at, mask=alive[:, None], other=0.0)
        scores = tl.where(alive, tl.sum(keys * q[None, :], 1) * scale, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 0))
        weights = tl.exp(scores - new_largest)
        shrink = tl.exp(largest - new_largest)
        total = total * shrink + tl.sum(weights, 0)
        values = tl.load(value_ptr + at, mask=alive[:, None], other=0.0)  # 0 * NaN would be NaN
        acc = acc * shrink + tl.sum(weights[:, None] * values, 0)
        largest = new_largest
    tl.store(out_ptr + head * DIM + lane, acc / total)


def launch(kernel, q: Tensor, keys: Tensor, values: Tensor, scale: float, out: Tensor) -> None:
    heads, length, dim = keys.shape
    kernel[(heads,)](q, keys, values, out, length, scale, DIM=dim, BLOCK=BLOCK)


def cases(rand):
    for heads, length, dim in ((2, BLOCK, 16), (2, 3 * BLOCK, 16), (3, 1, 32), (2, 37, 64)):
        yield {
            "q": 2 * rand(heads, dim),
            "keys": rand(heads, length, dim),
            "values": rand(heads, length, dim),
            "scale": 0.25,
        }


def _whole_tiles(x: Tensor) -> Tensor:
    """Zeros after the last token, up to a multiple of BLOCK."""
    return functional.pad(x, (0, 0, 0, -x.shape[1] % BLOCK))


puzzle = Puzzle(
    __doc__,
    spec,
    cases,
    launch,
    (one_query,),
    mistakes={
        "the scale is left out": lambda q, keys, values, scale: spec(q, keys, values, 1.0),
        "only the first tile of keys is read": lambda q, keys, values, scale: spec(
            q, keys[:, :BLOCK], values[:, :BLOCK], scale
        ),
        "the last key is left out": lambda q, keys, values, scale: spec(q, keys[:, :-1], values[:, :-1], scale),
        "keys beyond the end count, with a score of 0": lambda q, keys, values, scale: spec(
            q, _whole_tiles(keys), _whole_tiles(values), scale
        ),
    },
)
check = puzzle.check

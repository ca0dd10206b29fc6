"""Attention and a small decoder in plain Python lists: the oracle of lab 1's checks. Slow, short, and without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from random import Random
from typing import Any

Vector = list[float]


def attend(query: list[Vector], keys: list[list[Vector]], values: list[list[Vector]]) -> list[Vector]:
    """One query [H, D] over keys and values [S, G, D] -> [H, D]; head h reads the keys of group h // (H / G)."""
    heads, dim, groups = len(query), len(query[0]), len(keys[0])
    out = []
    for head, q in enumerate(query):
        group = head * groups // heads
        scores = [sum(a * b for a, b in zip(q, k[group], strict=True)) / math.sqrt(dim) for k in keys]
        top = max(scores)
        weights = [math.exp(s - top) for s in scores]
        total = sum(weights)
        out.append([sum(w * v[group][d] for w, v in zip(weights, values, strict=True)) / total for d in range(dim)])
    return out


def attend_causal(
    queries: list[list[Vector]], keys: list[list[Vector]], values: list[list[Vector]]
) -> list[list[Vector]]:
    """The last len(queries) of len(keys) tokens ask; each sees itself and all before it."""
    before = len(keys) - len(queries)
    return [attend(q, keys[: before + i + 1], values[: before + i + 1]) for i, q in enumerate(queries)]


def numbers(rng: Random, *shape: int, deviation: float = 1.0) -> Any:
    """Nested lists of that shape with normal numbers, rounded so that a report of them can be read."""
    if not shape:
        return round(rng.gauss(0, deviation), 3)
    return [numbers(rng, *shape[1:], deviation=deviation) for _ in range(shape[0])]


class SmallNet:
    """Two matrices of embeddings (token, position), ``layers`` of attention on a residual, and an output matrix.

    weights: name -> nested lists, to be sent to a student's worker as they are. Activations stay about 1 in every
    layer, as in a trained model: were they to grow, attention would hang on one key, and which one on the last digits.
    """

    def __init__(self, rng: Random, layers: int, heads: int, kv_heads: int, dim: int, vocab: int, positions: int):
        self.layers, self.heads, self.kv_heads, self.dim = layers, heads, kv_heads, dim
        width = heads * dim
        shapes: dict[str, tuple[int, int]] = {
            "token": (vocab, width),
            "posicion": (positions, width),
            "salida": (width, vocab),
        }
        for layer in range(layers):
            shapes[f"q{layer}"] = (width, width)
            shapes[f"k{layer}"] = shapes[f"v{layer}"] = (width, kv_heads * dim)
            shapes[f"o{layer}"] = (width, width)
        self.weights = {
            name: numbers(rng, *shape, deviation=1.0 if name in ("token", "posicion") else width**-0.5)
            for name, shape in shapes.items()
        }

    def logits(self, ids: Sequence[int]) -> Vector:
        """Of the last token, with nothing kept from any earlier call."""
        w = self.weights
        rows = [[a + b for a, b in zip(w["token"][t], w["posicion"][i], strict=True)] for i, t in enumerate(ids)]
        for layer in range(self.layers):
            queries, keys, values = (
                [self._heads(_times(row, w[f"{name}{layer}"]), count) for row in rows]
                for name, count in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads))
            )
            mixed = [_times(list(chain(*heads)), w[f"o{layer}"]) for heads in attend_causal(queries, keys, values)]
            rows = [[a + b for a, b in zip(row, m, strict=True)] for row, m in zip(rows, mixed, strict=True)]
        return _times(rows[-1], w["salida"])

    def greedy(self, prompt: Sequence[int], new: int) -> tuple[list[int], float]:
        """The most probable token, ``new`` times, and the least distance between a best logit and the second best."""
        ids, lead = list(prompt), math.inf
        for _ in range(new):
            row = self.logits(ids)
            best, second = sorted(row, reverse=True)[:2]
            ids.append(row.index(best))
            lead = min(lead, best - second)
        return ids[len(prompt) :], lead

    def _heads(self, row: Vector, count: int) -> list[Vector]:
        return [row[h * self.dim : (h + 1) * self.dim] for h in range(count)]


def _times(row: Vector, matrix: list[Vector]) -> Vector:
    return [sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*matrix, strict=True)]

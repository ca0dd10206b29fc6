"""Another paged attention in the place of ours: one function over plain tensors and lists of ints, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from minillm_kernels import Ops, resolve
from minillm_kernels.kv_cache import PagedLayer

PagedAttentionFunction = Callable[[Tensor, Tensor, Tensor, list[list[int]], list[int], list[int], float], Tensor]
"""f(queries [T, H, D], keys [blocks, block_size, G, D], values (the same), tables, seq_lens, query_lens, scale).

tables: for each sequence the physical blocks of its tokens. The last ``query_lens[b]`` of the ``seq_lens[b]`` tokens
of sequence ``b`` are its queries; sequences lie end to end. Each query sees its own token and all before it. H is a
multiple of G: queries share keys in groups. Returns [T, H, D].
"""


@dataclass(frozen=True)
class _Plan:
    tables: list[list[int]]
    seq_lens: list[int]
    query_lens: list[int]


def plugged(attention: PagedAttentionFunction) -> Ops:
    """The CPU's plain torch operations with ``attention`` in them; keys and values are float, in whole pages.

    The step raises ValueError where it returns anything but one row for each query and head, or where the model has a
    sliding window, which the function is not told of.
    """

    def attend(
        q: Tensor, k: Tensor, v: Tensor, cache: PagedLayer, slots: Tensor, plan: _Plan, scale: float, window: int
    ) -> Tensor:
        if window:
            raise ValueError("attention.paged sees all tokens: it cannot serve a model with a sliding window")
        ops.write_kv(k, v, cache, slots)
        out = attention(q, cache.keys, cache.values, plan.tables, plan.seq_lens, plan.query_lens, scale)
        if not isinstance(out, Tensor) or out.shape != q.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"attention.paged must return a tensor of shape {tuple(q.shape)}, got {got}")
        return out

    ops = replace(resolve("torch"), plan_attention=_plan, attend=attend)
    return ops


def _plan(tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int], block_size: int) -> _Plan:
    """Once per step; the tables without the columns that only longer sequences use."""
    lengths = [int(n) for n in seq_lens]
    rows = [row[: -(-n // block_size)] for row, n in zip(tables.tolist(), lengths, strict=True)]
    return _Plan(rows, lengths, [int(n) for n in query_lens])

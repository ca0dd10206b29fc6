"""Paged attention on a CPU in two batched forms: all decodes in one call, each prompt chunk in one call.

The blocks a sequence uses are gathered into contiguous rows first; what is saved over the reference is one call per
layer instead of one per sequence, and no copy of keys per query head: the heads that share a KV head are laid along
the query axis, where they meet the same keys. Masks and indices are made once per step, not once per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa


@dataclass(frozen=True)
class Decodes:
    """All one-token queries of a step. rows: [B], places in q; blocks: [B * n]; mask: [B, 1, 1, n * block_size]."""

    rows: Tensor
    blocks: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Chunk:
    """One prompt chunk. rows: its slice of q; blocks: [n]; length: tokens in cache; mask: [queries, length]."""

    rows: slice
    blocks: Tensor
    length: int
    mask: Tensor


def plan_attention(
    tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int], block_size: int
) -> tuple[Decodes | None, list[Chunk]]:
    """Same contract as :func:`minillm_kernels.ref.plan_attention`."""
    starts = [0, *accumulate(query_lens)]
    chunks = []
    for b, queries in enumerate(query_lens):
        if queries > 1:
            length = seq_lens[b]
            mask = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
            chunks.append(Chunk(slice(starts[b], starts[b + 1]), tables[b, : -(-length // block_size)], length, mask))
    single = [b for b, queries in enumerate(query_lens) if queries == 1]
    if not single:
        return None, chunks
    lens = torch.tensor([seq_lens[b] for b in single])
    used = -(-int(lens.max()) // block_size)
    mask = (torch.arange(used * block_size) < lens.unsqueeze(1)).view(len(single), 1, 1, -1)
    rows = torch.tensor([starts[b] for b in single])
    return Decodes(rows, tables[single, :used].reshape(-1), mask), chunks


def attention(q: Tensor, kv_cache: Tensor, plan: tuple[Decodes | None, list[Chunk]]) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attention`."""
    decodes, chunks = plan
    if decodes is not None and not chunks:
        return _decode(q, kv_cache, decodes)
    out = torch.empty_like(q)
    if decodes is not None:
        out[decodes.rows] = _decode(q[decodes.rows], kv_cache, decodes)
    for chunk in chunks:
        out[chunk.rows] = _chunk(q[chunk.rows], kv_cache, chunk)
    return out


def _decode(q: Tensor, kv_cache: Tensor, plan: Decodes) -> Tensor:
    """One query token per sequence. q: [B, H, D] -> [B, H, D]."""
    batch, heads, dim = q.shape
    groups, length = kv_cache.shape[3], plan.mask.shape[-1]
    gathered = kv_cache.index_select(0, plan.blocks).view(batch, length, 2, groups, dim)
    keys, values = gathered.permute(2, 0, 3, 1, 4).unbind(0)
    out = sdpa(q.reshape(batch, groups, heads // groups, dim), keys, values, attn_mask=plan.mask)
    return out.reshape(batch, heads, dim)


def _chunk(q: Tensor, kv_cache: Tensor, plan: Chunk) -> Tensor:
    """A prompt chunk of one sequence. q: [queries, H, D] -> the same."""
    queries, heads, dim = q.shape
    groups = kv_cache.shape[3]
    gathered = kv_cache.index_select(0, plan.blocks).flatten(0, 1)[: plan.length]
    keys, values = gathered.permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
    per_group = q.reshape(queries, groups, heads // groups, dim).permute(1, 2, 0, 3).reshape(1, groups, -1, dim)
    out = sdpa(per_group, keys, values, attn_mask=plan.mask.repeat(heads // groups, 1))
    return out.view(groups, heads // groups, queries, dim).permute(2, 0, 1, 3).reshape(queries, heads, dim)

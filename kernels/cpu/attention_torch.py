"""Paged attention with nothing to compile, in two batched forms: all decodes in one call, each prompt chunk in one.

The blocks a sequence uses are gathered into contiguous rows first; what is saved over the reference is one call per
layer instead of one per sequence, and no copy of keys per query head: the heads that share a KV head are laid along
the query axis, where they meet the same keys. Masks and indices are made once per step, not once per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from minillm_kernels.kv_cache import PagedLayer
from minillm_kernels.ref import read_kv, visible, write_kv


@dataclass(frozen=True)
class Decodes:
    """All one-token queries of a step. rows: [B], places in q; blocks: [B * n]; lens: [B] tokens in cache."""

    rows: Tensor
    blocks: Tensor
    lens: Tensor
    masks: dict[int, Tensor] = field(default_factory=dict)

    def mask(self, length: int, window: int) -> Tensor:
        """[B, 1, 1, length]: the same for every layer with the same window."""
        if window not in self.masks:
            place, lens = torch.arange(length), self.lens.unsqueeze(1)
            seen = (place < lens) & (place >= lens - window) if window else place < lens
            self.masks[window] = seen.view(len(lens), 1, 1, length)
        return self.masks[window]


@dataclass(frozen=True)
class Chunk:
    """One prompt chunk. rows: its slice of q; blocks: [n]; length: tokens in cache."""

    rows: slice
    blocks: Tensor
    length: int
    masks: dict[int, Tensor] = field(default_factory=dict)

    def mask(self, window: int) -> Tensor:
        """[queries, length]."""
        if window not in self.masks:
            self.masks[window] = visible(self.rows.stop - self.rows.start, self.length, window)
        return self.masks[window]


@dataclass(frozen=True)
class TorchPlan:
    decodes: Decodes | None
    chunks: list[Chunk]


def plan_attention(tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int], block_size: int) -> TorchPlan:
    """Same contract as :func:`minillm_kernels.ref.plan_attention`."""
    starts = [0, *accumulate(query_lens)]
    chunks = [
        Chunk(slice(starts[b], starts[b + 1]), tables[b, : -(-seq_lens[b] // block_size)], seq_lens[b])
        for b, queries in enumerate(query_lens)
        if queries > 1
    ]
    single = [b for b, queries in enumerate(query_lens) if queries == 1]
    if not single:
        return TorchPlan(None, chunks)
    lens = torch.tensor([seq_lens[b] for b in single])
    blocks = tables[single, : -(-int(lens.max()) // block_size)].reshape(-1)
    return TorchPlan(Decodes(torch.tensor([starts[b] for b in single]), blocks, lens), chunks)


def attention(q: Tensor, cache: PagedLayer, plan: TorchPlan, scale: float, window: int = 0) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attention`."""
    if plan.decodes is not None and not plan.chunks:
        return _decode(q, cache, plan.decodes, scale, window)
    out = torch.empty_like(q)
    if plan.decodes is not None:
        out[plan.decodes.rows] = _decode(q[plan.decodes.rows], cache, plan.decodes, scale, window)
    for chunk in plan.chunks:
        out[chunk.rows] = _chunk(q[chunk.rows], cache, chunk, scale, window)
    return out


def attend(
    q: Tensor, k: Tensor, v: Tensor, cache: PagedLayer, slots: Tensor, plan: TorchPlan, scale: float, window: int
) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attend`."""
    write_kv(k, v, cache, slots)
    return attention(q, cache, plan, scale, window)


def _decode(q: Tensor, cache: PagedLayer, plan: Decodes, scale: float, window: int) -> Tensor:
    """One query token per sequence. q: [B, H, D] -> [B, H, D]."""
    batch, heads, dim = q.shape
    keys, values = (x.to(q.dtype).unflatten(0, (batch, -1)).transpose(1, 2) for x in read_kv(cache, plan.blocks))
    groups, length = keys.shape[1:3]
    per_group = q.reshape(batch, groups, heads // groups, dim)
    return sdpa(per_group, keys, values, attn_mask=plan.mask(length, window), scale=scale).reshape(q.shape)


def _chunk(q: Tensor, cache: PagedLayer, plan: Chunk, scale: float, window: int) -> Tensor:
    """A prompt chunk of one sequence. q: [queries, H, D] -> the same."""
    queries, heads, dim = q.shape
    keys, values = (x[: plan.length].to(q.dtype).transpose(0, 1).unsqueeze(0) for x in read_kv(cache, plan.blocks))
    groups = keys.shape[1]
    per_group = q.reshape(queries, groups, heads // groups, dim).permute(1, 2, 0, 3).reshape(1, groups, -1, dim)
    out = sdpa(per_group, keys, values, attn_mask=plan.mask(window).repeat(heads // groups, 1), scale=scale)
    return out.view(groups, heads // groups, queries, dim).permute(2, 0, 1, 3).reshape(queries, heads, dim)

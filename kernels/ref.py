"""The specification: each op in a few lines of torch, written to be read. Every faster version is tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: [T, N] -> x / rms(x) * weight, the mean square taken in fp32 (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x32 = x.float()
    return weight * (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual stream and the norm that reads it: returns (rms_norm(x + residual), x + residual), both [T, N]."""
    total = x + residual
    return rms_norm(total, weight, eps), total


def rope(qk: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864), halves layout as in Llama checkpoints.

    qk: [T, heads, D]; cos, sin: [T, D/2], the angles of each token's position. Pairs (x[i], x[i + D/2]) rotate.
    """
    first, second = qk.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def silu_mul(gate_up: Tensor) -> Tensor:
    """SwiGLU's product (Shazeer 2020, arXiv:2002.05202). gate_up: [T, 2*N], gate first -> silu(gate) * up, [T, N]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def pack_linear(weight: Tensor) -> Tensor:
    """Prepare a [out, in] weight for :func:`linear` once, at load time. Here: as it is."""
    return weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x: [T, in], weight: [out, in] -> x @ weight.T (+ bias), [T, out]."""
    return functional.linear(x, weight, bias)


def write_kv(k: Tensor, v: Tensor, kv_cache: Tensor, slots: Tensor) -> None:
    """Store each token's key and value at its slot (= physical block * block_size + offset).

    k, v: [T, G, D]; kv_cache: [blocks, block_size, 2, G, D] (keys at 0, values at 1), changed in place;
    slots: [T] int64, all different.
    """
    kv_cache.flatten(0, 1).index_copy_(0, slots, torch.stack((k, v), dim=1))


@dataclass(frozen=True)
class AttentionPlan:
    """Who attends to what in this step; the same for every layer.

    tables: [B, max_blocks] int64, the physical block of each logical block. The last ``query_lens[b]`` of sequence
    b's ``seq_lens[b]`` tokens are its queries.
    """

    tables: Tensor
    seq_lens: Sequence[int]
    query_lens: Sequence[int]


def plan_attention(
    tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int], block_size: int
) -> AttentionPlan:
    """What :func:`attention` needs and does not depend on the layer, made once per step."""
    return AttentionPlan(tables, seq_lens, query_lens)


def attention(q: Tensor, kv_cache: Tensor, plan: AttentionPlan) -> Tensor:
    """Causal attention of ragged queries over paged keys and values (Kwon et al. 2023, arXiv:2309.06180).

    q: [T, H, D], sequence after sequence; kv_cache: [blocks, block_size, 2, G, D], H a multiple of G (grouped
    queries, Ainslie et al. 2023, arXiv:2305.13245). Returns [T, H, D].
    """
    out, start = torch.empty_like(q), 0
    group, block_size = q.shape[1] // kv_cache.shape[3], kv_cache.shape[1]
    for table, length, queries in zip(plan.tables, plan.seq_lens, plan.query_lens, strict=True):
        blocks = table[: -(-length // block_size)]
        keys, values = kv_cache[blocks].flatten(0, 1)[:length].repeat_interleave(group, dim=2).unbind(1)
        scores = torch.einsum("qhd,khd->hqk", q[start : start + queries], keys) * q.shape[-1] ** -0.5
        future = torch.ones(queries, length, dtype=torch.bool, device=q.device).triu(length - queries + 1)
        weights = scores.masked_fill(future, float("-inf")).float().softmax(-1).to(q.dtype)
        out[start : start + queries] = torch.einsum("hqk,khd->qhd", weights, values)
        start += queries
    return out

"""The specification: each op in a few lines of torch, written to be read. Every faster version is tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from minillm_kernels.kv_cache import PagedLayer, quantize_kv


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: [T, N] -> x / rms(x) * weight, the mean square taken in fp32 (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x32 = x.float()
    return weight * (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual stream and the norm that reads it: returns (rms_norm(x + residual), x + residual), both [T, N]."""
    total = x + residual
    return rms_norm(total, weight, eps), total


def angles(tables: tuple[Tensor, Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of each token's position: tables, two [positions, D/2], and positions [T] int64 -> two [T, D/2]."""
    cos, sin = tables
    return torch.embedding(cos, positions), torch.embedding(sin, positions)


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


def gelu_tanh_mul(gate_up: Tensor) -> Tensor:
    """GeGLU with the tanh form of GELU, as Gemma has it. gate_up: [T, 2*N], gate first -> gelu(gate) * up, [T, N]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.gelu(gate, approximate="tanh") * up


def pack_linear(weight: Tensor) -> Tensor:
    """Prepare a [out, in] weight for :func:`linear` once, at load time. Here: as it is."""
    return weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x: [T, in], weight: [out, in] -> x @ weight.T (+ bias), [T, out]."""
    return functional.linear(x, weight, bias)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8, one scale per row. x: [rows, in] -> codes [rows, in] int8, scales [rows]; x = codes * scale."""
    largest = x.float().abs().amax(-1).clamp_min(1e-30)
    return (x.float() * (127 / largest).unsqueeze(-1)).round().to(torch.int8), largest / 127


@dataclass(frozen=True)
class Int8Weight:
    """codes: [out, in] int8; scales: [out] fp32, one per output."""

    codes: Tensor
    scales: Tensor


INT8_GROUP = 96  # inputs that share one activation scale: outliers of some channels then spoil only their group


def pack_linear_int8(weight: Tensor) -> Int8Weight:
    """Round a [out, in] weight to 8 bits, one scale per output, for :func:`linear_int8`."""
    return Int8Weight(*quantize_rows(weight))


def linear_int8(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """W8A8: x [T, in] is rounded to 8 bits too, one scale per token and group of inputs -> [T, out] in x's dtype.

    The integers of a group are summed exactly (float32 holds them), the groups in fp32, one after the other. Scales by
    token and output as in LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339), by group as in ZeroQuant-V2
    (Yao et al. 2023, arXiv:2303.08302).
    """
    out = torch.zeros(x.shape[0], weight.codes.shape[0], device=x.device)
    for group, codes in zip(x.split(INT8_GROUP, 1), weight.codes.split(INT8_GROUP, 1), strict=True):
        rounded, scales = quantize_rows(group)
        out += rounded.float() @ codes.float().T * scales.unsqueeze(-1)
    out *= weight.scales
    return (out if bias is None else out + bias.float()).to(x.dtype)


def argmax(x: Tensor) -> Tensor:
    """The first of the largest elements of each row (no NaN among them): [S, N] -> [S] int64. Greedy sampling."""
    return x.argmax(-1)


def write_kv(k: Tensor, v: Tensor, cache: PagedLayer, slots: Tensor) -> None:
    """Store each token's key and value at its slot (= physical block * block_size + offset), in place.

    k, v: [T, G, D]; slots: [T] int64, all different.
    """
    for x, data, scales in ((k, cache.keys, cache.key_scales), (v, cache.values, cache.value_scales)):
        if scales is not None:
            x, scale = quantize_kv(x)
            scales.flatten(0, 1).index_copy_(0, slots, scale)
        data.flatten(0, 1).index_copy_(0, slots, x.to(data.dtype))


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


def attention(q: Tensor, cache: PagedLayer, plan: AttentionPlan, scale: float, window: int = 0) -> Tensor:
    """Causal attention of ragged queries over paged keys and values (Kwon et al. 2023, arXiv:2309.06180).

    q: [T, H, D], sequence after sequence, H a multiple of the cache's G (grouped queries, Ainslie et al. 2023,
    arXiv:2305.13245). scale: factor on q·k. window: how many tokens a token sees, itself the last of them
    (Mistral's sliding window, arXiv:2310.06825); 0: all. Returns [T, H, D].
    """
    out, start = torch.empty_like(q), 0
    for table, length, queries in zip(plan.tables, plan.seq_lens, plan.query_lens, strict=True):
        blocks = table[: -(-length // cache.block_size)]
        keys, values = (x[:length].repeat_interleave(q.shape[1] // x.shape[1], 1) for x in read_kv(cache, blocks))
        scores = torch.einsum("qhd,khd->hqk", q[start : start + queries], keys.to(q.dtype)) * scale
        hidden = ~visible(queries, length, window).to(q.device)
        weights = scores.masked_fill(hidden, float("-inf")).float().softmax(-1).to(q.dtype)
        out[start : start + queries] = torch.einsum("hqk,khd->qhd", weights, values.to(q.dtype))
        start += queries
    return out


def read_kv(cache: PagedLayer, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of some blocks laid end to end, as real numbers: each [len(blocks) * block_size, G, D]."""
    keys, values = (x.index_select(0, blocks).flatten(0, 1) for x in (cache.keys, cache.values))
    if cache.key_scales is None or cache.value_scales is None:
        return keys, values
    scales = (x.index_select(0, blocks).flatten(0, 1).unsqueeze(-1) for x in (cache.key_scales, cache.value_scales))
    return tuple(x.float() * scale for x, scale in zip((keys, values), scales, strict=True))


def visible(queries: int, length: int, window: int) -> Tensor:
    """Which of ``length`` tokens each of the last ``queries`` ones may see: [queries, length] bool."""
    seen = torch.ones(queries, length, dtype=torch.bool).tril(length - queries)
    return seen.triu(length - queries - window + 1) if window else seen


def attend(
    q: Tensor, k: Tensor, v: Tensor, cache: PagedLayer, slots: Tensor, plan: AttentionPlan, scale: float, window: int
) -> Tensor:
    """:func:`write_kv`, then :func:`attention`: what a layer does. All tokens are written before any is read."""
    write_kv(k, v, cache, slots)
    return attention(q, cache, plan, scale, window)

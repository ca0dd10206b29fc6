"""Attention as it is measured: decode over the paged cache, prompts, and what comes between projection and cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from minillm_serve.bench.gpu.op_case import Call, Model, OpCase

BLOCK_SIZE = 16
EPS = 1e-5
POSITIONS = 4096


def decodes(model: Model) -> Iterator[OpCase]:
    """Over bf16, for the largest batch over int8 and fp8 keys and values too; the cache's blocks in random order."""
    for batch, length in model.sizes.decodes:
        yield _decode(model, batch, length, "")
    batch, length = max(model.sizes.decodes, key=lambda pair: pair[0] * pair[1])
    for kind in ("int8", "fp8") if model.device.type == "cuda" else ("int8",):
        yield _decode(model, batch, length, kind)


def _decode(model: Model, batch: int, length: int, kind: str) -> OpCase:
    heads, kv_heads, dim = model.heads, model.kv_heads, model.dim
    vectors = 2 * batch * length * kv_heads  # keys and values, one of each head
    cold = vectors * {"": 2 * dim, "int8": dim + 4, "fp8": dim}[kind]
    copies = model.copies(cold)

    def ours() -> Call:
        from minillm_kernels.triton.decode import DecodeWork, decode_attention
        from minillm_kernels.triton.tiles import capacity, plan_tiles

        tables = block_tables([length] * batch)
        caches = [random_cache(model, tables.size, kind) for _ in range(copies)]
        cap, tiles = capacity(batch), plan_tiles(np.full(batch, length), capacity(batch))

        def on_device(values: Any, size: int | None = None) -> Tensor:
            values = np.asarray(values, np.int32)
            return torch.from_numpy(np.resize(values, size or values.shape)).to(model.device)

        work = DecodeWork(
            on_device(tables),
            on_device(np.arange(batch)),
            on_device(np.full(batch, length)),
            on_device(tiles.tile_seq, cap),
            on_device(tiles.tile_start, cap),
            on_device(tiles.tile_first),
            on_device([len(tiles.tile_seq)]),
            on_device([tiles.chunk]),
            torch.empty(cap, heads, dim, device=model.device),
            torch.empty(cap, heads, device=model.device),
        )
        q = model.random(batch, heads, dim)
        out = torch.empty_like(q)
        return lambda copy: decode_attention(q, caches[copy], work, dim**-0.5, 0, out)

    def dense() -> Call:
        q = model.random(batch, heads, 1, dim)
        kv = [model.random(2, batch, kv_heads, length, dim) for _ in range(copies)]
        return lambda copy: functional.scaled_dot_product_attention(q, *kv[copy], enable_gqa=True)

    op, shape = f"decode, {kind} KV" if kind else "decode attention", f"{model.name} {batch} x {length}"
    moved = cold + 2 * model.nbytes(batch, heads, dim)
    flops = 4 * batch * length * heads * dim
    return OpCase(op, shape, moved, flops, ours, dense, "SDPA, bf16, not paged", copies)


def block_tables(lengths: Sequence[int]) -> np.ndarray:
    """[B, blocks of the longest]: every entry a block of its own, in random order."""
    width = -(-max(lengths) // BLOCK_SIZE)
    return np.random.default_rng(0).permutation(len(lengths) * width).astype(np.int32).reshape(len(lengths), width)


def random_cache(model: Model, blocks: int, kind: str = "") -> Any:
    """One layer of keys and values. kind: ``int8``, ``fp8`` or none, the model's dtype."""
    from minillm_kernels.triton.cache import make_kv_cache

    dtype = torch.float8_e4m3fn if kind == "fp8" else model.dtype
    shape = (1, blocks, BLOCK_SIZE, model.kv_heads, model.dim, dtype, kind == "int8", model.device)
    [layer] = make_kv_cache(*shape)
    for part in (layer.keys, layer.values):
        if kind == "int8":
            part.random_(-127, 128)
        else:
            part.copy_(model.random(*part.shape))
    for scales in (layer.key_scales, layer.value_scales):
        if scales is not None:
            scales.fill_(1 / 64)
    return layer


def prompts(model: Model) -> Iterator[OpCase]:
    """Prompts of one step, laid end to end; nothing of them is in the cache yet."""
    lengths, heads, dim = model.sizes.prompt, model.heads, model.dim

    def ours() -> Call:
        from minillm_kernels.triton.attention import attention, plan_attention

        tables = block_tables(lengths)
        plan = plan_attention(torch.from_numpy(tables).long(), lengths, lengths, BLOCK_SIZE)
        cache, q = random_cache(model, tables.size), model.random(sum(lengths), heads, dim)
        return lambda copy: attention(q, cache, plan, dim**-0.5, 0)

    def dense() -> Call:
        parts = [
            (model.random(1, heads, n, dim), *model.random(2, 1, model.kv_heads, n, dim).unbind(0)) for n in lengths
        ]
        return lambda copy: [
            functional.scaled_dot_product_attention(*qkv, is_causal=True, enable_gqa=True) for qkv in parts
        ]

    moved = model.nbytes(sum(lengths), 2 * heads + 2 * model.kv_heads, dim)
    flops = 4 * heads * dim * sum(n * (n + 1) // 2 for n in lengths)
    shape = f"{model.name} {sum(lengths)} tokens of {len(lengths)}"
    yield OpCase("prefill attention", shape, moved, flops, ours, dense, "SDPA, one by one, not paged")


def ropes(model: Model) -> Iterator[OpCase]:
    """q/k norms where the model has them, rotation and KV write."""
    heads, kv_heads, dim = model.heads, model.kv_heads, model.dim

    def operands(tokens: int) -> tuple[Tensor, Any, Tensor, tuple[Tensor, Tensor]]:
        from minillm_kernels import HeadNorms

        qkv = model.random(tokens, heads + 2 * kv_heads, dim)
        head_norms = HeadNorms(model.random(dim), model.random(dim), EPS) if model.head_norms else None
        tables = model.random(POSITIONS, dim // 2), model.random(POSITIONS, dim // 2)
        return qkv, head_norms, torch.arange(tokens, device=model.device), tables

    for tokens in model.sizes.rows:

        def ours(tokens: int = tokens) -> Call:
            from minillm_kernels.triton.rope_kv import rope_kv

            qkv, head_norms, places, tables = operands(tokens)
            cache = random_cache(model, -(-tokens // BLOCK_SIZE))
            return lambda copy: rope_kv(qkv, head_norms, (*tables, places), cache, places)

        def baseline(tokens: int = tokens) -> Call:
            from minillm_kernels import kv_cache, ref

            qkv, head_norms, places, tables = operands(tokens)
            [cache] = kv_cache.make_kv_cache(
                1, -(-tokens // BLOCK_SIZE), BLOCK_SIZE, kv_heads, dim, model.dtype, False, model.device
            )

            def call(copy: int) -> None:
                q, k, v = qkv.split((heads, kv_heads, kv_heads), 1)
                if head_norms is not None:
                    q, k = ref.rms_norm(q, head_norms.q, EPS), ref.rms_norm(k, head_norms.k, EPS)
                cos, sin = ref.angles(tables, places)
                ref.rope(q, cos, sin)
                ref.write_kv(ref.rope(k, cos, sin), v, cache, places)

            return call

        moved = model.nbytes(tokens, 2 * heads + 4 * kv_heads, dim)
        yield OpCase("rope_kv", f"{model.name} T={tokens}", moved, 0, ours, baseline, "the reference, torch")

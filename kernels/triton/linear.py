"""Linear layers in 16 bits: which of three ways computes one, for each number of tokens and shape of the weight.

Spec: ``ref.linear``. One token: gemv.py. Up to 64 tokens and a small weight: skinny.py. All else, and fp32: torch, that
is cuBLAS, which is near the limit where there is enough to do.

``TABLE`` holds what was measured to be fastest for the shapes of the models that are timed, ``choose`` the rule for all
others. Both are to be measured anew on another device: ``choices`` is what can be tried.
Ledger: kernels/LEDGER-GPU.md
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor
from torch.nn import functional

from minillm_kernels.triton.gemv import GemvTile, gemv
from minillm_kernels.triton.skinny import MAX_TOKENS, SkinnyTile, arrivals, bucket, skinny

Tile = GemvTile | SkinnyTile | None  # which kernel, and its blocks; None: torch

# (tokens, outputs N, inputs K): the fastest in a sweep, for 1 token on an H200, for the others on an H100. Tokens: 1,
# or the bucket (16, 32, 64) that T is padded to.
TABLE: dict[tuple[int, int, int], Tile] = {
    (1, 6144, 4096): GemvTile(2, 2048, 8),  # Llama 3 8B: qkv, o, gate_up, down, head
    (1, 4096, 4096): GemvTile(1, 2048, 8),
    (1, 28672, 4096): GemvTile(2, 2048, 8),
    (1, 4096, 14336): GemvTile(2, 1024, 8),
    (1, 128256, 4096): GemvTile(1, 2048, 4),
    (1, 4096, 1024): GemvTile(2, 1024, 4),  # Qwen3 0.6B: the same
    (1, 1024, 2048): GemvTile(2, 1024, 4),
    (1, 6144, 1024): GemvTile(2, 1024, 4),
    (1, 1024, 3072): GemvTile(1, 1024, 4),
    (1, 151936, 1024): GemvTile(4, 512, 4),
    (16, 4096, 1024): SkinnyTile(32, 256, 1, 4, 4),
    (16, 1024, 2048): SkinnyTile(32, 128, 4, 4, 4),
    (16, 6144, 1024): SkinnyTile(64, 128, 1, 4, 4),
    (16, 1024, 3072): SkinnyTile(32, 256, 4, 4, 4),
    (16, 4096, 4096): SkinnyTile(32, 512, 1, 4, 4),  # Llama 3 8B: o, gate_up, down, head, and its draft head's
    (16, 28672, 4096): SkinnyTile(64, 256, 1, 4, 4),
    (16, 4096, 14336): SkinnyTile(32, 512, 1, 4, 4),
    (16, 128256, 4096): SkinnyTile(32, 512, 1, 4, 4),
    (16, 32768, 4096): SkinnyTile(64, 256, 1, 4, 5),
    (16, 4096, 8192): SkinnyTile(64, 128, 2, 4, 4),
    (16, 4096, 12288): SkinnyTile(16, 256, 1, 4, 4),
    (64, 6144, 4096): SkinnyTile(64, 128, 1, 4, 4),
    (64, 28672, 4096): SkinnyTile(64, 128, 1, 4, 3),
}
SKINNY_TOKENS, SKINNY_WEIGHTS = 16, 8 << 20  # bucket and N * K up to which skinny.py is taken where nothing is known
PROGRAMS = 128  # about as many as the GPU has multiprocessors: K is split until there are so many
SHARED_MEMORY = 200 << 10  # bytes that the pipeline of one program may take


@dataclass(frozen=True)
class HalfWeight:
    """data: [out, in] bf16 or fp16, contiguous; counters: the scratch of skinny.py."""

    data: Tensor
    counters: Tensor


def pack_linear(weight: Tensor) -> HalfWeight | Tensor:
    """weight: [out, in]. Not copied if it is contiguous; fp32 stays as it is, for torch."""
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return weight
    return HalfWeight(weight.contiguous(), arrivals(weight.shape[0], weight.device))


def linear(x: Tensor, weight: HalfWeight | Tensor, bias: Tensor | None) -> Tensor:
    """x: [T, in] in the weight's dtype -> [T, out]."""
    if not isinstance(weight, HalfWeight):
        return functional.linear(x, weight, bias)
    tile = choose(x.shape[0], *weight.data.shape) if x.shape[0] <= MAX_TOKENS else None
    return linear_by(tile, x, weight, bias)


def linear_by(tile: Tile, x: Tensor, weight: HalfWeight, bias: Tensor | None) -> Tensor:
    """:func:`linear` in a given way, one of :func:`choices`."""
    if isinstance(tile, GemvTile):
        return gemv(x, weight.data, bias, tile)
    if isinstance(tile, SkinnyTile):
        return skinny(x, weight.data, bias, weight.counters, tile)
    return functional.linear(x, weight.data, bias)


@functools.cache
def choose(num_tokens: int, out_features: int, in_features: int) -> Tile:
    """The way for T <= ``MAX_TOKENS`` tokens: the table's, else the rule's."""
    tokens = num_tokens if num_tokens <= 1 else bucket(num_tokens)
    shape = (tokens, out_features, in_features)
    return TABLE[shape] if shape in TABLE else by_rule(*shape)


def by_rule(tokens: int, out_features: int, in_features: int) -> Tile:
    """What a shape gets that is not in the table. tokens: 0, 1 or a bucket."""
    if tokens == 1:
        return GemvTile(2, 1024, 4 if in_features < 4096 else 8)
    if not 0 < tokens <= SKINNY_TOKENS or out_features * in_features > SKINNY_WEIGHTS:
        return None
    block_n, block_k = 32, 128
    programs, turns = triton.cdiv(out_features, block_n), triton.cdiv(in_features, block_k)
    return SkinnyTile(block_n, block_k, min(triton.cdiv(PROGRAMS, programs), turns), num_warps=4, num_stages=4)


def choices(num_tokens: int, out_features: int, in_features: int) -> Iterator[Tile]:
    """Every way worth timing for a shape, torch first; pass each to :func:`linear_by`."""
    yield None
    if num_tokens == 1:
        for block_n, block_k, warps in itertools.product((1, 2, 4, 8), (512, 1024, 2048), (4, 8)):
            if block_k < 2 * in_features and 8 <= block_n * block_k // (32 * warps) <= 64:  # elements per thread
                yield GemvTile(block_n, block_k, warps)
    elif 1 < num_tokens <= MAX_TOKENS:
        splits = (1, 2, 4, 8, 16)
        for block_n, block_k, split, stages in itertools.product((16, 32, 64), (128, 256), splits, (3, 5)):
            programs = triton.cdiv(out_features, block_n) * split
            pipeline = 2 * block_k * (block_n + bucket(num_tokens)) * stages  # bytes
            if (
                PROGRAMS // 2 <= programs <= 4 * PROGRAMS
                and split * block_k <= in_features
                and pipeline <= SHARED_MEMORY
            ):
                yield SkinnyTile(block_n, block_k, split, num_warps=2 if block_n == 16 else 4, num_stages=stages)

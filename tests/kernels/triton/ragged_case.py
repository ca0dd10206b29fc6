"""A step of sequences with old and new tokens, in shuffled blocks of a cache that is NaN wherever no token lies."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minillm_kernels.kv_cache import quantize_kv
from minillm_kernels.triton.cache import make_kv_cache

FP8 = torch.float8_e4m3fn


@dataclass
class RaggedCase:
    """lens: (tokens of a sequence, how many of them are new), the last are; qkv: [T, heads + 2 * groups, dim] of all
    new ones. kv_dtype: the cache's, int8 with scales, None: dtype."""

    device: torch.device
    lens: list[tuple[int, int]]
    heads: int = 4
    groups: int = 2
    dim: int = 16
    block_size: int = 4
    dtype: torch.dtype = torch.float32
    kv_dtype: torch.dtype | None = None
    seed: int = 0
    tables: Tensor = field(init=False, repr=False)
    slots: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def random(tokens: int, heads: int) -> Tensor:
            return torch.randn(tokens, heads, self.dim, generator=generator).to(self.device, self.dtype)

        per_sequence = max(-(-total // self.block_size) for total, _ in self.lens) + 1
        blocks = torch.randperm(per_sequence * len(self.lens) + 3, generator=generator)[:-3]
        self.tables = blocks.view(len(self.lens), per_sequence)
        self.slots = torch.cat([self.places(b, total - new, total) for b, (total, new) in enumerate(self.lens)])
        self.qkv = random(sum(new for _, new in self.lens), self.heads + 2 * self.groups)
        int8 = self.kv_dtype == torch.int8
        shape = (len(blocks) + 3, self.block_size, self.groups, self.dim, self.kv_dtype or self.dtype, int8)
        [self.cache] = make_kv_cache(1, *shape, self.device)
        for x in (self.cache.keys, self.cache.values, self.cache.key_scales, self.cache.value_scales):
            if x is not None and x.dtype != torch.int8:
                x.view(torch.uint8).fill_(0xFF)  # NaN in all of them
        for b, (total, new) in enumerate(self.lens):
            old = total - new
            self.store(random(old, self.groups), random(old, self.groups), self.places(b, 0, old))

    def places(self, sequence: int, start: int, stop: int) -> Tensor:
        """Slots of tokens start .. stop - 1, on the device."""
        token = torch.arange(start, stop)
        block = self.tables[sequence][token // self.block_size]
        return (block * self.block_size + token % self.block_size).to(self.device)

    def store(self, k: Tensor, v: Tensor, slots: Tensor) -> None:
        """What ``write_kv`` should do, in torch."""
        block, offset = slots // self.block_size, slots % self.block_size
        cache = self.cache
        for x, data, scales in ((k, cache.keys, cache.key_scales), (v, cache.values, cache.value_scales)):
            if scales is not None:
                x, scale = quantize_kv(x)
                scales[block, :, offset] = scale
            codes = (torch.int8, torch.uint8)[data.dtype == FP8] if data.element_size() == 1 else data.dtype
            data.view(codes)[block, :, offset] = x.to(data.dtype).view(codes)

    @property
    def bound(self) -> float:
        """What :func:`relative_error` may be. Weights and outputs are rounded once (weights with an int8 cache's scales
        to bf16 if not fp32); the interpreter cuts bf16 off."""
        if self.dtype == torch.float32:
            return 1e-5 if torch.cuda.is_available() else 3e-6  # three tf32 products, or one in fp32
        if self.dtype == torch.float16 and self.kv_dtype != torch.int8:
            return 1e-3
        return 6e-3 if torch.cuda.is_available() else 1.2e-2

    def split(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the new tokens: slices of qkv."""
        return self.qkv.split((self.heads, self.groups, self.groups), 1)

    def store_new(self) -> None:
        """The new tokens as they are in qkv, by :meth:`store`."""
        _, k, v = self.split()
        self.store(k, v, self.slots)

    def expected(self, scale: float, window: int = 0, q: Tensor | None = None) -> list[Tensor]:
        """Attention in float64 over what the cache holds now, for each sequence: [new, heads, dim]."""
        queries = (self.split()[0] if q is None else q).double().split([new for _, new in self.lens])
        return [
            _attention(own, *self._read(b, total), scale, window).cpu()
            for b, ((total, _), own) in enumerate(zip(self.lens, queries, strict=True))
        ]

    def _read(self, sequence: int, stop: int) -> tuple[Tensor, Tensor]:
        slots, cache = self.places(sequence, 0, stop), self.cache
        block, offset = slots // self.block_size, slots % self.block_size

        def read(data: Tensor, scales: Tensor | None) -> Tensor:
            x = data.double()[block, :, offset]
            return x if scales is None else x * scales.double()[block, :, offset].unsqueeze(-1)

        return read(cache.keys, cache.key_scales), read(cache.values, cache.value_scales)


def _attention(q: Tensor, keys: Tensor, values: Tensor, scale: float, window: int) -> Tensor:
    keys, values = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (keys, values))
    place = torch.arange(len(keys), device=q.device)
    behind = place[len(keys) - len(q) :, None] - place
    seen = (behind >= 0) & (behind < (window or len(keys)))
    weights = torch.einsum("qhd,khd->hqk", q, keys).mul(scale).masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """||got - expected|| / ||expected||; NaN where got has one."""
    return ((got.double().cpu() - expected).norm() / expected.norm()).item()

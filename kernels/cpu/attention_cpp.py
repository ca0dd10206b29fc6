"""Paged attention in C++ (attention.cpp): the block table is walked where it lies, one call per layer and step.

The cache has a layout of its own (paged.h) that only these functions read. fp32 and int8 caches are handled here;
a bf16 cache is kept and read as the torch version does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from minillm_kernels import kv_cache
from minillm_kernels.cpu import attention_torch
from minillm_kernels.cpu.build import bind
from minillm_kernels.kv_cache import PagedLayer, lazy_zeros


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scales", "value_scales")),
        *((name, ctypes.c_int64) for name in ("block_size", "groups", "dim")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("sequences", ctypes.c_int64),
        ("tables", ctypes.c_void_p),
        ("table_stride", ctypes.c_int64),
        ("seq_lens", ctypes.c_void_p),
        ("query_lens", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    )


class CompiledLayer:
    """One layer's cache in the layout of paged.h. data: keys, values and, of an int8 cache, their scales."""

    def __init__(self, data: Sequence[Tensor], block_size: int, groups: int, dim: int):
        pointers = [*(x.data_ptr() for x in data), *([None] * (4 - len(data)))]
        self.data = tuple(data)
        self.groups, self.dim = groups, dim
        self._struct = _Layer(*pointers, block_size, groups, dim)
        self.address = ctypes.addressof(self._struct)


@dataclass(frozen=True)
class CompiledPlan:
    """One step: the arrays that C++ reads, and the same as torch's version wants it, made only if a bf16 cache asks."""

    tables: Tensor
    seq_lens: Sequence[int]
    query_lens: Sequence[int]
    block_size: int
    tokens: int
    address: int
    keep_alive: tuple[object, ...] = field(repr=False)

    @cached_property
    def for_torch(self) -> attention_torch.TorchPlan:
        return attention_torch.plan_attention(self.tables, self.seq_lens, self.query_lens, self.block_size)


Cache = CompiledLayer | PagedLayer


def kv_bytes_per_token(kv_heads: int, head_dim: int, dtype: torch.dtype, quantized: bool = False) -> int:
    """As :func:`minillm_kernels.kv_cache.kv_bytes_per_token`; values are padded to whole vectors."""
    if not _compiled(dtype):
        return kv_cache.kv_bytes_per_token(kv_heads, head_dim, dtype, quantized)
    width, scales = (1, 2 * 4) if quantized else (4, 0)
    return kv_heads * ((head_dim + _padded(head_dim)) * width + scales)


def make_kv_cache(
    num_layers: int,
    num_blocks: int,
    block_size: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    quantized: bool = False,
    device: torch.device | str = "cpu",
) -> list[Cache]:
    """Same contract as :func:`minillm_kernels.kv_cache.make_kv_cache`, on the CPU."""
    if not _compiled(dtype):
        return kv_cache.make_kv_cache(num_layers, num_blocks, block_size, kv_heads, head_dim, dtype, quantized)
    tokens, store = num_blocks * kv_heads * block_size, torch.int8 if quantized else torch.float32

    def layer() -> CompiledLayer:
        data = [lazy_zeros((tokens * width,), store) for width in (head_dim, _padded(head_dim))]
        scales = [lazy_zeros((tokens,), torch.float32) for _ in range(2)] if quantized else []
        return CompiledLayer((*data, *scales), block_size, kv_heads, head_dim)

    return [layer() for _ in range(num_layers)]


def plan_attention(tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int], block_size: int) -> CompiledPlan:
    """Same contract as :func:`minillm_kernels.ref.plan_attention`."""
    tables = tables.to(torch.int64).contiguous()
    lens = np.array((seq_lens, query_lens), np.int64)
    step = _Step(
        len(lens[0]),
        tables.data_ptr(),
        tables.shape[1],
        lens[0].ctypes.data,
        lens[1].ctypes.data,
        int(lens[1].sum()),
        torch.get_num_threads(),
    )
    return CompiledPlan(tables, seq_lens, query_lens, block_size, step.tokens, ctypes.addressof(step), (lens, step))


def write_kv(k: Tensor, v: Tensor, cache: Cache, slots: Tensor) -> None:
    """Same contract as :func:`minillm_kernels.ref.write_kv`."""
    if isinstance(cache, PagedLayer):
        return attention_torch.write_kv(k, v, cache, slots)
    slots = _places(slots)
    _check(k, k, v, cache, len(slots), len(slots))
    k, v = _rows(k), _rows(v)
    if k.stride(0) != v.stride(0):
        k, v = k.contiguous(), v.contiguous()
    _write(cache.address, len(k), k.data_ptr(), v.data_ptr(), k.stride(0), slots.data_ptr())


def attention(q: Tensor, cache: Cache, plan: CompiledPlan, scale: float, window: int = 0) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attention`."""
    if isinstance(cache, PagedLayer):
        return attention_torch.attention(q, cache, plan.for_torch, scale, window)
    _check(q, None, None, cache, plan.tokens, plan.tokens)
    q, out = _rows(q), torch.empty(q.shape, dtype=torch.float32)
    _attend(
        plan.address, cache.address, q.data_ptr(), q.stride(0), q.shape[1], out.data_ptr(), scale, window, 0, 0, 0, 0
    )
    return out


def attend(
    q: Tensor, k: Tensor, v: Tensor, cache: Cache, slots: Tensor, plan: CompiledPlan, scale: float, window: int
) -> Tensor:
    """Same contract as :func:`minillm_kernels.ref.attend`."""
    if isinstance(cache, PagedLayer):
        return attention_torch.attend(q, k, v, cache, slots, plan.for_torch, scale, window)
    slots = _places(slots)
    _check(q, k, v, cache, len(slots), plan.tokens)
    q, k, v = _rows(q), _rows(k), _rows(v)
    stride = k.stride(0)
    if stride != v.stride(0):
        k, v, stride = k.contiguous(), v.contiguous(), cache.groups * cache.dim
    tokens, heads, dim = q.shape
    out = torch.empty(tokens, heads, dim)
    _attend(
        plan.address,
        cache.address,
        q.data_ptr(),
        q.stride(0),
        heads,
        out.data_ptr(),
        scale,
        window,
        k.data_ptr(),
        v.data_ptr(),
        stride,
        slots.data_ptr(),
    )
    return out


def _check(q: Tensor, k: Tensor | None, v: Tensor | None, cache: CompiledLayer, slots: int, tokens: int) -> None:
    """C++ would read past the end of what does not fit. Raises ValueError saying what fits."""
    kv_shape = (tokens, cache.groups, cache.dim)
    first, heads, dim = q.shape
    fits = first == slots == tokens and dim == cache.dim and heads % cache.groups == 0 and q.dtype is torch.float32
    for x in (k, v):
        fits = fits and (x is None or (x.shape == kv_shape and x.dtype is torch.float32))
    if not fits:
        found = ", ".join(f"{x.dtype} {list(x.shape)}" for x in (q, k, v) if x is not None)
        raise ValueError(
            f"this step takes float32 queries [{tokens}, a multiple of {cache.groups}, {cache.dim}], keys and values "
            f"{list(kv_shape)} and {tokens} slots; got {found} and {slots} slots"
        )


def _rows(x: Tensor) -> Tensor:
    """x as C++ reads it: heads side by side, tokens any distance apart. A slice of qkv needs no copy."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def _places(slots: Tensor) -> Tensor:
    return slots if slots.dtype is torch.int64 and slots.is_contiguous() else slots.to(torch.int64).contiguous()


def _compiled(dtype: torch.dtype) -> bool:
    return dtype == torch.float32


def _padded(head_dim: int) -> int:
    return -(-head_dim // _LANES) * _LANES


_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_LANES = bind("kernel_lanes", [])()
_attend = bind(
    "paged_attention",
    [*[_POINTER] * 3, *[_INT] * 2, _POINTER, ctypes.c_float, _INT, *[_POINTER] * 2, _INT, _POINTER],
)
_write = bind("paged_write", [_POINTER, _INT, *[_POINTER] * 2, _INT, _POINTER])

"""One layer of paged keys and values as the torch ops keep it, and memory that costs nothing until it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CACHE_LINE = 64
LARGEST_INT8 = 127


@dataclass(frozen=True)
class PagedLayer:
    """keys, values: [blocks, block_size, G, D] in the model's dtype, or int8 with key_scales, value_scales:
    [blocks, block_size, G] fp32, one for each token and head (the number is ``int8 * scale``)."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    @property
    def block_size(self) -> int:
        return self.keys.shape[1]


def make_kv_cache(
    num_layers: int,
    num_blocks: int,
    block_size: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    quantized: bool = False,
    device: torch.device | str = "cpu",
) -> list[PagedLayer]:
    """An empty cache, one object per layer. ``quantized`` keeps int8 whatever ``dtype`` is."""
    shape = (num_blocks, block_size, kv_heads, head_dim)
    return [PagedLayer(*empty_tensors(shape, dtype, quantized, device)) for _ in range(num_layers)]


def empty_tensors(
    shape: tuple[int, ...], dtype: torch.dtype, quantized: bool, device: torch.device | str
) -> list[Tensor]:
    """Keys and values of ``shape``, a head's components last; where quantised also the scales of both, one a head."""

    def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        on_cpu = torch.device(device).type == "cpu"
        return lazy_zeros(shape, dtype) if on_cpu else torch.zeros(shape, dtype=dtype, device=device)

    if not quantized:
        return [empty(shape, dtype) for _ in range(2)]
    codes, scales = ([empty(*of) for _ in range(2)] for of in ((shape, torch.int8), (shape[:-1], torch.float32)))
    return [*codes, *scales]


def kv_bytes_per_token(kv_heads: int, head_dim: int, dtype: torch.dtype, quantized: bool = False) -> int:
    """Bytes that one token takes in one layer of :func:`make_kv_cache`: key and value, scales included."""
    per_head = head_dim + torch.float32.itemsize if quantized else head_dim * dtype.itemsize
    return 2 * kv_heads * per_head


def quantize_kv(x: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 of each head's vector. x: [T, G, D] -> codes [T, G, D] int8, scales [T, G] fp32."""
    x = x.float()
    largest = x.abs().amax(-1)
    codes = torch.round(x * (largest.clamp_min(1e-30).reciprocal() * LARGEST_INT8).unsqueeze(-1))
    return codes.to(torch.int8), largest / LARGEST_INT8


def lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that the system hands out page by page as they are written (``torch.zeros`` writes all of them at once).

    Zeros, not whatever memory held: masked positions are read, and 0 * NaN would survive the mask.
    """
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return torch.from_numpy(raw)[start : start + size].view(dtype).view(shape)

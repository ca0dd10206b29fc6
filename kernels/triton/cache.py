"""One layer of paged keys and values as the Triton kernels read it: heads outside, the tokens of a block side by side.

A block of one KV head is one contiguous piece [block_size, D] (the layout others call HND): attention reads one head at
a time, and a piece of 16 tokens x 128 x 2 bytes is 4 KiB in a row, where tokens outside would give 256 bytes at a time.
A slot, the number that names a token's place, is ``block * block_size + offset``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minillm_kernels.kv_cache import empty_tensors, kv_bytes_per_token

__all__ = ["TritonKV", "kv_bytes_per_token", "make_kv_cache"]


@dataclass(frozen=True)
class TritonKV:
    """keys, values: [blocks, G, block_size, D] in the model's dtype, or fp8 e4m3 (rounded as it is, +-448 at most), or
    int8 with key_scales, value_scales: [blocks, G, block_size] fp32, one per token and head (``int8 * scale``)."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    @property
    def block_size(self) -> int:
        return self.keys.shape[2]


def make_kv_cache(
    num_layers: int,
    num_blocks: int,
    block_size: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    quantized: bool = False,
    device: torch.device | str = "cpu",
) -> list[TritonKV]:
    """Same contract as :func:`minillm_kernels.kv_cache.make_kv_cache`; dtype may also be ``torch.float8_e4m3fn``."""
    shape = (num_blocks, kv_heads, block_size, head_dim)
    return [TritonKV(*empty_tensors(shape, dtype, quantized, device)) for _ in range(num_layers)]

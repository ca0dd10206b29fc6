"""Where keys and values live and how queries meet them. Passed to the model as an argument, never global."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm_kernels import HeadNorms, Ops
from minillm_serve.model.config import ModelConfig


@dataclass(frozen=True)
class PagedAttention:
    """One step's attention over the paged cache: the object the model calls once per layer.

    slots: [T] where this step's tokens are written; plan: from ``ops.plan_attention``, shared by all layers.
    """

    cache: KVCache
    slots: Tensor
    plan: Any

    def attend(self, layer: int, qkv: Tensor, norms: HeadNorms | None, angles: Any | None) -> Tensor:
        """Norms of heads, rotation, KV write, attention: qkv [T, heads + 2 * kv_heads, head_dim] to one row per head.

        All tokens are written before any query reads: a sequence may read blocks that another fills in this step.
        """
        cache = self.cache
        return cache.ops.attend_qkv(
            qkv,
            norms,
            angles,
            cache.layers[layer],
            self.slots,
            self.plan,
            cache.kv_heads,
            cache.scale,
            cache.windows[layer],
        )


class KVCache:
    """The storage behind the block tables. Contiguous KV is this with ``block_size = max_model_len``.

    dtype: the model's; ``quantized`` keeps keys and values in int8 with one scale per token and head.
    """

    def __init__(
        self,
        config: ModelConfig,
        ops: Ops,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        quantized: bool = False,
        device: torch.device | str = "cpu",
    ):
        self.ops = ops
        self.block_size = block_size
        self.scale = config.attention_scale
        self.windows = config.sliding_windows
        self.kv_heads = config.num_kv_heads
        self.layers = ops.make_kv_cache(
            config.num_layers, num_blocks, block_size, config.num_kv_heads, config.head_dim, dtype, quantized, device
        )

    @staticmethod
    def bytes_per_token(config: ModelConfig, ops: Ops, dtype: torch.dtype, quantized: bool = False) -> int:
        """What one token takes in all layers: the pool's size follows from it."""
        return config.num_layers * ops.kv_bytes_per_token(config.num_kv_heads, config.head_dim, dtype, quantized)

    def plan(self, slots: Tensor, tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int]) -> PagedAttention:
        """Bind one step. tables: [B, max_blocks]; the last query_lens[b] of seq_lens[b] tokens are new."""
        return PagedAttention(self, slots, self.ops.plan_attention(tables, seq_lens, query_lens, self.block_size))

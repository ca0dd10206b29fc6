"""Where keys and values live and how queries meet them. Passed to the model as an argument, never global."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm_kernels import Ops
from minillm_serve.model.config import ModelConfig


@dataclass(frozen=True)
class PagedAttention:
    """One step's attention over the paged cache: the object the model calls once per layer.

    kv_cache: [layers, blocks, block_size, 2, kv_heads, head_dim]; slots: [T] where this step's tokens are written;
    plan: from ``ops.plan_attention``, shared by all layers.
    """

    ops: Ops
    kv_cache: Tensor
    slots: Tensor
    plan: Any

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write this step's k, v: [T, kv_heads, head_dim], then attend. q: [T, heads, head_dim] -> the same shape."""
        self.ops.write_kv(k, v, self.kv_cache[layer], self.slots)
        return self.ops.attention(q, self.kv_cache[layer], self.plan)


class KVCache:
    """The tensor behind the block tables. Contiguous KV is this with ``block_size = max_model_len``."""

    def __init__(self, config: ModelConfig, ops: Ops, num_blocks: int, block_size: int, dtype: torch.dtype):
        self.ops = ops
        self.block_size = block_size
        shape = (config.num_layers, num_blocks, block_size, 2, config.num_kv_heads, config.head_dim)
        # Zeros, not whatever memory held: positions past a sequence's end are masked, and 0 * NaN would survive that.
        self.data = torch.zeros(shape, dtype=dtype)

    def plan(self, slots: Tensor, tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int]) -> PagedAttention:
        """Bind one step. tables: [B, max_blocks]; the last query_lens[b] of seq_lens[b] tokens are new."""
        plan = self.ops.plan_attention(tables, seq_lens, query_lens, self.block_size)
        return PagedAttention(self.ops, self.data, slots, plan)

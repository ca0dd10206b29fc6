"""No KV cache: every step computes the keys and values of the whole sequence again. What all other stages improve on.

The runner lays out all tokens of each scheduled sequence, from position 0 (``PersistentBatch(recompute=True)``). Their
keys and values go to a scratch as large as the step, which every layer overwrites: nothing outlives the layer that
made it, so what is missing is exactly the memory between steps. The arithmetic is that of the paged op.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from minillm_kernels import Ops
from minillm_serve.attention.backends import KVCache, PagedAttention
from minillm_serve.model.config import ModelConfig


class NoCache(KVCache):
    """Stands where KVCache stands. The blocks that the scheduler hands out are bookkeeping without memory behind it."""

    def __init__(self, config: ModelConfig, ops: Ops, block_size: int, dtype: torch.dtype):
        super().__init__(config, ops, 1, block_size, dtype)
        self._config, self._dtype, self._num_blocks = config, dtype, 0

    def plan(self, slots: Tensor, tables: Tensor, seq_lens: Sequence[int], query_lens: Sequence[int]) -> PagedAttention:
        """Bind one step of whole sequences (query_lens equals seq_lens), one after the other in the scratch.

        slots and tables, the scheduler's places, are not used.
        """
        counts = [-(-length // self.block_size) for length in seq_lens]
        *firsts, total = [0, *accumulate(counts)]
        self._make_room(total)
        starts = [first * self.block_size for first in firsts]
        places = [torch.arange(start, start + length) for start, length in zip(starts, seq_lens, strict=True)]
        own = (torch.tensor(firsts).unsqueeze(1) + torch.arange(max(counts))).clamp(max=total - 1)
        return super().plan(torch.cat(places), own, seq_lens, query_lens)

    def _make_room(self, num_blocks: int) -> None:
        if num_blocks > self._num_blocks:
            config, self._num_blocks = self._config, num_blocks
            heads, dim = config.num_kv_heads, config.head_dim
            [scratch] = self.ops.make_kv_cache(1, num_blocks, self.block_size, heads, dim, self._dtype, False)
            self.layers = [scratch] * config.num_layers

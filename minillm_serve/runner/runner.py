"""Plan in, tokens out: the runner owns the tensors (KV cache, persistent batch, sampler state) and runs the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.attention.backends import KVCache
from minillm_serve.model.llama import LlamaModel
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.runner.batch import PersistentBatch, StepBatch
from minillm_serve.sample.sampler import SampleSettings, sample


class Runner:
    """Executes one plan after another on one device."""

    def __init__(
        self,
        model: LlamaModel,
        kv_cache: KVCache,
        batch: PersistentBatch,
        sample_fn: Callable[[Tensor, SampleSettings], Tensor] = sample,
    ):
        self.model = model
        self.kv_cache = kv_cache
        self.batch = batch
        self.sample = sample_fn

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        """Compute ``plan.num_tokens`` tokens of each request; sample for those whose known tokens are then all in."""
        batch = self.batch.apply(plan)
        if not batch.rids:
            return StepResult({})
        attention = self.kv_cache.plan(
            slots=torch.from_numpy(batch.slots),
            tables=torch.from_numpy(batch.tables),
            seq_lens=batch.seq_lens.tolist(),
            query_lens=np.diff(batch.starts).tolist(),
        )
        last = torch.from_numpy(batch.starts[1:][batch.sampling] - 1)
        logits = self.model.forward(torch.from_numpy(batch.ids), torch.from_numpy(batch.positions), attention, last)
        sampled = self.sample(logits, self._settings(batch, logits.shape[1])) if len(last) else last
        return self.batch.book(batch, sampled.numpy())

    def _settings(self, batch: StepBatch, vocab_size: int) -> SampleSettings:
        state, rows = self.batch, batch.rows[batch.sampling]
        return SampleSettings(
            temperature=torch.from_numpy(state.temperature[rows]),
            top_k=torch.from_numpy(state.top_k[rows]),
            top_p=torch.from_numpy(state.top_p[rows]),
            seeds=torch.from_numpy(state.seed[rows]),
            positions=torch.from_numpy(state.num_tokens[rows]),
            allowed=self._allowed(rows, vocab_size),
        )

    def _allowed(self, rows: NDArray[np.int64], vocab_size: int) -> Tensor | None:
        """[S, vocab] bool from the matchers' bitmasks (bit t % 32 of word t // 32), or None if nothing is guided."""
        matchers = self.batch.matchers
        if not any(int(row) in matchers for row in rows):
            return None
        allowed = np.ones((len(rows), vocab_size), np.bool_)
        for index, row in enumerate(rows):
            if (matcher := matchers.get(int(row))) is not None:
                bits = np.unpackbits(matcher.fill_mask().view(np.uint8), bitorder="little")[:vocab_size]
                allowed[index] = bits
        return torch.from_numpy(allowed)

"""Plan in, tokens out: the runner owns the tensors (KV cache, persistent batch, sampler state) and runs the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.attention.backends import KVCache
from minillm_serve.model.llama import Attention, LlamaModel
from minillm_serve.plan import StepPlan, StepResult, TokenLogprobs
from minillm_serve.runner.batch import (
    NOTHING_TOLD,
    PersistentBatch,
    PooledPart,
    PromptPart,
    StepBatch,
    ToldOfPrompts,
)
from minillm_serve.sample.logprobs import describe
from minillm_serve.sample.masks import forbid
from minillm_serve.sample.sampler import SampleSettings, sample

DESCRIBED_ROWS = 64  # prompt positions whose logits exist at once: 12 MB for a vocabulary of 49,152


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
        last = batch.starts[1:][batch.sampling] - 1
        self.batch.sampling.start_masks(batch.rows[batch.sampling], self.model.config.vocab_size)
        parts, pooled = self.batch.prompt_parts(batch), self.batch.pooled_parts(batch)
        if parts or pooled:
            logits, told = self._look_at_prompts(batch, attention, last, parts, pooled)
        else:
            logits, told = self._run(self.model.forward, batch, attention, last), NOTHING_TOLD
        if not len(last):
            return self.batch.book(batch, last, told=told)
        return self._sample(batch, logits, told)

    def _run(
        self, model: Callable[..., Tensor], batch: StepBatch, attention: Attention, last: NDArray[np.int64]
    ) -> Tensor:
        ids, positions = torch.from_numpy(batch.ids), torch.from_numpy(batch.positions)
        return model(ids, positions, attention, torch.from_numpy(last))

    def _sample(self, batch: StepBatch, logits: Tensor, told: ToldOfPrompts) -> StepResult:
        """logits: [S, vocab], changed in place once the rows that ask for log-probabilities have been set aside."""
        state, rows = self.batch.sampling, batch.rows[batch.sampling]
        asked = [at for at, row in enumerate(rows.tolist()) if row in state.logprobs] if state.logprobs else []
        raw = logits[torch.tensor(asked)] if asked else None
        edits = state.edits(rows, logits.shape[1])
        if edits is not None:
            edits.apply(logits)
        settings = state.settings(rows, self.batch.num_tokens[rows])
        sampled = self.sample(logits, settings)
        forbidden = None
        if edits is not None:
            self._draw_again(logits, settings, rows, sampled)
            forbidden = torch.isneginf(logits.gather(1, sampled.unsqueeze(1))[:, 0]).numpy()
        logprobs = {}
        if raw is not None:
            entries = describe(raw, sampled[torch.tensor(asked)], [state.logprobs[int(rows[at])] for at in asked])
            rids = (batch.rids[batch.sampling[at]] for at in asked)
            logprobs = {rid: (entry,) for rid, entry in zip(rids, entries, strict=True)}
        return self.batch.book(batch, sampled.numpy(), forbidden, logprobs, told)

    def _draw_again(self, logits: Tensor, settings: SampleSettings, rows: NDArray[np.int64], sampled: Tensor) -> None:
        """Replace tokens after which a text could no longer be completed within its max_tokens."""
        masks = self.batch.sampling.narrowed(rows, sampled.numpy())
        if masks is not None:
            forbid(logits, masks.at, masks.words)
            at = torch.tensor(masks.at)
            sampled[at] = self.sample(logits[at], settings[at])

    def _look_at_prompts(
        self,
        batch: StepBatch,
        attention: Attention,
        last: NDArray[np.int64],
        parts: Sequence[PromptPart],
        pooled: Sequence[PooledPart],
    ) -> tuple[Tensor, ToldOfPrompts]:
        """Logits of the rows that sample, and what was asked about prompts: entries of each part, sums of each pooled.

        Rows that are only summed never meet the LM head.
        """
        wanted = np.unique(np.concatenate([last, *(part.flat for part in (*parts, *pooled))]))
        hidden = self._run(self.model.hidden, batch, attention, wanted)

        def rows_of(flat: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(np.searchsorted(wanted, flat))

        described = {part.rid: (part.start, self._describe(hidden, rows_of(part.flat), part)) for part in parts}
        sums = {p.rid: (p.start, tuple(hidden[rows_of(p.flat)].double().sum(0).tolist())) for p in pooled}
        logits = self.model.logits(hidden[rows_of(last)]) if len(last) else hidden.new_empty(0)
        return logits, ToldOfPrompts(described, sums)

    def _describe(self, hidden: Tensor, rows: Tensor, part: PromptPart) -> tuple[TokenLogprobs, ...]:
        """A few positions at a time: their logits are as wide as the vocabulary."""
        entries: list[TokenLogprobs] = []
        tokens = torch.from_numpy(part.tokens).long()
        for some, their in zip(rows.split(DESCRIBED_ROWS), tokens.split(DESCRIBED_ROWS), strict=True):
            entries += describe(self.model.logits(hidden[some]), their, [part.count] * len(some))
        return tuple(entries)

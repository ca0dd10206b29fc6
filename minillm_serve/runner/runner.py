"""Plan in, tokens out: the runner owns the tensors (KV cache, persistent batch, sampler state) and runs the model.

A step is two calls. ``submit`` launches all of its work and waits for none of it; ``collect`` waits for the tokens. In
between, the next plan may be submitted: tokens that are drawn and not yet back are read where they lie, on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.attention.backends import KVCache
from minillm_serve.model.llama import Attention, LlamaModel, Taps
from minillm_serve.plan import StepPlan, StepResult, TokenLogprobs
from minillm_serve.runner.batch import (
    NOTHING_TOLD,
    UNKNOWN,
    PersistentBatch,
    PooledPart,
    PromptPart,
    StepBatch,
    ToldOfPrompts,
)
from minillm_serve.runner.speculation import Speculation
from minillm_serve.sample.edits import LogitEdits
from minillm_serve.sample.logprobs import Named, describe
from minillm_serve.sample.sampler import SampleSettings, sample

Landing = Callable[[], NDArray]  # waits for a tensor that is on its way to the host
DESCRIBED_ROWS = 64  # prompt positions whose logits exist at once: 12 MB for a vocabulary of 49,152


@dataclass(frozen=True)
class Ticket:
    """A step under way, to be given to :meth:`Runner.collect`.

    sampled: [S] ids of ``batch.sampling``, on the device; drawn, forbidden: wait for those ids, and for where no token
    was left that a request allows (None: nowhere), on the host; described: indices into S, the raw logits of those
    rows, and what each wants to know of them. features: [T, F] of the step's tokens, for a draft head.
    """

    batch: StepBatch
    sampled: Tensor
    drawn: Landing
    forbidden: Landing | None = None
    described: tuple[Sequence[int], Tensor, Sequence[Named]] | None = None
    told: ToldOfPrompts = NOTHING_TOLD
    features: Tensor | None = None


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
        self.device = model.weights.embedding.device
        self.speculation: Speculation | None = None
        self._newest: StepBatch | None = None  # of the steps under way
        self.last_drawn = torch.zeros(len(batch.tokens), dtype=torch.int64, device=self.device)  # of each batch row

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute ``plan.num_tokens`` tokens of each request; sample for those whose known tokens are then all in."""
        return self.collect(self.submit(plan))

    @torch.inference_mode()
    def submit(self, plan: StepPlan) -> Ticket:
        """Launch a step. Plans come back from :meth:`collect` in the order in which they were submitted."""
        batch = self._newest = self.batch.apply(plan)
        if self.speculation is not None:
            self.speculation.begin(plan)
        if not batch.rids:
            return self._nothing_drawn(batch)
        ticket = self._launch(batch)
        self.batch.advance(batch)
        return ticket

    def _launch(self, batch: StepBatch) -> Ticket:
        """All of a step's work on the device, up to the ids it draws."""
        attention = self.kv_cache.plan(
            slots=self._put(batch.slots),
            tables=self._put(batch.tables),
            seq_lens=batch.seq_lens.tolist(),
            query_lens=np.diff(batch.starts).tolist(),
        )
        self.batch.sampling.start_masks(batch.rows[batch.sampling], self.model.config.vocab_size)
        parts, pooled = self.batch.prompt_parts(batch), self.batch.pooled_parts(batch)
        told, features = NOTHING_TOLD, None
        if parts or pooled or self._taps() is not None:
            logits, told, features = self._look(batch, attention, parts, pooled)
        else:
            logits = self._run(self.model.forward, batch, attention, batch.last)
        if not len(batch.last):
            return self._nothing_drawn(batch, told, features)
        ticket = replace(self._sample(batch, logits, told), features=features)
        self.last_drawn[self._put(batch.rows[batch.sampling])] = ticket.sampled
        return ticket

    def _nothing_drawn(
        self, batch: StepBatch, told: ToldOfPrompts = NOTHING_TOLD, features: Tensor | None = None
    ) -> Ticket:
        nothing = self.last_drawn[:0]
        return Ticket(batch, nothing, self._land(nothing), told=told, features=features)

    def _taps(self) -> Taps | None:
        """A fresh notebook for what a draft head wants to know; None where none listens."""
        layers = None if self.speculation is None else self.speculation.aux_layers
        return None if layers is None else Taps(layers)

    @torch.inference_mode()
    def collect(self, ticket: Ticket) -> StepResult:
        """Wait for a step, and book what it drew."""
        batch, logprobs = ticket.batch, {}
        if ticket.described is not None:
            at, raw, named = ticket.described
            logprobs = dict(zip(at, describe(raw, ticket.sampled[self._put(at)], named), strict=True))
        forbidden = None if ticket.forbidden is None else ticket.forbidden()
        sampled, speculation = ticket.drawn(), self.speculation
        if speculation is not None:
            sampled = speculation.pretend(batch, sampled, self.model.config.vocab_size)
        result = self.batch.book(batch, sampled, forbidden, logprobs, ticket.told)
        if speculation is None or not batch.rids:
            return result
        return speculation.follow(batch, result, ticket.features, propose=batch is self._newest)

    def runs_free(self, rids: Iterable[int]) -> bool:
        """Whether the next step of all these requests can be submitted before this one's tokens are collected: drafts
        follow those."""
        free = self.batch.runs_free(rids)
        return free and (self.speculation is None or not self.speculation.wants(rids))

    def _put(self, values: NDArray | Sequence[int]) -> Tensor:
        """On the device."""
        return torch.as_tensor(values).to(self.device)

    def _land(self, values: Tensor) -> Landing:
        """Start to bring a tensor to the host."""
        return partial(values.numpy, force=True)

    def _run(
        self,
        model: Callable[..., Tensor],
        batch: StepBatch,
        attention: Attention,
        last: NDArray[np.int64],
        **more: Any,
    ) -> Tensor:
        return model(self._ids(batch), self._put(batch.positions), attention, self._put(last), **more)

    def _ids(self, batch: StepBatch) -> Tensor:
        """[T] token ids on the device, also those that the host has not seen."""
        ids = self._put(batch.ids)
        unknown = np.flatnonzero(batch.ids == UNKNOWN)
        if len(unknown):
            rows = batch.rows[np.searchsorted(batch.starts, unknown, side="right") - 1]
            ids[self._put(unknown)] = self.last_drawn[self._put(rows)]
        return ids

    def _sample(self, batch: StepBatch, logits: Tensor, told: ToldOfPrompts) -> Ticket:
        """logits: [S, vocab], changed in place once the rows that ask for log-probabilities have been set aside."""
        state, rows, logits = self.batch.sampling, batch.rows[batch.sampling], logits.float()
        asked = [at for at, row in enumerate(rows.tolist()) if row in state.logprobs] if state.logprobs else []
        described = (
            (asked, logits[self._put(asked)], [state.logprobs[int(rows[at])] for at in asked]) if asked else None
        )
        edits = state.edits(rows, logits.shape[1])
        if edits is not None:
            self._edit(logits, edits)
            self._penalize(logits, rows)
        settings = state.settings(rows, batch.drawn_at)
        sampled = self.sample(logits, settings)
        forbidden = None
        if edits is not None:
            self._draw_again(logits, settings, rows, sampled)
        if self.speculation is not None:
            sampled = self.speculation.settle(batch, sampled, logits, settings)
        if edits is not None:
            forbidden = self._land(torch.isneginf(logits.gather(1, sampled.unsqueeze(1))[:, 0]))
        return Ticket(batch, sampled, self._land(sampled), forbidden, described, told)

    def _draw_again(self, logits: Tensor, settings: SampleSettings, rows: NDArray[np.int64], sampled: Tensor) -> None:
        """Replace tokens after which a text could no longer be completed within its max_tokens."""
        masks = self.batch.sampling.narrowed(rows, sampled.numpy(force=True))
        if masks is not None:
            self._edit(logits, LogitEdits(allowed=(masks.at, masks.words)))
            at = torch.tensor(masks.at)
            sampled[self._put(at)] = self.sample(logits[self._put(at)], settings[at])

    def _edit(self, logits: Tensor, edits: LogitEdits) -> None:
        edits.apply(logits)

    def _penalize(self, logits: Tensor, rows: NDArray[np.int64]) -> None:
        """Where the device counts what was seen, and the edits say nothing of penalties."""

    def _look(
        self, batch: StepBatch, attention: Attention, parts: Sequence[PromptPart], pooled: Sequence[PooledPart]
    ) -> tuple[Tensor, ToldOfPrompts, Tensor | None]:
        """Logits of the rows that are drawn from, what was asked about prompts (entries of each part, sums of each
        pooled), and the features of all tokens where a draft head listens.

        Rows that are only summed never meet the LM head.
        """
        last, taps = batch.last, self._taps()
        wanted = np.unique(np.concatenate([last, *(part.flat for part in (*parts, *pooled))]))
        if taps is not None:
            wanted = np.arange(len(batch.ids))
        hidden = self._run(self.model.hidden, batch, attention, wanted, taps=taps)

        def rows_of(flat: NDArray[np.int64]) -> Tensor:
            return self._put(np.searchsorted(wanted, flat))

        described = {part.rid: (part.start, self._describe(hidden, rows_of(part.flat), part)) for part in parts}
        sums = {p.rid: (p.start, tuple(hidden[rows_of(p.flat)].double().sum(0).tolist())) for p in pooled}
        logits = self.model.logits(hidden[rows_of(last)]) if len(last) else hidden.new_empty(0)
        features = None if taps is None else torch.cat((*taps.states, hidden), 1)
        return logits, ToldOfPrompts(described, sums), features

    def _describe(self, hidden: Tensor, rows: Tensor, part: PromptPart) -> tuple[TokenLogprobs, ...]:
        """A few positions at a time: their logits are as wide as the vocabulary."""
        entries: list[TokenLogprobs] = []
        tokens = self._put(part.tokens).long()
        for some, their in zip(rows.split(DESCRIBED_ROWS), tokens.split(DESCRIBED_ROWS), strict=True):
            entries += describe(self.model.logits(hidden[some]).float(), their, [part.count] * len(some))
        return tuple(entries)

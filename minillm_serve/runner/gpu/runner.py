"""The runner on a GPU: decode steps replay a CUDA graph, steps with prompts are launched kernel by kernel.

A step that verifies drafts is a decode step of more tokens, and replays the same graphs.

Nothing in ``submit`` waits for the device, so the host plans and lays out the next step while this one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.attention.backends import KVCache
from minillm_serve.model.llama import LlamaModel
from minillm_serve.plan import StepResult
from minillm_serve.runner.batch import NOTHING_TOLD, UNKNOWN, PersistentBatch, StepBatch, ToldOfPrompts
from minillm_serve.runner.gpu.decode import DecodeStep
from minillm_serve.runner.gpu.graphs import DecodeGraphs, batch_sizes
from minillm_serve.runner.gpu.landing import Landings
from minillm_serve.runner.gpu.penalties import DeviceCounts
from minillm_serve.runner.gpu.sampler import edit_on_device, sample_on_device
from minillm_serve.runner.runner import Landing, Runner, Ticket
from minillm_serve.sample.edits import LogitEdits
from minillm_serve.sample.sampler import SampleSettings, sample


class GPURunner(Runner):
    """Same contract as :class:`Runner`. sample_fn: another sampler than the engine's own gets logits and settings on
    the device, and is never part of a graph. eager: no CUDA graphs. num_drafts: of one request in one step, at most;
    aux_layers: what a draft head reads, see DraftNet."""

    def __init__(
        self,
        model: LlamaModel,
        kv_cache: KVCache,
        batch: PersistentBatch,
        sample_fn: Callable[[Tensor, SampleSettings], Tensor] = sample,
        eager: bool = False,
        num_drafts: int = 0,
        aux_layers: tuple[int, ...] | None = None,
    ):
        self._own_sampler = sample_fn is sample
        chosen = sample_on_device if self._own_sampler else lambda logits, s: sample_fn(logits, s.to(logits.device))
        super().__init__(model, kv_cache, batch, chosen)
        rows = len(batch.tokens)
        self.recent = torch.zeros(1 + num_drafts, rows + 1, dtype=torch.int64, device=self.device)
        self.last_drawn = self.recent[0]
        sizes = batch_sizes(rows, num_drafts)
        self.step = DecodeStep(model, kv_cache, batch, self.recent, sizes[-1], aux_layers)
        self.graphs = DecodeGraphs(self.step, sizes, eager or self.device.type != "cuda")
        self.graphs.capture()
        self.landings = Landings(self.device)
        self.seen = DeviceCounts(rows, model.config.vocab_size, self.device, self._put)
        batch.sampling.counts_on_device = True

    @torch.inference_mode()
    def collect(self, ticket: Ticket) -> StepResult:
        """Features in static memory are gone once another step is launched: a draft head goes without."""
        seen = {} if self.speculation is None else self.speculation.see_drafts(ticket.batch)
        if ticket.features is not None and ticket.batch is not self._newest and self.step.holds(ticket.features):
            ticket = replace(ticket, features=None)
        result = super().collect(ticket)
        return replace(result, verified=seen) if seen else result

    def _launch(self, batch: StepBatch) -> Ticket:
        count = len(batch.ids)
        if count > self.step.size or not self._draws_everywhere(batch):
            self.step.grow_tables(self.batch.grown)
            return super()._launch(batch)
        size, state, rows = self.graphs.size_for(count), self.batch.sampling, batch.rows[batch.sampling]
        state.start_masks(rows, self.model.config.vocab_size)
        self.step.fill(batch, state, self.batch.grown, size)
        drawn = self.graphs.run(size)
        features = None if drawn.features is None else drawn.features[:count]
        if self._plain(batch, rows):
            ids = drawn.ids[:count]
            return Ticket(batch, ids, self._land(ids), features=features)
        ticket = self._sample(batch, drawn.logits[:count], NOTHING_TOLD)
        self.last_drawn[self._put(rows)] = ticket.sampled
        return replace(ticket, features=features)

    def _draws_everywhere(self, batch: StepBatch) -> bool:
        """Every sequence computes its last known token, and drafts after it, and draws after each."""
        return len(batch.sampling) == len(batch.ids) and not self.batch.sampling.prompt_logprobs

    def _plain(self, batch: StepBatch, rows: NDArray[np.int64]) -> bool:
        """Whether the draw inside a graph is all there is to do; rows: [S] those that sample."""
        judged = batch.drafts and self.speculation is not None and self.speculation.rule.verify is not None
        return self._own_sampler and not judged and bool(self.batch.sampling.plain[rows].all())

    def _ids(self, batch: StepBatch) -> Tensor:
        ids, drafted = super()._ids(batch), np.flatnonzero(batch.ids < UNKNOWN)
        if len(drafted):
            rows = batch.rows[np.searchsorted(batch.starts, drafted, side="right") - 1]
            ids[self._put(drafted)] = self.recent[self._put(UNKNOWN - batch.ids[drafted]), self._put(rows)]
        return ids

    def _sample(self, batch: StepBatch, logits: Tensor, told: ToldOfPrompts) -> Ticket:
        state, rows = self.batch.sampling, batch.rows[batch.sampling]
        if not self._plain(batch, rows):
            ticket = super()._sample(batch, logits, told)
            self.seen.count(rows, ticket.sampled, state)
            return ticket
        ids = self.sample(logits, state.settings(rows, batch.drawn_at))
        return Ticket(batch, ids, self._land(ids), told=told)

    def _draw_again(self, logits: Tensor, settings: SampleSettings, rows: NDArray[np.int64], sampled: Tensor) -> None:
        """It waits for what was drawn, so it is left out where no guide has to close its text."""
        if any(constraints.closes for constraints in self.batch.sampling.constraints.values()):
            super()._draw_again(logits, settings, rows, sampled)

    def _edit(self, logits: Tensor, edits: LogitEdits) -> None:
        edit_on_device(logits, edits)

    def _penalize(self, logits: Tensor, rows: NDArray[np.int64]) -> None:
        self.seen.penalize(logits, rows, self.batch.sampling)

    def _put(self, values: NDArray | Sequence[int] | Tensor) -> Tensor:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _land(self, values: Tensor) -> Landing:
        return self.landings.start(values)

"""Drafts by a small network on a GPU: after a decode step a CUDA graph makes all of them, after prompts plain launches.

The rules are those of :mod:`minillm_serve.runner.drafter`; what differs is where the numbers are, and who waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.attention.backends import KVCache
from minillm_serve.config import ConfigError
from minillm_serve.model.draft_head import DraftNet
from minillm_serve.runner.batch import UNKNOWN, PersistentBatch, StepBatch
from minillm_serve.runner.drafter import INDEPENDENT
from minillm_serve.runner.gpu.draft_step import DraftStep, Part, block_ends
from minillm_serve.runner.gpu.graphs import DecodeGraphs
from minillm_serve.runner.gpu.packed import sent
from minillm_serve.runner.gpu.runner import GPURunner
from minillm_serve.runner.runner import Landing

SIZES = (1, 2, 4, 8)  # requests whose drafts a graph makes: more of them are seldom worth drafting for
NOTHING = -2  # the position before a text's first: no features are kept of it


@dataclass(frozen=True)
class _OfLength:
    """A drafting pass that ends with so many drafts."""

    step: DraftStep
    num_drafts: int

    def launch(self, size: int) -> Tensor:
        return self.step.launch(size, self.num_drafts)


class GPUDrafter:
    """Same contract as :class:`minillm_serve.runner.drafter.Drafter`, for the steps of ``runner``.

    Every draft is the network's likeliest token, also where ``drawing`` is ``coupled``: a deterministic draft stands
    more seldom at a high temperature, and no text is other for it. Raises ConfigError on ``independent``, whose
    probabilities would have to come to the host.

    A step whose features are lost (the next one was launched before it was asked about) leaves a hole, as there.
    Nobody waits for drafts: ``propose`` names them by their numbers (see StepBatch), so that the host plans the next
    step while they are made. ``made`` has the ids.

    num_drafts: of one request, at most. eager: no CUDA graphs.
    """

    def __init__(
        self,
        net: DraftNet,
        kv_cache: KVCache,
        batch: PersistentBatch,
        runner: GPURunner,
        num_drafts: int,
        drawing: str,
        eager: bool = False,
    ):
        if drawing == INDEPENDENT:
            raise ConfigError(
                'draft_sample_method "probabilistic" with rejection_sample_method "standard" is for the CPU\'s '
                'kernels: leave rejection_sample_method out ("match"), or say draft_sample_method "greedy"'
            )
        self.net, self.kv_cache, self.batch, self.runner = net, kv_cache, batch, runner
        self.aux_layers = net.aux_layers
        self.laws: Mapping[int, Tensor] = {}
        self._landing: Landing = np.zeros(0).view
        self._column: dict[
            int, tuple[int, int]
        ] = {}  # request id -> its column of the last drafts, how many are its own
        self._read_up_to: dict[int, int] = {}
        self._observed: StepBatch | None = None
        self._features: Tensor | None = None
        rows, device = len(batch.tokens), runner.device
        self._found: dict[int, int] = {}  # row -> last block of its prefix hit, which may be filled by this very step
        self._last_at = np.full(rows, NOTHING, np.int64)  # by row: of which position the features are kept
        sizes = [*(size for size in SIZES if size < rows), min(rows, SIZES[-1])]
        self.step = DraftStep(net, kv_cache, batch, runner.step, num_drafts, sizes[-1])
        plain = eager or device.type != "cuda"
        self.graphs = [DecodeGraphs(_OfLength(self.step, 1 + k), sizes, plain) for k in range(num_drafts)]
        pool = None if plain else torch.cuda.graph_pool_handle()
        for graphs in reversed(self.graphs):
            graphs.capture(pool)

    def add(self, rid: int, token_ids: Sequence[int]) -> None:
        row = self.batch.row_of(rid)
        computed = self._read_up_to[rid] = int(self.batch.num_computed[row])
        self._last_at[row] = computed - 1 if computed else NOTHING
        self._found.pop(row, None)
        if computed:
            self._found[row] = int(self.batch.tables[row, (computed - 1) // self.batch.block_size])

    def extend(self, rid: int, token_ids: Sequence[int]) -> None:
        """The batch has them already."""

    def drop(self, rid: int) -> None:
        self._read_up_to.pop(rid, None)

    def observe(self, batch: StepBatch, features: Tensor | None) -> None:
        """The step that ``propose`` is then asked about, once its tokens are booked. features: [T, F]; None: lost."""
        self._observed, self._features = batch, features

    @torch.inference_mode()
    def propose(self, limits: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
        parts = self._parts(limits)
        most = max((part.drafts for part in parts), default=0)
        if most and self._fits(parts):
            graphs = self.graphs[most - 1]
            size = graphs.size_for(len(parts))
            self.step.fill(parts, size)
            ids = graphs.run(size)
        else:
            before = None if self._features is None else self._exchange(parts)
            reading = [part for part in parts if part.start < part.stop]
            if not reading:
                return {}
            logits, state = self._read(reading, before)
            parts = [part for part in reading if part.drafts]
            if not parts:
                return {}
            self.step.fill_chain(parts)
            ids = self.step.launch_chain(logits, state, most)
        self._landing = self.runner.landings.start(ids)
        self._column = {part.rid: (column, part.drafts) for column, part in enumerate(parts) if part.drafts}
        return {rid: tuple(range(UNKNOWN - 1, UNKNOWN - 1 - count, -1)) for rid, (_, count) in self._column.items()}

    def made(self) -> dict[int, tuple[int, ...]]:
        """The last drafts, by request: waits for them."""
        drafts = self._landing().T.tolist()
        return {rid: tuple(drafts[column][:count]) for rid, (column, count) in self._column.items()}

    def _parts(self, limits: Mapping[int, int]) -> list[Part]:
        """Who reads what; also nothing, where only features are to be kept. Of a whole model, a decoding request that
        wants no draft reads later, all at once."""
        batch, step, parts = self.batch, self._observed, []
        assert step is not None, "propose follows observe"
        if self.aux_layers is not None and self._features is None:
            return []
        starts, ends, after = step.starts[:-1].tolist(), step.starts[1:].tolist(), step.seq_lens.tolist()
        for rid, begin, end, in_cache in zip(step.rids, starts, ends, after, strict=True):
            if rid not in self._read_up_to:  # gone, or nothing is drawn from it
                continue
            row, first = batch.row_of(rid), in_cache - (end - begin)
            computed, known = min(int(batch.num_computed[row]), in_cache), int(batch.num_tokens[row])
            start, stop = self._read_up_to[rid], computed
            # Slots for the last known token and the drafts after it, but for the last of these.
            room = int(batch.num_blocks[row]) * batch.block_size - known + 1
            drafts = max(min(limits.get(rid, 0), room), 0)
            if self.aux_layers is not None:
                start = max(start, first)
                drafts = drafts if known == computed + 1 else 0  # the features of what was forced are not there yet
            elif not drafts and end - begin == 1:
                continue
            if drafts:
                stop = known
            if start < stop or self.aux_layers is not None:
                follows = bool(self._last_at[row] == first - 1)
                parts.append(Part(rid, row, start, stop, drafts, begin - first, first, computed, follows))
        for part in parts:
            self._read_up_to[part.rid], self._last_at[part.row] = part.stop, part.computed - 1
        return parts

    def _fits(self, parts: Sequence[Part]) -> bool:
        """Whether a graph can read all of it: few requests and tokens, and features where the graph looks for them."""
        few = len(parts) <= self.step.size and all(part.stop - part.start <= self.step.width for part in parts)
        if self._features is None:
            return few
        here = self.runner.step.holds(self._features)
        return few and here and not any(part.row in self._found for part in parts)

    def _read(self, parts: Sequence[Part], before: Tensor | None) -> tuple[Tensor, Tensor]:
        """A pass over any number of tokens: logits and state after the last of each part that wants drafts."""
        batch, size, lengths = self.batch, self.batch.block_size, [part.stop - part.start for part in parts]
        rows = np.array([part.row for part in parts])
        row_of_token = np.repeat(rows, lengths)
        positions = np.concatenate([np.arange(part.start, part.stop) for part in parts])
        slots = batch.tables[row_of_token, positions // size] * size + positions % size
        tables = batch.tables[rows, : batch.num_blocks[rows].max()]
        attention = self.kv_cache.plan(self._put(slots), self._put(tables), [part.stop for part in parts], lengths)
        last = np.cumsum(lengths)[[place for place, part in enumerate(parts) if part.drafts]] - 1
        ids = self._put(batch.tokens[row_of_token, positions].astype(np.int64))
        return self.net.first(ids, self._put(positions), attention, self._put(last), before)

    def _exchange(self, parts: Sequence[Part]) -> Tensor:
        """Keep the features that a later step may need: those of each full block's last token, and of each row's last
        computed one. Returns those of the position before each token that is read now, [T, F]."""
        features, block_size = self._features, self.batch.block_size
        ends = [block_ends(part, block_size) for part in parts]
        places = np.concatenate([at + part.offset for part, at in zip(parts, ends, strict=True)]) if parts else []
        if len(places):
            blocks = [self.batch.tables[p.row, at // block_size] for p, at in zip(parts, ends, strict=True)]
            self.step.of_block[self._put(np.concatenate(blocks))] = features[self._put(places)]
        for part in parts:
            if (block := self._found.pop(part.row, None)) is not None:
                self._kept(part.row).copy_(self.step.of_block[block])
        before = self._before(parts)
        for part in parts:
            self._kept(part.row).copy_(features[part.computed - 1 + part.offset])
        return before

    def _before(self, parts: Sequence[Part]) -> Tensor:
        nowhere, lengths = -1, [part.stop - part.start for part in parts]
        places = np.concatenate([np.zeros(0, np.int64), *(self.step.before(part, nowhere, nowhere) for part in parts)])
        before = self._features[self._put(np.maximum(places, 0))]  # of the first ones, some row: they come next
        begins = np.cumsum(lengths) - lengths
        at = [(begin, part) for begin, part in zip(begins.tolist(), parts, strict=True) if part.start == part.first]
        if at:
            kept = [self.step.kept_at + part.row if part.follows else self.step.zero for _, part in at]
            before[self._put([begin for begin, _ in at])] = self.runner.step.features[self._put(kept)]
        return before

    def _kept(self, row: int) -> Tensor:
        return self.runner.step.features[self.step.kept_at + row]

    def _put(self, values: NDArray | Iterable[int]) -> Tensor:
        return sent(np.asarray(values, np.int64), self.runner.device)

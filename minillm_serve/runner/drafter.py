"""Drafts by a small network: one pass over what the target has just computed, then a token at a time.

The network's keys and values lie in the same blocks and slots as the target's, in layers of their own. So a block that
is shared, found again or given back is so for both, and nothing has to be kept in step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.attention.backends import KVCache, PagedAttention
from minillm_serve.model.draft_head import DraftNet
from minillm_serve.runner.batch import PersistentBatch, StepBatch
from minillm_serve.sample.rejection import probabilities
from minillm_serve.sample.sampler import sample
from minillm_serve.spec.length import DraftLength

GREEDY, COUPLED, INDEPENDENT = "greedy", "coupled", "independent"
OWN_NOISE = 0x5DEECE66D  # sets the drafts' noise apart from the target's


@dataclass(frozen=True)
class _Part:
    """One request's share of the first pass: positions from ``start`` to ``stop`` of its batch row, perhaps none.

    index: among the step's sequences; first: the step's first position of it. computed: tokens that the target has
    computed, none that a step ahead will. drafts: tokens to propose; 0: the network only reads.
    """

    rid: int
    row: int
    index: int
    first: int
    start: int
    stop: int
    computed: int
    drafts: int


@dataclass(frozen=True)
class _Growing:
    """The requests that still draft, and where all the tokens go that they may yet draft from.

    number: drafts that each has. positions, slots: [most, R] by number, of the draft that is read to make another;
    tables: [R, blocks].
    """

    parts: Sequence[_Part]
    number: int
    positions: Tensor
    slots: Tensor
    tables: Tensor

    @classmethod
    def of(cls, parts: Sequence[_Part], batch: PersistentBatch) -> _Growing:
        """Before the first draft is made."""
        rows, size = np.array([part.row for part in parts]), batch.block_size
        # Behind its last draft a request has no slots: nothing is read there, and the last one stands in.
        ends = np.array([part.stop + part.drafts - 2 for part in parts])
        before = np.array([part.stop - 1 for part in parts])
        positions = np.minimum(before + np.arange(max(part.drafts for part in parts))[:, None], ends)
        slots = batch.tables[rows, positions // size] * size + positions % size
        tables = batch.tables[rows, : batch.num_blocks[rows].max()]
        return cls(parts, 0, _put(positions), _put(slots), _put(tables))

    def next(self) -> _Growing:
        return replace(self, number=self.number + 1)

    def only(self, kept: Tensor) -> _Growing:
        """kept: indices among the requests."""
        parts = [self.parts[place] for place in kept.tolist()]
        return replace(
            self, parts=parts, positions=self.positions[:, kept], slots=self.slots[:, kept], tables=self.tables[kept]
        )

    def step(self, cache: KVCache) -> tuple[Tensor, PagedAttention, Tensor]:
        """Positions, attention and the indices of all requests, for a pass over the newest draft of each."""
        count, seq_lens = len(self.parts), [part.stop + self.number for part in self.parts]
        attention = cache.plan(self.slots[self.number], self.tables, seq_lens, [1] * count)
        return self.positions[self.number], attention, torch.arange(count)


class Drafter:
    """A proposer (see :mod:`minillm_serve.spec.proposer`) that is shown every step of the target.

    What a head makes of position i rests on the target's features of position i - 1. Of a request's last computed token
    they are kept, and of the last token of every block, where a later request may go on after a prefix hit. A position
    that was missed (steps that ran ahead) leaves a hole: that costs acceptance, never correctness.

    drawing: ``greedy``, the likeliest token; ``coupled``, drawn as the target draws, with the very noise that it will
    use, so that they agree more often (arXiv:2408.07978); ``independent``, drawn with noise of their own: then ``laws``
    tells what from.

    lengths: asked after each draft whether another would pay, with the probability that the network gives the draft
    where it is the likeliest token.
    """

    def __init__(
        self,
        net: DraftNet,
        kv_cache: KVCache,
        batch: PersistentBatch,
        num_blocks: int,
        drawing: str,
        lengths: DraftLength,
        dtype: torch.dtype = torch.float32,
    ):
        self.net, self.kv_cache, self.batch, self.drawing = net, kv_cache, batch, drawing
        self.lengths = lengths
        self.aux_layers = net.aux_layers
        self.laws: dict[int, Tensor] = {}  # request id -> [drafts, vocab] probabilities that its drafts were drawn from
        self._read_up_to: dict[int, int] = {}
        self._step: StepBatch | None = None
        self._features: Tensor | None = None
        self._found: dict[int, int] = {}  # row -> last block of its prefix hit, perhaps of this very step
        self._last_at = np.full(len(batch.tokens), -1, np.int64)  # by row: of which position the features are kept
        width = 0 if net.aux_layers is None else (len(net.aux_layers) + 1) * net.config.hidden_size
        self._of_last = torch.zeros(len(batch.tokens), width, dtype=dtype)
        self._of_block = torch.zeros(num_blocks if width else 0, width, dtype=dtype)

    def add(self, rid: int, token_ids: Sequence[int]) -> None:
        row = self.batch.row_of(rid)
        computed = self._read_up_to[rid] = int(self.batch.num_computed[row])
        self._last_at[row] = computed - 1
        self._of_last[row] = 0.0
        if computed:
            self._found[row] = int(self.batch.tables[row, (computed - 1) // self.batch.block_size])
        else:
            self._found.pop(row, None)

    def extend(self, rid: int, token_ids: Sequence[int]) -> None:
        """The batch has them already."""

    def drop(self, rid: int) -> None:
        self._read_up_to.pop(rid, None)
        self.laws.pop(rid, None)

    def observe(self, batch: StepBatch, features: Tensor | None) -> None:
        """The step that ``propose`` is then asked about, once its tokens are booked. features: [T, F]."""
        self._step, self._features = batch, features

    @torch.inference_mode()
    def propose(self, limits: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
        self.laws = {}
        every = self._parts(limits)
        parts = [part for part in every if part.start < part.stop]
        before = None
        if self._features is not None:
            self._keep_blocks(every)
            before = self._before(parts) if parts else None
            self._keep_last(every)
        if not parts:
            return {}
        lengths = [part.stop - part.start for part in parts]
        rows = np.array([part.row for part in parts])
        row_of_token = np.repeat(rows, lengths)
        positions = np.concatenate([np.arange(part.start, part.stop) for part in parts])
        drafting = [place for place, part in enumerate(parts) if part.drafts]
        attention = self._attention(rows, row_of_token, positions, [part.stop for part in parts], lengths)
        ids = self.batch.tokens[row_of_token, positions].astype(np.int64)
        last = np.cumsum(lengths)[drafting] - 1
        logits, state = self.net.first(_put(ids), _put(positions), attention, _put(last), before)
        for part in parts:
            self._read_up_to[part.rid] = part.stop
        return self._go_on([parts[place] for place in drafting], logits, state) if drafting else {}

    def _parts(self, limits: Mapping[int, int]) -> list[_Part]:
        batch, step, parts = self.batch, self._step, []
        assert step is not None, "propose follows observe"
        counts = np.diff(step.starts)
        for index, rid in enumerate(step.rids):
            if rid not in self._read_up_to:  # gone, or nothing is drawn from it
                continue
            row, first = batch.row_of(rid), int(step.seq_lens[index] - counts[index])
            computed = min(int(batch.num_computed[row]), int(step.seq_lens[index]))
            known = int(batch.num_tokens[row])
            start, stop = self._read_up_to[rid], computed
            # Slots for the last known token and the drafts after it, but for the last of these.
            room = int(batch.num_blocks[row]) * batch.block_size - known + 1
            drafts = min(limits.get(rid, 0), room)
            if self.aux_layers is not None:
                start = max(start, first)
                drafts = drafts if known == computed + 1 else 0  # the features of what was forced are not there yet
            if drafts > 0:
                stop = known
            parts.append(_Part(rid, row, index, first, start, stop, computed, max(drafts, 0)))
        return parts

    def _attention(
        self,
        rows: NDArray[np.int64],
        row_of_token: NDArray[np.int64],
        positions: NDArray[np.int64],
        seq_lens: Sequence[int],
        query_lens: Sequence[int],
    ) -> PagedAttention:
        batch, size = self.batch, self.batch.block_size
        slots = batch.tables[row_of_token, positions // size] * size + positions % size
        tables = batch.tables[rows, : batch.num_blocks[rows].max()]
        return self.kv_cache.plan(_put(slots), _put(tables), seq_lens, query_lens)

    def _before(self, parts: Sequence[_Part]) -> Tensor:
        """[T, F]: features of the position before each. Those before a step's first position were kept."""
        step = self._step
        kept, places = [], []
        for part in parts:
            places.append(np.arange(part.start - 1, part.stop - 1) - part.first + step.starts[part.index])
            if part.start == part.first:
                places[-1][0] = len(self._features) + len(kept)
                known = self._last_at[part.row] == part.first - 1
                kept.append(self._of_last[part.row] if known else torch.zeros_like(self._of_last[0]))
        source = torch.cat((self._features, torch.stack(kept))) if kept else self._features
        return source[_put(np.concatenate(places))]

    def _keep_blocks(self, parts: Sequence[_Part]) -> None:
        """The features of the last token of every block that this step has filled; then of those that were found."""
        batch, size, step = self.batch, self.batch.block_size, self._step
        for part in parts:
            offset = int(step.starts[part.index]) - part.first
            ends = np.arange(part.first // size * size + size - 1, part.computed, size)
            if len(ends):
                self._of_block[_put(batch.tables[part.row, ends // size])] = self._features[_put(offset + ends)]
        for row, block in self._found.items():
            self._of_last[row] = self._of_block[block]
        self._found = {}

    def _keep_last(self, parts: Sequence[_Part]) -> None:
        """The features of each row's last computed token: the next step may begin behind it."""
        for part in parts:
            offset = int(self._step.starts[part.index]) - part.first
            self._of_last[part.row] = self._features[offset + part.computed - 1]
            self._last_at[part.row] = part.computed - 1

    def _go_on(self, parts: Sequence[_Part], logits: Tensor, state: Tensor) -> dict[int, tuple[int, ...]]:
        """Each token from the one before, until every request has as many as it may, or as pay."""
        drafts: dict[int, list[int]] = {part.rid: [] for part in parts}
        laws: dict[int, list[Tensor]] = {part.rid: [] for part in parts}
        chains, growing = self.lengths.chains(), _Growing.of(parts, self.batch)
        while True:
            parts = growing.parts
            ids, law, confidences = self._draw(logits, parts, growing.number, chains is not None)
            for place, (part, token) in enumerate(zip(parts, ids.tolist(), strict=True)):
                drafts[part.rid].append(token)
                if law is not None:
                    laws[part.rid].append(law[place])
            growing = growing.next()
            going = [part.drafts > growing.number for part in parts]
            if chains is not None:
                worth, going = chains.grown([part.rid for part in parts], going, confidences)
                for part, stays in zip(parts, worth, strict=True):
                    if not stays:
                        drafts[part.rid].pop()
            if not any(going):
                break
            if not all(going):
                kept = _put(np.flatnonzero(going))
                growing, ids, state = growing.only(kept), ids[kept], state[kept]
            positions, attention, every = growing.step(self.kv_cache)
            logits, state = self.net.further(ids, positions, attention, every, state)
        self.laws = {rid: torch.stack(rows) for rid, rows in laws.items() if rows}
        return {rid: tuple(tokens) for rid, tokens in drafts.items() if tokens}

    def _draw(
        self, logits: Tensor, parts: Sequence[_Part], number: int, confident: bool
    ) -> tuple[Tensor, Tensor | None, list[float] | None]:
        """logits: [R, D] -> target ids [R]; what they were drawn from, [R, vocab], where that is wanted; and, of the
        likeliest tokens, their probabilities, if ``confident``."""
        state, rows = self.batch.sampling, np.array([part.row for part in parts])
        token_map = self.net.token_map
        if self.drawing == GREEDY or (self.drawing == COUPLED and not state.temperature[rows].any()):
            ids = self.kv_cache.ops.argmax(logits)
            confidences = torch.softmax(logits.float(), -1).amax(-1).tolist() if confident else None
            return ids if token_map is None else token_map[ids], None, confidences
        whole = logits.float()
        if token_map is not None:
            whole = whole.new_full((len(logits), self.net.config.vocab_size), float("-inf"))
            whole[:, token_map] = logits.float()
        settings = state.settings(rows, np.array([part.stop + number for part in parts]))
        if self.drawing == COUPLED:
            return sample(whole, settings), None, None
        settings = replace(settings, seeds=settings.seeds ^ OWN_NOISE)
        return sample(whole, settings), probabilities(whole, settings), None


def _put(values: NDArray | Sequence[int]) -> Tensor:
    return torch.as_tensor(values)

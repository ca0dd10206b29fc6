"""The persistent batch: one row of flat numpy arrays per request on the runner, changed only by each plan's deltas."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from minillm_serve.plan import RequestInit, StepPlan, StepResult, TokenLogprobs
from minillm_serve.runner.guide import Guide
from minillm_serve.runner.sampling_state import SamplingState
from minillm_serve.runner.verify import verify


@dataclass(frozen=True)
class StepBatch:
    """One step laid flat. T tokens of B sequences; S tokens are drawn at the end of the step: one of each sequence
    whose known tokens are then all in, and one more after each draft that it verifies.

    ids, positions, slots: [T]; an id of -1 is the one that its row drew last, in a step that has not come back yet; one
    of -1 - i is the i-th of its drafts, which so far the device alone knows.
    rows: [B] batch rows; starts: [B + 1] offsets into T; seq_lens: [B] tokens in cache after the step; tables:
    [B, blocks]; sampling: [S] indices into B, ascending; last: [S] indices into T of the tokens drawn from; drawn_at:
    [S] index of the token drawn. drafts: index into B -> the drafts among its tokens, which are its last ones; ids that
    the host does not know are put in before the step is booked.
    """

    rids: tuple[int, ...]
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    starts: NDArray[np.int64]
    seq_lens: NDArray[np.int64]
    tables: NDArray[np.int64]
    sampling: NDArray[np.int64]
    last: NDArray[np.int64]
    drawn_at: NDArray[np.int64]
    drafts: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptPart:
    """A stretch of one prompt that this step describes. flat: [N] indices into T of the tokens that predict ``tokens``
    [N], which begin at index ``start`` of the prompt; count: likeliest tokens to name (-1: all)."""

    rid: int
    start: int
    flat: NDArray[np.int64]
    tokens: NDArray[np.int32]
    count: int


@dataclass(frozen=True)
class ToldOfPrompts:
    """What a step says about the prompts in it: see StepResult's ``prompt_logprobs`` and ``pooled``."""

    logprobs: dict[int, tuple[int, tuple[TokenLogprobs, ...]]] = field(default_factory=dict)
    pooled: dict[int, tuple[int, tuple[float, ...]]] = field(default_factory=dict)


NOTHING_TOLD = ToldOfPrompts()
UNKNOWN = -1  # in the place of a token that is drawn and has not come back


@dataclass(frozen=True)
class PooledPart:
    """A stretch of one prompt whose hidden states are summed: from index ``start`` on, ``flat``: [N] indices into T."""

    rid: int
    start: int
    flat: NDArray[np.int64]


class PersistentBatch:
    """Runner-side state of up to ``max_num_seqs`` requests. ``guide_for`` gives the guide of a constrained one."""

    def __init__(
        self,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        guide_for: Callable[[RequestInit], Guide] | None = None,
        recompute: bool = False,
        eos_token_ids: Collection[int] = (),
    ):
        self.block_size = block_size
        self.recompute = recompute  # there is no KV cache: every step lays a sequence out from its first token
        self.tokens = np.zeros((max_num_seqs, max_model_len), np.int32)
        self.tables = np.zeros((max_num_seqs, -(-max_model_len // block_size)), np.int64)
        self.num_tokens = np.zeros(max_num_seqs, np.int64)
        self.num_computed = np.zeros(max_num_seqs, np.int64)
        self.num_blocks = np.zeros(max_num_seqs, np.int64)
        self.sampling = SamplingState(max_num_seqs, guide_for, eos_token_ids)
        self.grown: list[tuple[int, int, tuple[int, ...]]] = []  # by the last plan: row, blocks it had, blocks it got
        self._pooled: dict[int, bool] = {}  # rows from which no token is drawn -> whether hidden states are wanted
        self._row: dict[int, int] = {}
        self._owner = np.full(max_num_seqs, -1, np.int64)  # the request of each row
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._row)

    def row_of(self, rid: int) -> int:
        return self._row[rid]

    def apply(self, plan: StepPlan) -> StepBatch:
        """Book a plan's deltas and lay its work out flat."""
        self._remove(plan.finished)
        self._remove(plan.preempted)
        for init in plan.new_requests:
            self._insert(init)
        self.grown = []
        for rid, blocks in (plan.new_blocks or {}).items():
            row = self._row[rid]
            have = int(self.num_blocks[row])
            self.grown.append((row, have, blocks))
            self.tables[row, have : have + len(blocks)] = blocks
            self.num_blocks[row] += len(blocks)
        return self._flatten(plan)

    def runs_free(self, rids: Iterable[int]) -> bool:
        """Whether what these requests compute next hangs on nothing that the host must first learn of their tokens."""
        held = {row for row, constraints in self.sampling.constraints.items() if not constraints.runs_free}
        held.update(self._pooled, self.sampling.prompt_logprobs)
        return not held or held.isdisjoint(self._row[rid] for rid in rids)

    def _insert(self, init: RequestInit) -> None:
        row = self._row[init.rid] = self._free_rows.pop()
        count = len(init.token_ids)
        self._owner[row] = init.rid
        self.tokens[row, :count] = init.token_ids
        self.num_tokens[row], self.num_computed[row], self.num_blocks[row] = count, init.num_computed, 0
        self.sampling.insert(row, init)
        if init.prompt_only:
            self._pooled[row] = init.pooled

    def _remove(self, rids: Iterable[int]) -> None:
        for rid in rids:
            if (row := self._row.pop(rid, None)) is not None:
                self.sampling.remove(row)
                self._pooled.pop(row, None)
                self._owner[row] = -1
                self._free_rows.append(row)

    def _flatten(self, plan: StepPlan) -> StepBatch:
        rids = tuple(plan.num_tokens)
        rows = np.array([self._row[rid] for rid in rids], np.int64)
        counts = np.fromiter(plan.num_tokens.values(), np.int64, len(rids))
        drafts = (
            {index: plan.drafts[rid] for index, rid in enumerate(rids) if rid in plan.drafts} if plan.drafts else {}
        )
        num_drafts = np.zeros_like(counts)
        for index, tokens in drafts.items():
            num_drafts[index], first = len(tokens), self.num_tokens[rows[index]]
            self.tokens[rows[index], first : first + len(tokens)] = tokens
        self.sampling.look_ahead((int(rows[index]), tokens) for index, tokens in drafts.items())
        computed = self.num_computed[rows]
        if self.recompute:
            counts, computed = computed + counts, np.zeros_like(computed)
        starts = np.concatenate(([0], counts.cumsum()))
        row_of_token = np.repeat(rows, counts)
        positions = np.arange(starts[-1]) + np.repeat(computed - starts[:-1], counts)
        blocks = self.tables[row_of_token, positions // self.block_size]
        complete = computed + counts == self.num_tokens[rows] + num_drafts
        if self._pooled:
            complete &= [row not in self._pooled for row in rows.tolist()]
        sampling = np.flatnonzero(complete)
        last, drawn_at = starts[1:][sampling] - 1, self.num_tokens[rows[sampling]]
        if drafts:
            each = num_drafts[sampling] + 1
            nth = np.arange(each.sum()) - np.repeat(each.cumsum() - each, each)
            last, drawn_at = np.repeat(last - each + 1, each) + nth, np.repeat(drawn_at, each) + nth
            sampling = np.repeat(sampling, each)
        return StepBatch(
            rids=rids,
            rows=rows,
            ids=self.tokens[row_of_token, positions].astype(np.int64),
            positions=positions,
            slots=blocks * self.block_size + positions % self.block_size,
            starts=starts,
            seq_lens=computed + counts,
            tables=self.tables[rows, : self.num_blocks[rows].max(initial=0)],
            sampling=sampling,
            last=last,
            drawn_at=drawn_at,
            drafts=drafts,
        )

    def advance(self, batch: StepBatch) -> None:
        """The step is under way: the next one may be laid out, with ids of -1 where this one's draws belong."""
        self.num_computed[batch.rows] = batch.seq_lens
        rows = batch.rows[batch.sampling]
        room = batch.drawn_at < self.tokens.shape[1]  # a request's last token is never computed on
        self.tokens[rows[room], batch.drawn_at[room]] = UNKNOWN
        self.num_tokens[rows] += 1  # once for each row, however often it is named

    def prompt_parts(self, batch: StepBatch) -> list[PromptPart]:
        """What this step tells about prompts whose log-probabilities were asked for. Before ``book``."""
        asked = self.sampling.prompt_logprobs
        parts = []
        for index, row in enumerate(batch.rows.tolist()) if asked else ():
            if row not in asked:
                continue
            count, length = asked[row]
            first, after = int(self.num_computed[row]), int(batch.seq_lens[index])
            stop = min(after, length - 1)  # the prompt's last token predicts no token of the prompt
            flat = np.arange(first, stop) + batch.starts[index + 1] - after
            parts.append(PromptPart(batch.rids[index], first + 1, flat, self.tokens[row, first + 1 : stop + 1], count))
            if after >= length - 1:
                del asked[row]
        return [part for part in parts if len(part.flat)]

    def pooled_parts(self, batch: StepBatch) -> list[PooledPart]:
        """Whose hidden states this step adds up, and where they lie. Before ``book``."""
        parts = []
        for index, row in enumerate(batch.rows.tolist()) if self._pooled else ():
            if self._pooled.get(row):
                first, after = int(self.num_computed[row]), int(batch.seq_lens[index])
                flat = np.arange(first, after) + batch.starts[index + 1] - after
                parts.append(PooledPart(batch.rids[index], first, flat))
        return parts

    def book(
        self,
        batch: StepBatch,
        sampled: NDArray[np.int64],
        forbidden: NDArray[np.bool_] | None = None,
        logprobs: Mapping[int, TokenLogprobs] | None = None,
        told: ToldOfPrompts = NOTHING_TOLD,
    ) -> StepResult:
        """Record what an advanced step drew.

        sampled: [S] ids for ``batch.sampling``; forbidden: [S], where no token was left that the request allows: the
        one drawn all the same must not reach its text. logprobs: index into S -> what is told of the token drawn there.
        """
        rows = batch.rows[batch.sampling]
        theirs = self._owner[rows] == np.array(batch.rids, np.int64)[batch.sampling]  # else: gone, the row is another's
        kept = theirs & (batch.drawn_at < self.tokens.shape[1])
        self.tokens[rows[kept], batch.drawn_at[kept]] = sampled[kept]
        tokens = {batch.rids[at]: (token,) for at, token in zip(batch.sampling.tolist(), sampled.tolist(), strict=True)}
        failed: list[int] = []
        forced: dict[int, int] = {}
        accepted: dict[int, int] = {}
        if self.sampling.constraints or batch.drafts:
            banned = set() if forbidden is None else set(np.flatnonzero(forbidden).tolist())
            before = -1
            for index, (at, row) in enumerate(zip(batch.sampling.tolist(), rows.tolist(), strict=True)):
                named_before, before = at == before, at
                drafts = batch.drafts.get(at, ())
                if named_before or not theirs[index] or not (drafts or row in self.sampling.constraints):
                    continue
                rid = batch.rids[at]
                drawn = [
                    None if place in banned else int(sampled[place]) for place in range(index, index + len(drafts) + 1)
                ]
                new, stand = verify(drawn, drafts, partial(self.sampling.draw, row))
                if not new.tokens:
                    failed.append(rid)
                    continue
                tokens[rid] = new.tokens
                if new.forced:
                    forced[rid] = new.forced
                if drafts:
                    accepted[rid] = stand
                    self.num_computed[row] = batch.seq_lens[at] - len(drafts) + stand
                if drafts or new.forced:
                    self._replace_last(row, new.tokens)
        for rid in failed:
            tokens.pop(rid, None)
        return StepResult(
            tokens, tuple(failed), _told_of(batch, logprobs, tokens), told.logprobs, forced, told.pooled, accepted
        )

    def _replace_last(self, row: int, new: tuple[int, ...]) -> None:
        """One or several tokens in place of the row's last one: the next step computes them all."""
        first = self.num_tokens[row] - 1  # what ``advance`` counted
        self.num_tokens[row] = first + len(new)
        kept = new[: self.tokens.shape[1] - first]
        self.tokens[row, first : first + len(kept)] = kept


def _told_of(
    batch: StepBatch, logprobs: Mapping[int, TokenLogprobs] | None, tokens: Mapping[int, tuple[int, ...]]
) -> dict[int, tuple[TokenLogprobs, ...]]:
    """By request, of its new tokens alone: what was drawn after a draft that fell is nobody's."""
    told: dict[int, tuple[TokenLogprobs, ...]] = {}
    for index, entry in (logprobs or {}).items():
        rid = batch.rids[batch.sampling[index]]
        if len(told.get(rid, ())) < len(tokens.get(rid, ())):
            told[rid] = (*told.get(rid, ()), entry)
    return told

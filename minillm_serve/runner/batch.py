"""The persistent batch: one row of flat numpy arrays per request on the runner, changed only by each plan's deltas."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minillm_serve.plan import RequestInit, StepPlan, StepResult


class Matcher(Protocol):
    """One sequence's position in a grammar (see :mod:`minillm_serve.guided`)."""

    def fill_mask(self) -> NDArray[np.uint32]: ...
    def accept(self, token_id: int) -> bool: ...


class Grammar(Protocol):
    """A compiled constraint, shared by all sequences that ask for the same one."""

    def matcher(self) -> Matcher: ...


@dataclass(frozen=True)
class StepBatch:
    """One step laid flat. T tokens of B sequences; S of the sequences sample a token at the end of the step.

    ids, positions, slots: [T]; rows: [B] batch rows; starts: [B + 1] offsets into T; seq_lens: [B] tokens in cache
    after the step; tables: [B, blocks]; sampling: [S] indices into B whose last known token is computed now.
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


class PersistentBatch:
    """Runner-side state of up to ``max_num_seqs`` requests. ``grammar_for`` gives the compiled grammar of a schema."""

    def __init__(
        self,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        grammar_for: Callable[[str], Grammar] | None = None,
    ):
        self.block_size = block_size
        self.tokens = np.zeros((max_num_seqs, max_model_len), np.int64)
        self.tables = np.zeros((max_num_seqs, -(-max_model_len // block_size)), np.int64)
        self.num_tokens = np.zeros(max_num_seqs, np.int64)
        self.num_computed = np.zeros(max_num_seqs, np.int64)
        self.num_blocks = np.zeros(max_num_seqs, np.int64)
        self.temperature = np.zeros(max_num_seqs, np.float32)
        self.top_k = np.zeros(max_num_seqs, np.int64)
        self.top_p = np.ones(max_num_seqs, np.float32)
        self.seed = np.zeros(max_num_seqs, np.int64)
        self.matchers: dict[int, Matcher] = {}
        self._grammar_for = grammar_for
        self._row: dict[int, int] = {}
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._row)

    def apply(self, plan: StepPlan) -> StepBatch:
        """Book a plan's deltas and lay its work out flat."""
        self._remove(plan.finished)
        self._remove(plan.preempted)
        for init in plan.new_requests:
            self._insert(init)
        for rid, blocks in (plan.new_blocks or {}).items():
            row = self._row[rid]
            have = self.num_blocks[row]
            self.tables[row, have : have + len(blocks)] = blocks
            self.num_blocks[row] += len(blocks)
        return self._flatten(plan)

    def _insert(self, init: RequestInit) -> None:
        row = self._row[init.rid] = self._free_rows.pop()
        count = len(init.token_ids)
        self.tokens[row, :count] = init.token_ids
        self.num_tokens[row], self.num_computed[row], self.num_blocks[row] = count, 0, 0
        params = init.params
        self.temperature[row], self.top_k[row], self.top_p[row] = params.temperature, params.top_k, params.top_p
        self.seed[row] = init.seed
        if params.structured_outputs is not None:
            if self._grammar_for is None:
                raise ValueError("this runner was built without guided decoding")
            matcher = self._grammar_for(params.structured_outputs.json_text()).matcher()
            for token in init.token_ids[init.num_prompt_tokens :]:  # resumed after preemption: walk there again
                matcher.accept(token)
            self.matchers[row] = matcher

    def _remove(self, rids: Iterable[int]) -> None:
        for rid in rids:
            if (row := self._row.pop(rid, None)) is not None:
                self.matchers.pop(row, None)
                self._free_rows.append(row)

    def _flatten(self, plan: StepPlan) -> StepBatch:
        rids = tuple(plan.num_tokens)
        rows = np.array([self._row[rid] for rid in rids], np.int64)
        counts = np.fromiter(plan.num_tokens.values(), np.int64, len(rids))
        starts = np.concatenate(([0], counts.cumsum()))
        computed = self.num_computed[rows]
        row_of_token = np.repeat(rows, counts)
        positions = np.arange(starts[-1]) + np.repeat(computed - starts[:-1], counts)
        blocks = self.tables[row_of_token, positions // self.block_size]
        return StepBatch(
            rids=rids,
            rows=rows,
            ids=self.tokens[row_of_token, positions],
            positions=positions,
            slots=blocks * self.block_size + positions % self.block_size,
            starts=starts,
            seq_lens=computed + counts,
            tables=self.tables[rows, : self.num_blocks[rows].max(initial=0)],
            sampling=np.flatnonzero(computed + counts == self.num_tokens[rows]),
        )

    def book(self, batch: StepBatch, sampled: NDArray[np.int64]) -> StepResult:
        """Record a finished step. sampled: [S] ids for ``batch.sampling``."""
        self.num_computed[batch.rows] = batch.seq_lens
        rows = batch.rows[batch.sampling]
        room = self.num_tokens[rows] < self.tokens.shape[1]  # a request's last token is never computed on
        self.tokens[rows[room], self.num_tokens[rows[room]]] = sampled[room]
        self.num_tokens[rows] += 1
        tokens, failed = {}, []
        for index, row, token in zip(batch.sampling, rows.tolist(), sampled.tolist(), strict=True):
            rid = batch.rids[index]
            # An empty mask lets no token through; the one drawn all the same must not reach the text.
            if row in self.matchers and not self.matchers[row].accept(token):
                failed.append(rid)
            else:
                tokens[rid] = (token,)
        return StepResult(tokens, tuple(failed))

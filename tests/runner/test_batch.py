"""The persistent batch lays out exactly what a loop over requests and tokens would, whatever came before."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit, StepPlan
from minillm_serve.runner.batch import PersistentBatch

BLOCK_SIZE, MAX_LEN, MAX_SEQS = 4, 40, 6


@dataclass
class Known:
    """A request as a list would keep it."""

    tokens: list[int]
    prompt: int
    asked: int | None
    computed: int = 0
    table: tuple[int, ...] = ()


class Driver:
    """Plays the scheduler at random: admits, chunks, decodes, finishes, preempts and resumes."""

    def __init__(self, seed: int, recompute: bool):
        self.random = random.Random(seed)
        self.running: dict[int, Known] = {}
        self.preempted: dict[int, Known] = {}
        self.blocks = iter(range(10**6))
        self.rids = iter(range(10**6))
        self.recompute = recompute
        self.batch = PersistentBatch(MAX_SEQS, MAX_LEN, BLOCK_SIZE, recompute=recompute)

    def plan(self, step: int) -> StepPlan:
        draw = self.random
        leaving = [rid for rid in self.running if draw.random() < 0.1]
        finished = tuple(rid for rid in leaving if draw.random() < 0.5 or len(self.running[rid].tokens) == MAX_LEN)
        full = [rid for rid, known in self.running.items() if len(known.tokens) > MAX_LEN]
        finished = tuple(dict.fromkeys((*finished, *full)))
        preempted = tuple(rid for rid in leaving if rid not in finished)
        for rid in finished:
            del self.running[rid]
        for rid in preempted:
            self.preempted[rid] = self.running.pop(rid)
        new = []
        while len(self.running) < MAX_SEQS and draw.random() < 0.5:
            new.append(self.admit())
        num_tokens, new_blocks = {}, {}
        for rid, known in self.running.items():
            if rid not in [init.rid for init in new] and draw.random() < 0.2:
                continue
            num_tokens[rid] = draw.randint(1, len(known.tokens) - known.computed)
            need = -(-(known.computed + num_tokens[rid]) // BLOCK_SIZE) - len(known.table)
            own = tuple(next(self.blocks) for _ in range(max(need, 0)))
            hit = new_blocks.get(rid, known.table if rid in [init.rid for init in new] else ())
            known.table += own
            if hit or own:
                new_blocks[rid] = hit + own
        return StepPlan(step, num_tokens, tuple(new), new_blocks, finished, preempted)

    def admit(self) -> RequestInit:
        draw = self.random
        if self.preempted and draw.random() < 0.7:
            rid, known = self.preempted.popitem()
        else:
            rid, length = next(self.rids), draw.randint(1, 20)
            known = Known([draw.randrange(1000) for _ in range(length)], length, draw.choice([None, None, 0, 3]))
        hit = draw.randint(0, (len(known.tokens) - 1) // BLOCK_SIZE) if known.asked is None else 0
        known.computed, known.table = hit * BLOCK_SIZE, tuple(next(self.blocks) for _ in range(hit))
        self.running[rid] = known
        params = SamplingParams(prompt_logprobs=known.asked)
        return RequestInit(rid, tuple(known.tokens), known.prompt, params, 0, known.computed)

    def step(self, step: int) -> None:
        plan = self.plan(step)
        got = self.batch.apply(plan)
        self.check_layout(plan, got)
        self.check_prompt_parts(plan, got)
        expected = {}
        for rid, count in plan.num_tokens.items():
            known = self.running[rid]
            known.computed += count
            if known.computed == len(known.tokens):
                known.tokens.append(self.random.randrange(1000))
                expected[rid] = (known.tokens[-1],)
        sampled = [token for (token,) in expected.values()]
        self.batch.advance(got)
        result = self.batch.book(got, np.array(sampled, np.int64))
        assert result.tokens == expected
        assert len(self.batch) == len(self.running)

    def check_layout(self, plan, got) -> None:
        assert got.rids == tuple(plan.num_tokens)
        ids, positions, slots, starts = [], [], [], [0]
        for rid, count in plan.num_tokens.items():
            known = self.running[rid]
            for position in range(0 if self.recompute else known.computed, known.computed + count):
                ids.append(known.tokens[position])
                positions.append(position)
                slots.append(known.table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE)
            starts.append(len(ids))
        assert (got.ids.tolist(), got.positions.tolist(), got.slots.tolist()) == (ids, positions, slots)
        assert got.starts.tolist() == starts
        for index, (rid, count) in enumerate(plan.num_tokens.items()):
            known = self.running[rid]
            assert got.seq_lens[index] == known.computed + count
            assert tuple(got.tables[index, : len(known.table)].tolist()) == known.table
        ends = [self.running[rid].computed + count for rid, count in plan.num_tokens.items()]
        known = [len(self.running[rid].tokens) for rid in plan.num_tokens]
        assert got.sampling.tolist() == np.flatnonzero(np.array(ends) == known).tolist()

    def check_prompt_parts(self, plan, got) -> None:
        """Each prompt token after the first is described by the position before it, in the step that computes that."""
        parts = {part.rid: part for part in self.batch.prompt_parts(got)}
        for rid, count in plan.num_tokens.items():
            known = self.running[rid]
            described = range(known.computed + 1, min(known.computed + count, known.prompt - 1) + 1)
            if known.asked is None or not described:
                assert rid not in parts
                continue
            part = parts.pop(rid)
            assert (part.start, part.count) == (described.start, known.asked)
            assert part.tokens.tolist() == [known.tokens[position] for position in described]
            assert got.positions[part.flat].tolist() == [position - 1 for position in described]
            index = got.rids.index(rid)
            assert ((got.starts[index] <= part.flat) & (part.flat < got.starts[index + 1])).all()
        assert not parts


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_layout_equals_its_definition_through_any_history(seed, recompute):
    driver = Driver(seed, recompute)
    for step in range(60):
        driver.step(step)


def test_a_forbidden_draw_fails_its_own_request_alone():
    batch = PersistentBatch(2, MAX_LEN, BLOCK_SIZE)
    banned = SamplingParams(allowed_token_ids=[5])
    inits = (RequestInit(0, (1, 2), 2, banned, 0), RequestInit(1, (3,), 1, SamplingParams(), 0))
    got = batch.apply(StepPlan(1, {0: 2, 1: 1}, inits, {0: (0,), 1: (1,)}))
    batch.advance(got)
    result = batch.book(got, np.array([9, 9]), forbidden=np.array([True, False]))
    assert (result.failed, result.tokens) == ((0,), {1: (9,)})

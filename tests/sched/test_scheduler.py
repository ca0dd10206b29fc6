"""Any workload on any pool: all finish, with the tokens they would get alone; no memory is shared or lost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.kv.manager import KVManager
from minillm_serve.params import SamplingParams
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import FinishReason, Request
from minillm_serve.sched.scheduler import Scheduler

EOS = 3


def next_token(context: Sequence[int]) -> int:
    """The oracle "model": the next token is a hash of everything before it."""
    return hashlib.blake2b(bytes(context), digest_size=1).digest()[0] % 64


def alone(prompt: Sequence[int], max_tokens: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens and (len(tokens) == len(prompt) or tokens[-1] != EOS):
        tokens.append(next_token(tokens))
    return tokens


@dataclass
class OracleRunner:
    """Runs plans on a shadow of the KV memory: slot -> (request, position, token). It sees only what a runner sees."""

    block_size: int
    tokens: dict[int, list[int]] = field(default_factory=dict)
    computed: dict[int, int] = field(default_factory=dict)
    tables: dict[int, list[int]] = field(default_factory=dict)
    memory: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def slot(self, rid: int, position: int) -> int:
        return self.tables[rid][position // self.block_size] * self.block_size + position % self.block_size

    def execute(self, plan: StepPlan) -> StepResult:
        for rid in plan.finished + plan.preempted:
            for state in (self.tokens, self.computed, self.tables):
                state.pop(rid)
        for init in plan.new_requests:
            self.tokens[init.rid], self.computed[init.rid], self.tables[init.rid] = list(init.token_ids), 0, []
        for rid, blocks in (plan.new_blocks or {}).items():
            self.tables[rid].extend(blocks)
        written: set[int] = set()
        sampled = {}
        for rid, count in plan.num_tokens.items():
            start = self.computed[rid]
            for position in range(start, start + count):
                slot = self.slot(rid, position)
                assert slot not in written, "two writers of one slot in one step"
                written.add(slot)
                self.memory[slot] = (rid, position, self.tokens[rid][position])
            self.computed[rid] = start + count
        for rid in plan.num_tokens:  # after all writes, as on a real device
            context = []
            for position in range(self.computed[rid]):
                owner, at, token = self.memory[self.slot(rid, position)]
                assert (owner, at) == (rid, position), "a request's memory was overwritten by another"
                context.append(token)
            if self.computed[rid] == len(self.tokens[rid]):
                token = next_token(context)
                self.tokens[rid].append(token)
                sampled[rid] = (token,)
        return StepResult(sampled)


def make_request(rid: int, prompt: Sequence[int], max_tokens: int, **params: object) -> Request:
    return Request(
        rid=rid,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        params=SamplingParams(max_tokens=max_tokens, **params),
        max_total_tokens=len(prompt) + max_tokens,
        eos_token_ids=frozenset([EOS]),
        seed=0,
    )


workloads = st.lists(
    st.tuples(st.lists(st.integers(0, 63), min_size=1, max_size=24), st.integers(1, 12), st.integers(0, 20)),
    min_size=1,
    max_size=10,
)


@settings(max_examples=400, deadline=None)
@given(
    workload=workloads,
    block_size=st.sampled_from([1, 2, 3, 4, 8]),
    spare_blocks=st.integers(0, 6),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(1, 40),
    abort=st.dictionaries(st.integers(0, 9), st.integers(0, 25), max_size=3),
)
def test_every_request_finishes_with_the_tokens_it_would_get_alone(
    workload, block_size, spare_blocks, max_num_seqs, budget, abort
):
    """Tiny pools force preemption; outputs must not notice. abort: request -> step at which it is aborted."""
    longest = max(len(prompt) + max_tokens for prompt, max_tokens, _ in workload)
    kv = KVManager(-(-longest // block_size) + spare_blocks, block_size)
    scheduler = Scheduler(kv, max_num_seqs, budget)
    runner = OracleRunner(block_size)
    requests = [make_request(i, prompt, n) for i, (prompt, n, _) in enumerate(workload)]
    arrivals = {i: arrival for i, (_, _, arrival) in enumerate(workload)}

    for step in range(10_000):
        for i, arrival in arrivals.items():
            if arrival == step:
                scheduler.add(requests[i])
        for i, when in abort.items():
            if when == step and i < len(requests) and arrivals[i] <= step:
                scheduler.finish([i], FinishReason.ABORT)
        if not scheduler.has_work() and all(arrival <= step for arrival in arrivals.values()):
            break
        plan = scheduler.schedule()
        assert plan.total_tokens <= budget and len(plan.num_tokens) <= max_num_seqs
        assert all(count > 0 for count in plan.num_tokens.values())
        scheduler.update(plan, runner.execute(plan))
        kv.check()
    else:
        pytest.fail("the scheduler never came to rest")

    assert kv.num_free_blocks == kv.num_blocks, "blocks leaked"
    for request, (prompt, max_tokens, _) in zip(requests, workload, strict=True):
        expected = alone(prompt, max_tokens)
        if request.finish_reason is FinishReason.ABORT:
            assert request.token_ids == expected[: request.num_tokens]
        else:
            assert request.token_ids == expected
            ended_by_eos = len(expected) > len(prompt) and expected[-1] == EOS
            assert request.finish_reason is (FinishReason.STOP if ended_by_eos else FinishReason.LENGTH)


def run_all(scheduler: Scheduler, runner: OracleRunner) -> list[StepPlan]:
    plans = []
    while scheduler.has_work():
        plans.append(scheduler.schedule())
        scheduler.update(plans[-1], runner.execute(plans[-1]))
    return plans


def test_the_latest_arrival_gives_way_and_the_oldest_finishes_first():
    scheduler = Scheduler(KVManager(4, 4), max_num_seqs=8, max_num_batched_tokens=64)
    requests = [make_request(i, [10 + i, 20, 30, 40], 12, ignore_eos=True) for i in range(3)]
    for request in requests:
        scheduler.add(request)
    run_all(scheduler, OracleRunner(4))
    finished = [request.metrics.finished for request in requests]
    assert scheduler.num_preemptions > 0
    assert finished == sorted(finished)
    assert requests[0].metrics.num_preemptions == 0


def test_a_long_prompt_is_computed_in_chunks_beside_running_decodes():
    scheduler = Scheduler(KVManager(64, 4), max_num_seqs=8, max_num_batched_tokens=8)
    scheduler.add(make_request(0, [1, 2], 30, ignore_eos=True))
    runner = OracleRunner(4)
    plan = scheduler.schedule()
    scheduler.update(plan, runner.execute(plan))
    scheduler.add(make_request(1, list(range(30)), 2, ignore_eos=True))
    plans = run_all(scheduler, runner)
    assert [plan.num_tokens for plan in plans[:4]] == [{0: 1, 1: 7}, {0: 1, 1: 7}, {0: 1, 1: 7}, {0: 1, 1: 7}]
    assert plans[4].num_tokens == {0: 1, 1: 2}, "the last chunk of the prompt and the decode share a batch"


def test_a_request_that_can_never_fit_is_refused_at_the_door():
    scheduler = Scheduler(KVManager(2, 4), max_num_seqs=8, max_num_batched_tokens=8)
    with pytest.raises(ValueError, match="never fit"):
        scheduler.add(make_request(0, [1] * 6, 3))
    assert not scheduler.has_work()

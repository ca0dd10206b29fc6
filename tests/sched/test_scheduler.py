"""Any workload on any pool: all finish, with the tokens they would get alone; and the rules of a step, one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_traces import Case, make_request, play
from simulator import Device, DeviceError

from minillm_serve.kv.manager import KVManager
from minillm_serve.params import SamplingParams
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import FinishReason, Request
from minillm_serve.sched.scheduler import Scheduler

workloads = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=24), st.integers(1, 12), st.integers(0, 20)),
    min_size=1,
    max_size=10,
)


@settings(max_examples=300, deadline=None)
@given(
    workload=workloads,
    block_size=st.sampled_from([1, 2, 3, 4, 8]),
    spare_blocks=st.integers(0, 6),
    max_num_seqs=st.integers(1, 6),
    budget=st.integers(1, 40),
    caching=st.booleans(),
    batching=st.sampled_from(["continuous", "static"]),
    aborts=st.dictionaries(st.integers(0, 25), st.lists(st.integers(0, 9), max_size=2), max_size=3),
)
def test_every_request_finishes_with_the_tokens_it_would_get_alone(
    workload, block_size, spare_blocks, max_num_seqs, budget, caching, batching, aborts
):
    """The random traces again, drawn so that a failure shrinks to the smallest workload that shows it."""
    arrivals: dict[int, list[Request]] = {}
    for rid, (prompt, max_tokens, step) in enumerate(workload):
        arrivals.setdefault(step, []).append(make_request(rid, prompt, max_tokens))
    longest = max(len(prompt) + max_tokens for prompt, max_tokens, _ in workload)
    kv = KVManager(-(-longest // block_size) + spare_blocks, block_size, enable_prefix_caching=caching)
    scheduler = Scheduler(kv, max_num_seqs, budget, batching=batching)
    play(Case(scheduler, arrivals, vocab=3, aborts=aborts))


def run(scheduler: Scheduler, device: Device, steps: int | None = None) -> list[StepPlan]:
    """Step until nothing is left to do, or ``steps`` times."""
    plans: list[StepPlan] = []
    while scheduler.has_work() and len(plans) != steps:
        plans.append(scheduler.schedule())
        scheduler.update(plans[-1], device.execute(plans[-1]))
        scheduler.check()
    return plans


def engine(num_blocks: int, max_num_seqs: int = 8, budget: int = 64, block_size: int = 4, **options) -> tuple:
    caching = options.pop("enable_prefix_caching", True)
    scheduler = Scheduler(
        KVManager(num_blocks, block_size, enable_prefix_caching=caching), max_num_seqs, budget, **options
    )
    return scheduler, Device(block_size, vocab=64)


def add(scheduler: Scheduler, device: Device, *requests: Request) -> tuple[Request, ...]:
    for request in requests:
        device.salts[request.rid] = request.cache_salt
        scheduler.add(request)
    return requests


def test_the_latest_arrival_gives_way_and_the_oldest_finishes_first():
    scheduler, device = engine(4)
    requests = add(scheduler, device, *(make_request(i, [10 + i, 20, 30, 40], 12, ignore_eos=True) for i in range(3)))
    run(scheduler, device)
    finished = [request.metrics.finished for request in requests]
    assert scheduler.num_preemptions > 0
    assert finished == sorted(finished)
    assert requests[0].metrics.num_preemptions == 0


def test_a_long_prompt_is_computed_in_chunks_beside_running_decodes():
    scheduler, device = engine(64, budget=8)
    add(scheduler, device, make_request(0, [1, 2], 30, ignore_eos=True))
    run(scheduler, device, 1)
    add(scheduler, device, make_request(1, list(range(30)), 2, ignore_eos=True))
    plans = run(scheduler, device)
    assert [plan.num_tokens for plan in plans[:4]] == [{0: 1, 1: 7}] * 4
    assert plans[4].num_tokens == {0: 1, 1: 2}, "the last chunk of the prompt and the decode share a batch"


def test_without_chunking_a_prompt_waits_for_a_step_that_takes_it_whole():
    scheduler, device = engine(64, budget=8, enable_chunked_prefill=False)
    add(scheduler, device, make_request(0, [1, 2], 3, ignore_eos=True))
    run(scheduler, device, 1)
    add(scheduler, device, make_request(1, list(range(8)), 2, True), make_request(2, [5], 2, True))
    plans = run(scheduler, device)
    assert [plan.num_tokens for plan in plans] == [{0: 1}, {0: 1}, {1: 8}, {1: 1, 2: 1}, {2: 1}]
    with pytest.raises(ValueError, match="enable chunked prefill or raise max_num_batched_tokens"):
        scheduler.add(make_request(3, list(range(9)), 1))
    assert not scheduler.has_work()


def test_a_preempted_sequence_longer_than_a_step_comes_back_even_without_chunking():
    scheduler, device = engine(5, budget=6, enable_chunked_prefill=False, enable_prefix_caching=False)
    add(scheduler, device, *(make_request(i, [i, 2, 3], 14, ignore_eos=True) for i in range(2)))
    plans = run(scheduler, device)
    assert scheduler.num_preemptions > 0
    assert max(len(init.token_ids) for plan in plans for init in plan.new_requests) > 6


def test_a_static_batch_admits_nobody_until_its_last_request_has_ended():
    scheduler, device = engine(64, max_num_seqs=2, batching="static")
    add(scheduler, device, *(make_request(i, [i], n, ignore_eos=True) for i, n in enumerate([1, 4, 1, 1, 1])))
    joined = [[init.rid for init in plan.new_requests] for plan in run(scheduler, device)]
    assert joined == [[0, 1], [], [], [], [2, 3], [4]]


def test_a_static_batch_whose_prompts_exceed_a_step_fills_over_several():
    scheduler, device = engine(64, max_num_seqs=3, budget=5, batching="static")
    add(scheduler, device, *(make_request(i, [i] * 4, 9, ignore_eos=True) for i in range(4)))
    joined = [[init.rid for init in plan.new_requests] for plan in run(scheduler, device)]
    assert [rids for rids in joined if rids] == [[0, 1], [2], [3]]
    assert joined[:3] == [[0, 1], [2], []]


def test_samples_of_one_prompt_share_its_full_blocks_in_the_very_step_that_computes_them():
    for caching in (True, False):
        scheduler, device = engine(64, enable_prefix_caching=caching)
        samples = [make_request(i, list(range(10)), 5, True, seed=i, group=0) for i in range(4)]
        add(scheduler, device, *samples)
        [plan] = run(scheduler, device, 1)
        assert plan.num_tokens == {0: 10, 1: 2, 2: 2, 3: 2}
        assert scheduler.kv.num_blocks - scheduler.kv.num_free_blocks == 2 + 4
        assert {plan.new_blocks[i][:2] for i in range(4)} == {plan.new_blocks[0][:2]}
        run(scheduler, device)
        assert len({tuple(sample.token_ids) for sample in samples}) == 4
        assert scheduler.kv.num_free_blocks == 64
        assert scheduler.kv.pool.num_free < 64 if caching else scheduler.kv.pool.num_free == 64


def test_with_caching_off_nobody_but_a_group_shares():
    scheduler, device = engine(64, enable_prefix_caching=False)
    add(scheduler, device, *(make_request(i, list(range(10)), 5, True) for i in range(2)))
    [plan] = run(scheduler, device, 1)
    assert plan.num_tokens == {0: 10, 1: 10}


def test_a_preempted_request_resumes_from_its_own_cached_blocks():
    scheduler, device = engine(7)
    _, second = add(scheduler, device, *(make_request(i, [i] * 8, 12, ignore_eos=True) for i in range(2)))
    plans = run(scheduler, device)
    resumed = [init for plan in plans for init in plan.new_requests if len(init.token_ids) > init.num_prompt_tokens]
    assert second.metrics.num_preemptions > 0 and resumed
    assert all(init.num_computed >= 4 for init in resumed), "at least its head was still there"


def test_a_request_that_needs_every_prompt_position_takes_no_hit_but_leaves_one():
    scheduler, device = engine(64)
    prompt = list(range(9))
    for rid, skip in enumerate((True, True, False)):
        add(scheduler, device, make_request(rid, prompt, 1, True, skip_prefix_hit=skip))
    [plan] = run(scheduler, device, 1)
    assert plan.num_tokens == {0: 9, 1: 9, 2: 1}


def test_the_counters_tell_tokens_looked_up_and_found():
    scheduler, device = engine(64)
    for rid in range(3):
        add(scheduler, device, make_request(rid, list(range(9)), 1, True))
        run(scheduler, device)
    assert (scheduler.kv.stats.queries, scheduler.kv.stats.hits) == (27, 16)


def test_a_request_that_can_never_fit_is_refused_at_the_door():
    scheduler, _ = engine(2)
    with pytest.raises(ValueError, match="never fit"):
        scheduler.add(make_request(0, [1] * 6, 3))
    assert not scheduler.has_work()


@pytest.mark.parametrize(
    ("options", "match"),
    [({"max_num_seqs": 0}, "max_num_seqs 0"), ({"budget": 0}, "tokens 0"), ({"batching": "dynamic"}, "continuous")],
)
def test_a_scheduler_that_could_never_run_anything_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        engine(4, **options)


def test_min_tokens_holds_back_eos_and_stop_tokens():
    scheduler, _ = engine(8)
    request = make_request(0, [5], 6)
    request.params = SamplingParams(max_tokens=6, min_tokens=3, stop_token_ids=(7,))
    scheduler.add(request)
    for token in (0, 7, 7):
        plan = scheduler.schedule()
        scheduler.update(plan, StepResult({0: (token,)}))
    assert request.token_ids == [5, 0, 7, 7] and (request.finish_reason, request.stop_reason) == ("stop", 7)


@pytest.mark.parametrize("fail", ["before", "applied", "written"])
def test_a_step_that_failed_is_computed_again(fail):
    """Whatever the runner had done when it failed, the requests start over and nothing of that step is believed."""
    scheduler, device = engine(64)
    first, second = add(scheduler, device, *(make_request(i, list(range(9)), 4, True) for i in range(2)))
    expected = device.alone(first)
    run(scheduler, device, 1)
    with pytest.raises(DeviceError):
        device.execute(scheduler.schedule(), fail)
    third = make_request(2, list(range(9)), 4, True)
    add(scheduler, device, third)
    run(scheduler, device)
    assert first.token_ids == second.token_ids == third.token_ids == expected


def test_an_abort_while_the_step_runs_frees_the_blocks_and_drops_the_result():
    scheduler, device = engine(64)
    kept, gone = add(scheduler, device, *(make_request(i, [i] * 9, 4, True) for i in range(2)))
    plan = scheduler.schedule()
    result = device.execute(plan)
    assert scheduler.finish([1, 1, 99], FinishReason.ABORT) == [gone]
    assert scheduler.update(plan, result) == [kept]
    scheduler.check()
    assert gone.num_generated == 0 and scheduler.schedule().finished == (1,)

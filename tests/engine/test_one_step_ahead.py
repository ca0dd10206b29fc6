"""Planning a step before the last one's tokens are back changes no output: only when they are learned."""

from __future__ import annotations

import json

import pytest
from test_cross_product import PROMPTS, REQUESTS, told

from minillm_serve import LLM, SamplingParams
from minillm_serve.engine.replay import verify

NAMES = (
    "greedy", "temperature", "top_k", "top_p", "min_p", "typical_p", "logit_bias", "allowed_token_ids",
    "stop_token_ids", "stop", "skip_special_tokens", "logprobs", "logprobs of all", "n", "best_of",
)  # fmt: skip
FREE = [request for request in REQUESTS if request[1] in NAMES]  # what hangs on no token that is still under way
ENGINES = {
    "roomy": {"num_kv_blocks": 400, "enable_prefix_caching": False},
    "cached": {"num_kv_blocks": 400, "block_size": 4},
    "small chunks": {"num_kv_blocks": 400, "max_num_batched_tokens": 5},
    "tiny pool": {"num_kv_blocks": 30, "block_size": 4, "max_num_batched_tokens": 7},
}


class Counting:
    """How often a step was planned ahead of the one before."""

    def __init__(self, llm: LLM):
        self.scheduler, self.ahead, self.steps = llm.core.scheduler, 0, 0
        self.schedule, self.scheduler.schedule = self.scheduler.schedule, self

    def __call__(self, ahead: bool = False):
        self.ahead += ahead
        self.steps += 1
        return self.schedule(ahead)


@pytest.mark.parametrize("engine", ENGINES)
def test_outputs_do_not_change(tiny_model_dir, engine):
    prompts, params = [prompt for prompt, _, _ in FREE], [params for _, _, params in FREE]
    answers = {}
    for ahead in (False, True):
        llm = LLM(tiny_model_dir, async_scheduling=ahead, **ENGINES[engine])
        counting = Counting(llm)
        answers[ahead] = [told(output) for output in llm.generate(prompts, params)]
        assert counting.ahead > counting.steps * 0.8 if ahead else counting.ahead == 0
        assert not llm.core.has_work()
        llm.core.scheduler.check()
        if engine == "tiny pool":
            assert llm.stats().num_preemptions > 0
    assert answers[True] == answers[False]


def test_constrained_requests_hold_the_others_in_step(tiny_model_dir):
    prompts, params = [prompt for prompt, _, _ in REQUESTS], [params for _, _, params in REQUESTS]
    answers = {}
    for ahead in (False, True):
        llm = LLM(tiny_model_dir, async_scheduling=ahead, num_kv_blocks=60, block_size=4)
        answers[ahead] = [told(output) for output in llm.generate(prompts, params)]
    assert answers[True] == answers[False]


def test_a_trace_of_it_replays(tiny_model_dir, tmp_path):
    path = tmp_path / "trace.json"
    with LLM(tiny_model_dir, async_scheduling=True, num_kv_blocks=30, block_size=4, trace_file=path) as llm:
        llm.generate([prompt for prompt, _, _ in FREE], [params for _, _, params in FREE])
    trace = json.loads(path.read_text())
    assert any(event[0] == "schedule" and event[2:] == ["ahead"] for event in trace["events"])
    assert verify(path) == len(trace["steps"])


@pytest.mark.parametrize("place", ["submit", "collect"])
def test_a_step_that_fails_takes_the_one_ahead_with_it(tiny_model_dir, place):
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    expected = [told(output) for output in LLM(tiny_model_dir, num_kv_blocks=64).generate(list(PROMPTS), params)]
    core = LLM(tiny_model_dir, num_kv_blocks=64, async_scheduling=True).core
    for number, prompt in enumerate(PROMPTS):
        core.add(str(number), core.prepare(prompt, params))
    outputs, calls = {}, 0
    works = getattr(core.runner, place)

    def fails_now_and_then(*args):
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise RuntimeError("the device is lost")
        return works(*args)

    setattr(core.runner, place, fails_now_and_then)
    while core.has_work():
        try:
            outputs |= {output.rid: output for output in core.step() if output.finished}
        except RuntimeError:
            core.scheduler.check()
        assert calls < 200
    assert calls > 12
    assert [told(outputs[rid]) for rid in sorted(outputs)] == expected


def test_what_ends_while_a_step_is_under_way_is_not_heard_of_again(tiny_model_dir):
    core = LLM(tiny_model_dir, num_kv_blocks=64, async_scheduling=True).core
    group = core.prepare(PROMPTS[0], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    core.add("a", group)
    for _ in range(5):
        [output] = core.step()
    assert len(output.outputs[0].token_ids) == 5
    [last] = core.abort([group.rid])
    assert last.finished and core.has_work(), "its next step is still under way"
    assert core.step() == [] and not core.has_work()
    assert core.scheduler.kv.pool.num_free + core.scheduler.kv.cache.num_idle == 64

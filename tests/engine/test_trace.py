"""A trace holds all that the scheduler was told and decided: replayed without a model, it decides the same."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from minillm_serve import LLM, SamplingParams
from minillm_serve.config import EngineConfig
from minillm_serve.engine.replay import ReplayError, replay, request_from, verify
from minillm_serve.engine.trace import TraceError, anonymise, config_record, params_record, read_trace
from minillm_serve.params import StructuredOutputsParams
from minillm_serve.seams import Seams

SHARED = list(range(40, 61))
PROMPTS = [SHARED + [100 + n] * (3 * n + 1) for n in range(5)]
SCHEMA = json.loads(resources.files("minillm_serve.engine").joinpath("trace.schema.json").read_text(encoding="utf-8"))
NGRAM = {
    "method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "dynamic": False,
    "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.7, 0.5, 0.3],
}  # fmt: skip
RUNS = {
    "roomy": {"num_kv_blocks": 64},
    "preempted": {"num_kv_blocks": 16},
    "chunked": {"num_kv_blocks": 64, "max_num_batched_tokens": 7},
    "chunked and preempted": {"num_kv_blocks": 16, "max_num_batched_tokens": 9},
    "whole prompts": {"num_kv_blocks": 64, "max_num_batched_tokens": 80, "enable_chunked_prefill": False},
    "static": {"num_kv_blocks": 64, "batching": "static", "max_num_seqs": 3},
    "without prefix cache": {"num_kv_blocks": 16, "enable_prefix_caching": False},
    "without any cache": {"attention_backend": "none", "max_num_seqs": 4, "enable_prefix_caching": False},
    "speculating": {"num_kv_blocks": 64, "speculative_config": NGRAM},
    "speculating and preempted": {"num_kv_blocks": 16, "max_num_batched_tokens": 11, "speculative_config": NGRAM},
    "by priority": {"num_kv_blocks": 20, "scheduling_policy": "priority", "max_num_seqs": 3},
}


def engine(folder: Path, **settings) -> LLM:
    return LLM(folder, num_threads=1, block_size=4, max_model_len=128, trace_file="unused", **settings)


def served(folder: Path, **settings) -> dict:
    """A run with everything that can happen to a request: late arrivals, an abort, a stop string, several samples."""
    llm = engine(folder, **settings)
    core, greedy = llm.core, SamplingParams(temperature=0, max_tokens=18, ignore_eos=True)
    urgent = settings.get("scheduling_policy") == "priority"
    for number, prompt in enumerate(PROMPTS[:3]):
        core.add(f"early-{number}", core.prepare(prompt, greedy, priority=-number if urgent else 0))
    for _ in range(4):
        core.step()
    victim = core.prepare(PROMPTS[3], greedy)
    core.add("victim", victim)
    salted = core.prepare(PROMPTS[4], greedy, cache_salt="somebody")
    core.add("salted", salted)
    for _ in range(3):
        core.step()
    core.abort([victim.rid])
    core.scheduler.reset_prefix_cache()
    core.add("samples", core.prepare("One two", SamplingParams(n=2, seed=3, max_tokens=9, ignore_eos=True)))
    while core.has_work():
        core.step()
    text = llm.generate([PROMPTS[0]], greedy)[0].outputs[0].text
    llm.generate([PROMPTS[0]], SamplingParams(temperature=0, max_tokens=18, stop=[text[4:7]]))
    return json.loads(json.dumps(core.trace.content()))


@pytest.fixture(scope="module", params=RUNS, ids=str)
def trace(request, tiny_model_dir) -> dict:
    return served(tiny_model_dir, **RUNS[request.param])


def test_every_plan_comes_out_the_same(trace):
    assert verify(trace) == len(trace["steps"])
    assert {event[0] for event in trace["events"]} == {"add", "schedule", "update", "finish", "reset"}


def test_the_file_is_what_its_schema_says(trace):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(trace)


def test_the_record_adds_up(trace):
    """Tokens of the steps are the requests' answers, and every prompt token was computed or found in the cache."""
    tokens = dict.fromkeys(trace["requests"], 0)
    reached = dict.fromkeys(trace["requests"], 0)
    for step in trace["steps"]:
        for rid, (_, cached) in step.get("new_requests", {}).items():
            reached[rid] = cached
        for rid, count in step["num_tokens"].items():
            reached[rid] += count
        for rid, drafts in step.get("drafts", {}).items():
            reached[rid] -= len(drafts) - step.get("accepted", {}).get(rid, 0)
            assert step["tokens"][rid][: step["accepted"][rid]] == drafts[: step["accepted"][rid]]
        for rid, ids in step["tokens"].items():
            tokens[rid] += len(ids)
    for rid, request in trace["requests"].items():
        assert tokens[rid] == request["generated"]
        if request["finish_reason"] != "abort":
            assert reached[rid] == request["prompt_tokens"] + request["generated"] - 1


def test_an_anonymous_trace_replays_alike_and_names_nobody(trace):
    hidden = anonymise(trace)
    assert verify(hidden) == len(trace["steps"])
    jsonschema.Draft202012Validator(SCHEMA).validate(hidden)
    for name in ("num_tokens", "accepted"):
        assert [s.get(name) for s in hidden["steps"]] == [s.get(name) for s in trace["steps"]]
    for before, after in zip(trace["steps"], hidden["steps"], strict=True):
        for rid, drafts in before.get("drafts", {}).items():
            same = [a == b for a, b in zip(drafts, before["tokens"][rid], strict=False)]
            assert [a == b for a, b in zip(after["drafts"][rid], after["tokens"][rid], strict=False)] == same
    assert all(request["stop_reason"] is None for request in hidden["requests"].values())
    for word in ("early-0", "somebody"):
        assert word in json.dumps(trace) and word not in json.dumps(hidden)


def test_replayed_steps_show_tables_that_only_grow_while_held(trace):
    before: dict[int, tuple[int, ...]] = {}
    for step in replay(trace):
        gone = {*step.plan.preempted, *step.plan.finished}
        for rid, table in step.tables.items():
            if rid in before and rid not in gone:
                assert table[: len(before[rid])] == before[rid]
        held, filled = step.usage(trace["config"]["block_size"])
        assert 0 <= filled <= held
        assert not step.idle & {block for table in step.tables.values() for block in table}
        before = step.tables


def test_what_can_happen_did_happen(tiny_model_dir):
    """The runs above are only worth their checks if they preempt, hit prefixes and are ended from outside."""
    trace = served(tiny_model_dir, **RUNS["preempted"])
    hits = [cached for step in trace["steps"] for _, cached in step.get("new_requests", {}).values()]
    assert any(hits) and any(step.get("preempted") for step in trace["steps"])
    assert {event[2] for event in trace["events"] if event[0] == "finish"} == {"abort", "stop"}
    trace = served(tiny_model_dir, **RUNS["speculating and preempted"])
    assert any(step.get("preempted") for step in trace["steps"])
    verified = [
        (step["accepted"][rid], len(ids)) for step in trace["steps"] for rid, ids in step.get("drafts", {}).items()
    ]
    assert any(accepted for accepted, _ in verified) and any(accepted < count for accepted, count in verified)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["steps"][3]["num_tokens"].update({"0": 2}), "step 4: num_tokens was"),
        (lambda t: t["steps"][1].update(free_blocks=0), "step 2: free_blocks was 0"),
        (lambda t: t["steps"][4].update(drafts={"0": [7]}), "step 5: drafts was"),
        (lambda t: t["steps"][5].update(preempted=[0]), r"step 6: preempted was \[0\], the replay gives None"),
    ],
)
def test_a_plan_that_differs_is_named(tiny_model_dir, change, message):
    trace = served(tiny_model_dir, num_kv_blocks=64)
    change(trace)
    with pytest.raises(ReplayError, match=message):
        verify(trace)


def test_a_trace_that_cannot_be_replayed_says_why(tiny_model_dir):
    trace = served(tiny_model_dir, num_kv_blocks=64)
    with pytest.raises(TraceError, match="only a whole one"):
        verify(trace | {"events": []})
    with pytest.raises(TraceError, match="another version"):
        verify(trace | {"config": trace["config"] | {"warp_factor": 9}})


def test_a_student_s_policy_shows_where_it_departs(tiny_model_dir):
    trace = served(tiny_model_dir, num_kv_blocks=16)

    class LastComeFirstServed:
        def rank(self, request):
            return -request.rid

    with pytest.raises(ReplayError, match="step"):
        verify(trace, Seams({"sched.policy": LastComeFirstServed}))


def test_a_failed_step_is_replayed_too(tiny_model_dir):
    """A plan whose execution raised was decided, booked nothing, and is decided upon again."""
    llm = engine(tiny_model_dir, num_kv_blocks=32)
    core = llm.core
    core.add("a", core.prepare(PROMPTS[0], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)))
    core.step()
    submit, core.runner.submit = core.runner.submit, lambda plan: 1 / 0
    with pytest.raises(ZeroDivisionError):
        core.step()
    core.runner.submit = submit
    while core.has_work():
        core.step()
    trace = json.loads(json.dumps(core.trace.content()))
    assert verify(trace) == len(trace["steps"]) + 1


def test_fifty_requests_make_a_small_file(tiny_model_dir, tmp_path):
    path = tmp_path / "trace.json"
    with LLM(tiny_model_dir, num_threads=1, num_kv_blocks=400, max_model_len=128, trace_file=path) as llm:
        llm.generate(PROMPTS * 10, SamplingParams(temperature=0, max_tokens=64, ignore_eos=True))
    assert path.stat().st_size < 1_000_000
    assert verify(path) == len(read_trace(path)["steps"])


def test_replaying_needs_neither_torch_nor_a_model(tiny_model_dir, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(served(tiny_model_dir, num_kv_blocks=16)), encoding="utf-8")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from minillm_serve.engine.replay import verify; print(verify({str(path)!r}) > 0)\n"
        "print([name for name in ('minillm_kernels', 'tokenizers', 'transformers') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split("\n")[:2] == ["True", "[]"]


def test_a_replay_needs_what_was_proposed_and_what_stood(tiny_model_dir):
    """Drafts come from the runner: without them, or with other numbers of accepted ones, the plans are others."""
    trace = served(tiny_model_dir, **RUNS["speculating"])
    assert any(step.get("proposed") for step in trace["steps"])
    for name in ("proposed", "accepted"):
        with pytest.raises(ReplayError):
            verify(trace | {"steps": [{k: v for k, v in step.items() if k != name} for step in trace["steps"]]})


def test_the_trace_says_which_models_but_not_where_they_lie(tiny_model_dir):
    trace = served(tiny_model_dir, num_kv_blocks=64)
    assert trace["config"]["model"] == tiny_model_dir.name
    assert str(tiny_model_dir.parent) not in json.dumps(trace)
    spec = {"method": "eagle", "model": "/somewhere/heads/good", "num_speculative_tokens": 2}
    record = config_record(EngineConfig(model="/somewhere/tiny", speculative_config=spec))
    assert record["speculative_config"]["model"] == "good" and "somewhere" not in json.dumps(record)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0, max_tokens=3, stop=["a"], stop_token_ids=[5, 6], ignore_eos=True, min_tokens=2),
        SamplingParams(top_k=3, seed=-1, structured_outputs=StructuredOutputsParams(json={"type": "integer"})),
        SamplingParams(logit_bias={7: -5.0}, n=3, logprobs=2, repetition_penalty=1.2),
    ],
)
def test_parameters_survive_the_file(params):
    record = json.loads(json.dumps(params_record(params)))
    request = {"prompt_ids": [1], "prompt_tokens": 1, "params": record, "eos_token_ids": [], "arrival": 0.0}
    assert request_from(0, request | {"max_total_tokens": 9, "seed": 0}).params == params


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "minillm-trace/1"}', "record the run again"),
        ('{"schema": "minillm-trace/2", "requests": {}, "steps": []}', "empty"),
        ("[1]", "not an engine trace"),
        ("{", "not JSON"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content, message):
    path = tmp_path / "trace.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TraceError, match=message):
        read_trace(path)
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "nothing.json")


def test_anonymising_leaves_the_trace_as_it_was(trace):
    before = copy.deepcopy(trace)
    anonymise(trace)
    assert trace == before

"""The whole engine on a tiny model: same greedy tokens as transformers in every configuration, and clear refusals."""

from __future__ import annotations

import json

import pytest
import torch
from dead_end import DeadEnd
from transformers import AutoModelForCausalLM

from minillm_serve import LLM, RequestError, SamplingParams, StructuredOutputsParams
from minillm_serve.config import ConfigError

PROMPTS = ["The quick brown", "En un lugar de la Mancha", '{"name":', "a", "one two three four five six seven eight"]
GREEDY = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
CONFIGURATIONS = {
    "roomy": {"num_kv_blocks": 64},
    "contiguous": {"block_size": 1024, "num_kv_blocks": 5},
    "tiny blocks": {"block_size": 1, "num_kv_blocks": 400},
    "chunked prefill": {"num_kv_blocks": 64, "max_num_batched_tokens": 3},
    "one at a time": {"num_kv_blocks": 64, "max_num_seqs": 1},
    "preempted": {"block_size": 4, "num_kv_blocks": 16},
    "preempted and chunked": {"block_size": 4, "num_kv_blocks": 16, "max_num_batched_tokens": 5},
}


@pytest.fixture(scope="module")
def llm(tiny_model_dir):
    return LLM(tiny_model_dir, num_kv_blocks=64)


@pytest.fixture(scope="module")
def expected(tiny_model_dir, llm):
    """Greedy continuations by transformers."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval()
    continuations = []
    for prompt in PROMPTS:
        ids = torch.tensor([llm.tokenizer.encode(prompt)])
        length = {"max_new_tokens": 24, "min_new_tokens": 24, "eos_token_id": None, "pad_token_id": 0}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **length)
        continuations.append(tuple(out[0, ids.shape[1] :].tolist()))
    assert len(set(continuations)) == len(PROMPTS), "the tiny model should answer each prompt differently"
    return continuations


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_greedy_tokens_equal_transformers_in_every_configuration(tiny_model_dir, expected, name):
    llm = LLM(tiny_model_dir, **CONFIGURATIONS[name])
    outputs = llm.generate(PROMPTS, GREEDY)
    assert [output.outputs[0].token_ids for output in outputs] == expected
    assert all(output.outputs[0].finish_reason == "length" for output in outputs)
    stats = llm.stats()
    assert (stats.kv_blocks_used, stats.running, stats.waiting) == (0, 0, 0)
    assert (stats.num_preemptions > 0) == name.startswith("preempted")


def test_sampled_tokens_depend_on_the_request_alone(tiny_model_dir):
    """Seeded sampling: alone, in a batch, in another order, in chunks and across preemption."""
    params = [
        SamplingParams(max_tokens=20, temperature=0.9, top_p=0.95, top_k=40, seed=i, ignore_eos=True) for i in range(5)
    ]
    roomy = LLM(tiny_model_dir, num_kv_blocks=64)
    alone = [roomy.generate(p, s)[0].outputs[0].token_ids for p, s in zip(PROMPTS, params, strict=True)]
    together = roomy.generate(PROMPTS, params)
    assert [o.outputs[0].token_ids for o in together] == alone
    backwards = roomy.generate(PROMPTS[::-1], params[::-1])
    assert [o.outputs[0].token_ids for o in backwards] == alone[::-1]
    tight = LLM(tiny_model_dir, block_size=4, num_kv_blocks=14, max_num_batched_tokens=6)
    assert [o.outputs[0].token_ids for o in tight.generate(PROMPTS, params)] == alone
    assert tight.stats().num_preemptions > 0
    assert len(set(alone)) == 5


def test_unseeded_samples_differ(llm):
    params = SamplingParams(max_tokens=16, temperature=1.0, ignore_eos=True)
    outputs = llm.generate([PROMPTS[0]] * 6, params)
    assert len({output.outputs[0].token_ids for output in outputs}) > 1


def test_stop_conditions(llm, expected):
    text = llm.tokenizer.decode(expected[0])
    stop = text[5:8]
    [output] = llm.generate(PROMPTS[0], SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, stop=(stop,)))
    assert output.outputs[0].text == text[: text.index(stop)]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", stop)

    token = expected[0][6]
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True, stop_token_ids=(token,))
    [output] = llm.generate(PROMPTS[0], params)
    assert output.outputs[0].token_ids == expected[0][: expected[0].index(token) + 1]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", token)


def test_eos_ends_a_text_unless_ignored(tiny_model_dir, expected):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    eos = expected[1][7]
    llm.tokenizer.eos_token_ids = frozenset([eos])
    [output] = llm.generate(PROMPTS[1], SamplingParams(max_tokens=24, temperature=0))
    assert output.outputs[0].token_ids == expected[1][: expected[1].index(eos) + 1]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", None)
    [output] = llm.generate(PROMPTS[1], GREEDY)
    assert output.outputs[0].token_ids == expected[1]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_guided_answers_are_valid_even_when_preempted(tiny_model_dir):
    """A random model knows nothing of JSON: only the mask can make this pass."""
    llm = LLM(tiny_model_dir, block_size=4, num_kv_blocks=24, max_num_batched_tokens=16)
    structured = StructuredOutputsParams(json=SCHEMA)
    params = [SamplingParams(max_tokens=80, temperature=1.0, seed=i, structured_outputs=structured) for i in range(8)]
    outputs = llm.generate(["Who?"] * 8, params)
    for output in outputs:
        value = json.loads(output.outputs[0].text)
        assert set(value) == {"name", "age"} and 0 <= value["age"] <= 150 and len(value["name"]) <= 8
        assert output.outputs[0].finish_reason == "stop"
    assert llm.stats().num_preemptions > 0
    roomy = LLM(tiny_model_dir, num_kv_blocks=64).generate(["Who?"] * 8, params)
    assert [o.outputs[0].text for o in roomy] == [o.outputs[0].text for o in outputs]


@pytest.mark.parametrize(
    ("prompt", "params", "param"),
    [
        ("", {}, "prompt"),
        ([], {}, "prompt"),
        ([5, -1], {}, "prompt"),
        ([5, 10**9], {}, "prompt"),
        ([True], {}, "prompt"),
        (["x"], {}, "prompt"),
        ("a" * 5000, {}, "prompt"),
        ("hi", {"max_tokens": 100_000}, "max_tokens"),
        ("hi", {"stop_token_ids": (10**6,)}, "stop_token_ids"),
        ("hi", {"ignore_eos": True, "structured_outputs": StructuredOutputsParams(json={})}, "ignore_eos"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_runs(llm, prompt, params, param):
    with pytest.raises(RequestError) as caught:
        llm.core.prepare(prompt, SamplingParams(**params))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 1.5), ("max_tokens", True), ("temperature", -0.1),
        ("temperature", 2.1), ("temperature", float("nan")), ("temperature", "hot"), ("top_p", 0), ("top_p", 1.1),
        ("top_p", float("inf")), ("top_k", -2), ("seed", 2**63), ("seed", 0.5), ("stop", ("",)), ("stop", ("a",) * 5),
        ("stop", 5),
        ("stop_token_ids", 5),
        ("stop_token_ids", (-1,)), ("stop_token_ids", ("a",)), ("ignore_eos", 1),
    ],
)  # fmt: skip
def test_a_value_outside_its_range_is_refused_by_name(name, value):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name


def test_one_bad_request_stops_a_batch_before_it_starts(llm):
    with pytest.raises(RequestError):
        llm.generate(["good", ""], GREEDY)
    assert not llm.core.has_work()
    with pytest.raises(RequestError, match="2 prompts need as many params"):
        llm.generate(["a", "b"], [GREEDY])


@pytest.mark.parametrize(
    "settings",
    [{"block_size": 0}, {"max_num_seqs": 0}, {"dtype": "float8"}, {"device": "cuda"}, {"max_model_len": 10**6},
     {"kv_cache_memory_bytes": 10}, {"num_kv_blocks": -1}],
)  # fmt: skip
def test_an_impossible_configuration_is_refused(tiny_model_dir, settings):
    with pytest.raises(ConfigError):
        LLM(tiny_model_dir, **settings)


def test_chat_is_the_template_and_then_generate(llm):
    messages = [{"role": "user", "content": "hello"}]
    [chat] = llm.chat(messages, GREEDY)
    [plain] = llm.generate([llm.tokenizer.apply_chat_template(messages)], GREEDY)
    assert chat.outputs == plain.outputs


def test_trace_accounts_for_every_token(tiny_model_dir, tmp_path):
    path = tmp_path / "trace.json"
    with LLM(tiny_model_dir, block_size=4, num_kv_blocks=16, trace_file=path) as llm:
        outputs = llm.generate(PROMPTS, GREEDY)
    trace = json.loads(path.read_text())
    assert trace["schema"] == "minillm-trace/2"
    for output, request in zip(outputs, trace["requests"].values(), strict=True):
        assert request["prompt_tokens"] == len(output.prompt_token_ids)
        assert request["generated"] == len(output.outputs[0].token_ids)
        assert request["arrival"] <= request["first_token"] <= request["finished"]
    preempted = sum(len(step.get("preempted", ())) for step in trace["steps"])
    assert preempted == sum(request["preemptions"] for request in trace["requests"].values()) > 0
    starts = [step["start"] for step in trace["steps"]]
    assert starts == sorted(starts) and all(step["num_tokens"] for step in trace["steps"])


def test_a_grammar_without_a_way_on_ends_its_own_request_alone(tiny_model_dir, expected):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    constraint = StructuredOutputsParams(json={})
    llm.core.admission.grammars.put(constraint, DeadEnd())
    stuck = SamplingParams(max_tokens=24, temperature=0, structured_outputs=constraint)
    first, second = llm.generate(PROMPTS[:2], [stuck, GREEDY])
    assert (first.outputs[0].finish_reason, len(first.outputs[0].token_ids)) == ("error", 2)
    assert second.outputs[0].token_ids == expected[1]
    assert llm.stats().kv_blocks_used == 0


def test_a_schema_that_is_no_json_is_refused():
    deep: dict = {}
    for _ in range(100_000):
        deep = {"not": deep}
    for schema in (deep, {"const": object()}, {"const": {1, 2}}):
        with pytest.raises(RequestError):
            StructuredOutputsParams(json=schema).key()

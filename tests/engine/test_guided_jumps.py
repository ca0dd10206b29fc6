"""Text that a constraint leaves no choice about costs no step of its own, and changes nothing that a user sees."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from nested_text import FIXED, FIXED_TEXT, NESTED, depth_of, guided_llm, hostile

from minillm_serve import SamplingParams
from minillm_serve.engine import trace as trace_module
from minillm_serve.engine.replay import verify
from minillm_serve.seams import SAMPLE, Seams

PROMPTS = [f"Once upon a time number {number}" for number in range(6)]
SEAMS = Seams({SAMPLE: hostile})  # a random model that likes every token alike: many nestings, odd tokens


def params(**fields):
    return SamplingParams(**{"max_tokens": 150, "structured_outputs": NESTED, **fields})


def told(outputs):
    return [
        [(o.text, tuple(o.token_ids), o.finish_reason, o.stop_reason) for o in output.outputs] for output in outputs
    ]


def steps(llm) -> int:
    return llm.core.scheduler._step


def test_a_text_without_any_choice_takes_two_steps_and_has_the_tokenizer_s_own_tokens(tiny_model_dir):
    llm = guided_llm(tiny_model_dir)
    [output] = llm.generate("Where?", SamplingParams(max_tokens=200, structured_outputs=FIXED))
    [sample] = output.outputs
    assert (sample.text, sample.finish_reason) == (FIXED_TEXT, "stop")
    [end] = llm.tokenizer.eos_token_ids
    assert list(sample.token_ids) == [*llm.tokenizer.encode(FIXED_TEXT), end]
    slow = guided_llm(tiny_model_dir, guided_jump_ahead=False)
    [same] = slow.generate("Where?", SamplingParams(max_tokens=200, structured_outputs=FIXED))
    assert same.outputs[0].text == FIXED_TEXT and steps(slow) > steps(llm) + 10


@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_batched_tokens": 7},
        {"block_size": 4, "num_kv_blocks": 44, "enable_prefix_caching": False},
        {"block_size": 4, "num_kv_blocks": 44, "max_num_batched_tokens": 5},
        {"batching": "static", "max_num_seqs": 4},
        {"attention_backend": "none", "num_kv_blocks": None},
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 40},
    ],
    ids=str,
)
def test_outputs_do_not_hang_on_how_the_engine_runs_them(tiny_model_dir, settings):
    asked = [params(seed=seed, n=1 + seed % 2) for seed in range(6)]
    alone = guided_llm(tiny_model_dir, seams=SEAMS)
    expected = [alone.generate(prompt, one)[0] for prompt, one in zip(PROMPTS, asked, strict=True)]
    llm = guided_llm(tiny_model_dir, seams=SEAMS, **settings)
    outputs = llm.generate(PROMPTS, asked)
    assert told(outputs) == told(expected)
    assert (llm.stats().num_preemptions > 0) == ("enable_prefix_caching" in settings)
    assert llm.stats().kv_blocks_used == 0
    for output in outputs:
        for sample in output.outputs:
            assert sample.finish_reason == "length" or depth_of(sample.text) > 0


def test_streams_never_show_half_of_a_jump_and_add_up(tiny_model_dir):
    llm = guided_llm(tiny_model_dir, seams=SEAMS)
    core = llm.core
    core.add("a", core.prepare(PROMPTS[0], params(seed=3)))
    seen, text = 0, ""
    while core.has_work():
        for output in core.step():
            [sample] = output.outputs
            assert sample.text.startswith(text) and len(sample.token_ids) >= seen
            seen, text = len(sample.token_ids), sample.text
    assert sample.finish_reason == "length" or depth_of(text)


@pytest.mark.parametrize("most", range(1, 30))
def test_a_jump_stops_at_max_tokens(tiny_model_dir, most):
    llm = guided_llm(tiny_model_dir)
    [output] = llm.generate("Where?", SamplingParams(max_tokens=most, structured_outputs=FIXED))
    [sample] = output.outputs
    whole = [*llm.tokenizer.encode(FIXED_TEXT), *llm.tokenizer.eos_token_ids]
    assert list(sample.token_ids) == whole[:most]
    assert sample.finish_reason == ("stop" if most >= len(whole) else "length")


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("stop", ['"tags', "ñ", ": [", "}", "nowhere"])
def test_a_stop_string_within_a_jump_ends_the_text_and_its_tokens_there(tiny_model_dir, stop, include):
    asked = SamplingParams(
        max_tokens=200, structured_outputs=FIXED, stop=[stop], include_stop_str_in_output=include, temperature=0
    )
    llm = guided_llm(tiny_model_dir)
    [output] = llm.generate("Where?", asked)
    [sample] = output.outputs
    found = FIXED_TEXT.find(stop)
    assert sample.text == (FIXED_TEXT if found < 0 else FIXED_TEXT[: found + include * len(stop)])
    assert (sample.finish_reason, sample.stop_reason) == ("stop", stop if found >= 0 else None)
    if found >= 0:
        spelled = llm.tokenizer.decode(sample.token_ids)
        assert stop in spelled and stop not in llm.tokenizer.decode(sample.token_ids[:-1])


def test_log_probabilities_need_every_token_drawn(tiny_model_dir):
    asked = params(seed=1, logprobs=1, max_tokens=60)
    [fast] = guided_llm(tiny_model_dir).generate(PROMPTS[0], asked)
    [slow] = guided_llm(tiny_model_dir, guided_jump_ahead=False).generate(PROMPTS[0], asked)
    assert told([fast]) == told([slow])
    assert fast.outputs[0].logprobs == slow.outputs[0].logprobs and len(fast.outputs[0].logprobs) == len(
        fast.outputs[0].token_ids
    )


def test_penalties_count_the_tokens_of_a_jump(tiny_model_dir):
    llm = guided_llm(tiny_model_dir)
    core = llm.core
    core.add("a", core.prepare(PROMPTS[0], params(presence_penalty=1.0, temperature=0)))
    core.step()
    [constraints] = core.runner.batch.sampling.constraints.values()
    [request] = core.scheduler.running
    generated = request.token_ids[request.num_prompt_tokens :]
    assert len(generated) > 1 and constraints.generated == generated
    counted = dict(zip(constraints.seen.tokens.tolist(), constraints.seen.counts.tolist(), strict=True))
    assert {token: counted[token] for token in set(generated)} == {t: generated.count(t) for t in set(generated)}
    core.abort([0])


def test_a_trace_tells_the_jumps_and_replays(tiny_model_dir, tmp_path):
    path = tmp_path / "trace.json"
    llm = guided_llm(
        tiny_model_dir, block_size=4, num_kv_blocks=44, max_num_batched_tokens=9, trace_file=path, seams=SEAMS
    )
    llm.generate(PROMPTS, [params(seed=seed) for seed in range(6)])
    llm.close()
    content = json.loads(path.read_text())
    schema = json.loads((trace_module.Path(trace_module.__file__).parent / "trace.schema.json").read_text())
    Draft202012Validator(schema).validate(content)
    forced = [(rid, count, step) for step in content["steps"] for rid, count in step.get("forced", {}).items()]
    assert forced and all(0 < count <= len(step["tokens"][rid]) for rid, count, step in forced)
    assert any(count > 1 for step in content["steps"] for count in step["num_tokens"].values())
    assert verify(content) == len(content["steps"])
    assert verify(trace_module.anonymise(content)) == len(content["steps"])

"""How a guided text ends: complete within max_tokens when that was promised, whatever the model would rather say."""

from __future__ import annotations

import pytest
from dead_end import DeadEnd
from nested_text import FIXED, NESTED, SHORTEST, depth_of, guided_llm, hostile

from minillm_serve import LLM, RequestError, SamplingParams, StructuredOutputsParams
from minillm_serve.seams import SAMPLE, Seams

SEAMS = Seams({SAMPLE: hostile})
CLOSES = StructuredOutputsParams(grammar="nested", always_closes=True)
NEEDED = len(SHORTEST) + 1


@pytest.mark.parametrize("jump_ahead", [False, True])
@pytest.mark.parametrize("room", [NEEDED, NEEDED + 1, NEEDED + 7, 60, 100, 200])
def test_every_text_is_complete_within_max_tokens(tiny_model_dir, room, jump_ahead):
    llm = guided_llm(tiny_model_dir, num_kv_blocks=600, seams=SEAMS, guided_jump_ahead=jump_ahead)
    asked = [SamplingParams(max_tokens=room, structured_outputs=CLOSES, seed=seed) for seed in range(60)]
    depths = set()
    for output in llm.generate(["hostile"] * 60, asked):
        [sample] = output.outputs
        assert sample.finish_reason == "stop" and len(sample.token_ids) <= room, sample.text
        depths.add(depth_of(sample.text))
    assert len(depths) > 1 or room < NEEDED + 20, "there was room for more than the shortest text"


@pytest.mark.parametrize("room", [1, 2, 3, 10])
def test_a_text_that_may_always_go_on_ends_in_time(tiny_model_dir, room):
    llm = LLM(tiny_model_dir, num_kv_blocks=200, seams=SEAMS)
    free = StructuredOutputsParams(regex="[a-z ]*", always_closes=True)
    asked = [SamplingParams(max_tokens=room, structured_outputs=free, seed=seed) for seed in range(20)]
    for output in llm.generate(["hostile"] * 20, asked):
        assert output.outputs[0].finish_reason == "stop" and len(output.outputs[0].token_ids) <= room


def test_without_the_promise_some_are_cut(tiny_model_dir):
    llm = guided_llm(tiny_model_dir, num_kv_blocks=600, seams=SEAMS)
    asked = [SamplingParams(max_tokens=NEEDED + 7, structured_outputs=NESTED, seed=seed) for seed in range(60)]
    reasons = {output.outputs[0].finish_reason for output in llm.generate(["hostile"] * 60, asked)}
    assert "length" in reasons


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 0.1}, {"min_p": 1.0}, {"temperature": 0}, {}], ids=str)
def test_the_promise_holds_with_the_real_sampler(tiny_model_dir, sampling):
    """A model that wants to nest for ever (a bias on the bytes of its key) is brought to its end."""
    llm = guided_llm(tiny_model_dir)
    bias = {token: 100.0 for token in set(llm.tokenizer.encode('{"name')) | set(llm.tokenizer.encode("{"))}
    for room in (NEEDED + 3, 90):
        asked = SamplingParams(
            **{"max_tokens": room, "structured_outputs": CLOSES, "logit_bias": bias, "seed": 5} | sampling
        )
        [sample] = llm.generate("hi", asked)[0].outputs
        assert sample.finish_reason == "stop" and len(sample.token_ids) <= room
        assert depth_of(sample.text) >= (2 if room > 60 else 1)


def test_the_engine_s_default_is_a_request_s_to_change(tiny_model_dir):
    llm = guided_llm(tiny_model_dir, json_always_closes=True)
    with pytest.raises(RequestError, match=f"needs {NEEDED} tokens") as caught:
        llm.core.prepare("hi", SamplingParams(max_tokens=NEEDED - 1, structured_outputs=NESTED))
    assert caught.value.param == "max_tokens"
    relaxed = StructuredOutputsParams(grammar="nested", always_closes=False)
    [sample] = llm.generate("hi", SamplingParams(max_tokens=3, structured_outputs=relaxed))[0].outputs
    assert sample.finish_reason == "length" and len(sample.token_ids) == 3
    [sample] = llm.generate("hi", SamplingParams(max_tokens=NEEDED, structured_outputs=NESTED))[0].outputs
    assert sample.finish_reason == "stop" and depth_of(sample.text) == 1


def test_the_rest_of_the_context_counts_where_max_tokens_is_not_given(tiny_model_dir):
    llm = guided_llm(tiny_model_dir, max_model_len=64, json_always_closes=True)
    prompt = [10] * (64 - NEEDED)
    [sample] = llm.generate([prompt], SamplingParams(max_tokens=None, structured_outputs=NESTED))[0].outputs
    assert sample.finish_reason == "stop" and depth_of(sample.text) == 1
    with pytest.raises(RequestError):
        llm.core.prepare([10, *prompt], SamplingParams(max_tokens=None, structured_outputs=NESTED))


def test_bans_give_way_where_nothing_else_may_come(tiny_model_dir):
    """Bad words, min_tokens and biases choose among what the constraint allows; they never leave nothing."""
    llm = guided_llm(tiny_model_dir, guided_jump_ahead=False)
    everything = [[token] for token in range(3, 512)]
    for structured in (FIXED, NESTED):
        asked = SamplingParams(
            max_tokens=200, structured_outputs=structured, bad_words_ids=everything, min_tokens=190, temperature=0,
            logit_bias={token: -100.0 for token in range(512)}, stop_token_ids=[7],
        )  # fmt: skip
        [sample] = llm.generate("hi", asked)[0].outputs
        assert sample.finish_reason in ("stop", "length") and sample.text
        if sample.finish_reason == "stop" and structured is NESTED:
            assert depth_of(sample.text)


def test_a_bad_word_is_avoided_where_there_is_another_way(tiny_model_dir):
    llm = guided_llm(tiny_model_dir, seams=SEAMS, guided_jump_ahead=False)
    nest = llm.tokenizer.encode("n")[0]  # of "name", "next" and null: needed
    nulls = [token for token in range(512) if llm.tokenizer.decode([token]).startswith(("n", " n"))]
    asked = [
        SamplingParams(
            max_tokens=300, structured_outputs=NESTED, seed=seed, bad_words_ids=[[t] for t in nulls if t != nest]
        )
        for seed in range(20)
    ]
    for output in llm.generate(["hi"] * 20, asked):
        drawn = set(output.outputs[0].token_ids) & (set(nulls) - {nest})
        assert output.outputs[0].finish_reason == "length" or depth_of(output.outputs[0].text)
        assert not drawn


def test_min_tokens_keeps_the_text_going_only_while_it_can(tiny_model_dir):
    llm = guided_llm(tiny_model_dir, guided_jump_ahead=False)
    [sample] = llm.generate("hi", SamplingParams(max_tokens=200, min_tokens=150, structured_outputs=FIXED))[0].outputs
    assert sample.finish_reason == "stop" and len(sample.token_ids) < 150


class Broken(DeadEnd):
    """A grammar with a fault in one of its methods, met after a token or at once."""

    def __init__(self, method: str, after: int):
        super().__init__()
        self.method, self.after = method, after

    def matcher(self) -> Broken:
        return Broken(self.method, self.after)

    def copy(self) -> Broken:
        return self

    def cost(self) -> int:
        return 0

    def __getattribute__(self, name: str):
        if name in ("fill_into", "accept", "forced_bytes", "is_complete", "cost") and name == self.method:
            self.after -= 1
            if self.after < 0:
                raise KeyError("a fault")
        return super().__getattribute__(name)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("method", ["fill_into", "accept", "forced_bytes", "is_complete"])
def test_a_fault_in_one_constraint_ends_its_own_request_alone(tiny_model_dir, caplog, method, after):
    llm = guided_llm(tiny_model_dir)
    constraint = StructuredOutputsParams(grammar="broken")
    llm.generate("warm", SamplingParams(max_tokens=1, structured_outputs=FIXED))
    llm.core.admission.grammars.put(constraint, Broken(method, after))
    plain = SamplingParams(max_tokens=9, temperature=0, ignore_eos=True)
    [alone] = llm.generate("hi", plain)
    bad, good = llm.generate(["hi", "hi"], [SamplingParams(max_tokens=9, structured_outputs=constraint), plain])
    assert bad.outputs[0].finish_reason == "error" and good.outputs[0].text == alone.outputs[0].text
    assert "a constraint failed" in caplog.text and llm.stats().kv_blocks_used == 0

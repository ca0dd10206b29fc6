"""Everything is refused before it is queued, by the name of the field at fault, or can be served."""

from __future__ import annotations

import json
import shutil

import pytest

from minillm_serve import LLM, RequestError, SamplingParams, StructuredOutputsParams
from minillm_serve.config import ConfigError

VOCAB = 512
JSON_OBJECT = StructuredOutputsParams(json={"type": "object"})


@pytest.fixture(scope="module")
def llm(tiny_model_dir):
    return LLM(tiny_model_dir, num_kv_blocks=64)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop_token_ids": [VOCAB]}, "stop_token_ids"),
        ({"allowed_token_ids": [3, VOCAB]}, "allowed_token_ids"),
        ({"logit_bias": {str(VOCAB): 1.0}}, "logit_bias"),
        ({"bad_words_ids": [[3, VOCAB]]}, "bad_words_ids"),
        ({"logprobs": VOCAB + 1}, "logprobs"),
        ({"prompt_logprobs": VOCAB + 1}, "prompt_logprobs"),
        ({"allowed_token_ids": [2, 9], "stop_token_ids": [9], "min_tokens": 1}, "min_tokens"),
        ({"structured_outputs": JSON_OBJECT, "allowed_token_ids": [3]}, "allowed_token_ids"),
        ({"structured_outputs": JSON_OBJECT, "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_parameters_that_this_model_cannot_honour_are_refused(llm, fields, param):
    with pytest.raises(RequestError) as caught:
        llm.core.prepare("hello", SamplingParams(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"allowed_token_ids": [2, 9], "min_tokens": 1},
        {"logprobs": -1, "prompt_logprobs": VOCAB},
        {"logit_bias": {VOCAB - 1: -100.0}},
        {"n": 300},
    ],
)
def test_parameters_at_the_edge_of_what_can_be_honoured_are_accepted(llm, fields):
    group = llm.core.prepare("hello", SamplingParams(max_tokens=4, **fields))
    assert len(group.samples) == fields.get("n", 1)


def test_bad_words_stand_for_their_tokens_with_and_without_a_space_before(llm):
    tokenizer = llm.tokenizer
    bare, spaced = tokenizer.encode("scheduler"), tokenizer.encode(" scheduler")
    group = llm.core.prepare("hello", SamplingParams(bad_words=["scheduler", " scheduler"], bad_words_ids=[[7, 8]]))
    ids = group.samples[0].request.params.bad_words_ids
    assert ids[0] == (7, 8) and tuple(bare) in ids
    assert (tuple(spaced) in ids) == (len(spaced) == len(bare) and spaced[0] != bare[0])
    assert group.params.bad_words_ids == ((7, 8),), "what the user gave stays as it was"


def test_a_bad_word_never_comes(llm):
    params = {"temperature": 0.0, "max_tokens": 30, "ignore_eos": True}
    [free] = llm.generate("The quick brown", SamplingParams(**params))
    word = llm.tokenizer.decode(free.outputs[0].token_ids[5:7])
    [without] = llm.generate("The quick brown", SamplingParams(bad_words=[word], **params))
    banned = llm.core.prepare("x", SamplingParams(bad_words=[word])).samples[0].request.params.bad_words_ids
    ids = without.outputs[0].token_ids
    assert not any(ids[at : at + len(word_ids)] == word_ids for word_ids in banned for at in range(len(ids)))


def test_without_chunked_prefill_a_prompt_longer_than_a_step_is_refused(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=64, max_num_batched_tokens=8, enable_chunked_prefill=False)
    with pytest.raises(RequestError, match="max_num_batched_tokens=8") as caught:
        llm.core.prepare(list(range(10, 19)), SamplingParams(max_tokens=1))
    assert caught.value.param == "prompt"
    [output] = llm.generate([list(range(10, 18))], SamplingParams(max_tokens=12, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == 12, "decoding on beyond a step's length is no prefill"


def test_priority_needs_the_priority_policy(tiny_model_dir, llm):
    with pytest.raises(RequestError) as caught:
        llm.generate("hello", SamplingParams(), priority=1)
    assert caught.value.param == "priority" and not llm.core.has_work()
    urgent = LLM(tiny_model_dir, num_kv_blocks=64, max_num_seqs=1, scheduling_policy="priority")
    outputs = urgent.generate(["a", "b", "c"], SamplingParams(max_tokens=3), priority=[5, 0, -5])
    finished = [output.metrics.finished for output in outputs]
    assert finished[2] < finished[1] < finished[0]


@pytest.mark.parametrize("fields", [{"priority": 0.5}, {"priority": True}, {"cache_salt": ""}, {"cache_salt": 5}])
def test_a_malformed_priority_or_salt_is_refused_by_name(llm, fields):
    with pytest.raises(RequestError) as caught:
        llm.core.prepare("hello", SamplingParams(), **fields)
    assert caught.value.param in fields


def test_each_prompt_has_its_own_or_all_share_one(llm):
    for fields in ({"priority": [0]}, {"cache_salt": ["a", "b", "c"]}, {"params": [SamplingParams()]}):
        with pytest.raises(RequestError, match="2 prompts need as many"):
            llm.generate(["one", "two"], **fields)
    prompt = "a prompt that is long enough to fill a block of sixteen tokens, and then some more " * 2
    params = SamplingParams(max_tokens=1)
    first = llm.generate([prompt] * 2, params, cache_salt=["p", "q"])
    assert [output.num_cached_tokens for output in first] == [0, 0]
    [again] = llm.generate(prompt, params, cache_salt="p")
    assert again.num_cached_tokens > 0 and again.num_cached_tokens % llm.config.block_size == 0


def test_the_makers_of_the_model_set_the_defaults_and_params_are_taken_as_they_are(tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "tiny")
    recommended = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1, "max_new_tokens": 5}
    (folder / "generation_config.json").write_text(json.dumps(recommended | {"eos_token_id": 2, "do_sample": True}))
    llm = LLM(folder, num_kv_blocks=64)
    default = llm.get_default_sampling_params()
    assert default == SamplingParams(temperature=0.7, top_k=20, top_p=0.9, repetition_penalty=1.1, max_tokens=5)
    core, seen = llm.core, []
    prepare = core.prepare
    core.prepare = lambda prompt, params, **rest: seen.append(params) or prepare(prompt, params, **rest)
    llm.generate("hello")
    llm.generate("hello", SamplingParams(temperature=0.0))
    assert seen == [default, SamplingParams(temperature=0.0)]
    (folder / "generation_config.json").write_text(json.dumps({"temperature": -1, "eos_token_id": 2}))
    with pytest.raises(ConfigError, match="temperature"):
        llm.get_default_sampling_params()


def test_a_model_without_recommendations_has_the_usual_defaults(llm):
    assert llm.get_default_sampling_params() == SamplingParams()

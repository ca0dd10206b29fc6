"""The draft head that travels with the package: it loads by its target's name, pays, and changes no text."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from jsonschema import Draft202012Validator

from minillm_serve import LLM, SamplingParams, StructuredOutputsParams
from minillm_serve.bench.prompts import PROMPTS, SCHEMA_CASES
from minillm_serve.config import ConfigError
from minillm_serve.distill.card import card_text
from minillm_serve.model.store import DEFAULT_MODEL, shipped_head

MOST_BYTES = 25_000_000
LEAST_TOKENS_PER_STEP = 1.9
SPECULATION = {"method": "eagle", "model": DEFAULT_MODEL, "num_speculative_tokens": 6}


def test_it_is_small_enough_and_its_card_says_what_its_training_measured():
    folder = shipped_head(DEFAULT_MODEL)
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES
    training, config = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("training", "config"))
    assert (folder / "README.md").read_text("utf-8") == card_text(training, config)
    assert training["curve"][0]["loss"][0] > 2 * training["curve"][-1]["loss"][0]
    assert len(training["held_out"]["greedy"]["acceptance"]) == training["settings"]["steps"]


@pytest.mark.parametrize("name", ["smollm2", "../drafts/smollm2-135m", "", "."])
def test_no_head_comes_for_other_names(name):
    assert shipped_head(name) is None


@pytest.mark.model
def test_chats_take_half_the_steps_and_say_the_same():
    prompts = [[{"role": "user", "content": text}] for text in PROMPTS[::7]]
    expected, got = LLM(max_num_seqs=1, num_kv_blocks=64), drafting()
    steps: list[int] = []
    got.core.on_step = lambda stats: steps.append(stats.new_tokens)
    params = SamplingParams(temperature=0, max_tokens=48)
    assert texts(got.chat(prompts, params)) == texts(expected.chat(prompts, params))
    decoding = [count for count in steps if count]
    assert sum(decoding) / len(decoding) > LEAST_TOKENS_PER_STEP


@pytest.mark.model
def test_guided_and_sampled_answers_are_the_same():
    case = SCHEMA_CASES[0]
    params = [
        SamplingParams(temperature=0, max_tokens=80, structured_outputs=StructuredOutputsParams(json=case.schema)),
        SamplingParams(temperature=0.8, top_p=0.9, seed=7, max_tokens=32, repetition_penalty=1.1),
    ]
    asked = [[{"role": "user", "content": case.prompts[0]}]] * 2
    expected, got = (texts(llm.chat(asked, params)) for llm in (LLM(max_num_seqs=2, num_kv_blocks=64), drafting()))
    assert got == expected
    Draft202012Validator(case.schema).validate(json.loads(got[0]))


@pytest.mark.model
def test_the_target_may_draft_for_itself():
    """With draft_model a known model's name is the model."""
    config = {"method": "draft_model", "model": DEFAULT_MODEL, "num_speculative_tokens": 2, "dynamic": False}
    llm = LLM(speculative_config=config, max_num_seqs=1, num_kv_blocks=32)
    drafts: list[tuple[int, int]] = []
    llm.core.on_step = lambda stats: drafts.extend(stats.drafts)
    llm.generate(["The capital of France is"], SamplingParams(temperature=0, max_tokens=12))
    assert drafts and all(drafted == accepted for drafted, accepted in drafts)


def test_a_head_for_another_target_is_refused(tiny_model_dir):
    with pytest.raises(ConfigError, match="made for a target of hidden size 576"):
        LLM(tiny_model_dir, speculative_config=SPECULATION)


def drafting() -> LLM:
    return LLM(speculative_config=SPECULATION, max_num_seqs=2, num_kv_blocks=64)


def texts(outputs: Sequence) -> list[str]:
    return [output.outputs[0].text for output in outputs]

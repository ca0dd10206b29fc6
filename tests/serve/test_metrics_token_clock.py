"""What the steps book adds up to what the answers hold: every token once, every wait between two outputs once."""

from __future__ import annotations

from pathlib import Path

from minillm_serve import LLM, SamplingParams
from minillm_serve.engine.core import StepStats
from minillm_serve.params import StructuredOutputsParams
from minillm_serve.request import RequestOutput


def watched(llm: LLM, prompts: list[str], params: list[SamplingParams]) -> tuple[list[StepStats], list[RequestOutput]]:
    steps: list[StepStats] = []
    llm.core.on_step = steps.append
    outputs = llm.generate(prompts, params)
    llm.core.on_step = None
    return steps, outputs


def tokens_in(outputs: list[RequestOutput]) -> int:
    return sum(len(sample.token_ids) for output in outputs for sample in output.outputs)


def test_samples_stop_strings_and_preemptions_change_nothing_about_the_sum(tiny_model_dir: Path):
    llm = LLM(tiny_model_dir, num_kv_blocks=12, block_size=4, enable_prefix_caching=False)
    kinds = [
        {"max_tokens": 12, "ignore_eos": True},
        {"max_tokens": 12, "n": 3, "temperature": 1.0, "seed": 1, "ignore_eos": True},
        {"max_tokens": 12, "stop": ["a", "e", "i", " "], "temperature": 1.0, "seed": 2},
    ]
    params = [SamplingParams(**kinds[number % 3]) for number in range(9)]
    steps, outputs = watched(llm, [f"prompt {number}" for number in range(9)], params)
    assert llm.stats().num_preemptions > 0, "the cache is too small for all"
    assert sum(step.new_tokens for step in steps) == tokens_in(outputs)
    sequences = sum(len(output.outputs) for output in outputs)
    assert sum(sum(step.intervals.values()) for step in steps) == tokens_in(outputs) - sequences


def test_tokens_of_a_jump_ahead_come_together_after_one_wait(tiny_model_dir: Path):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    constraint = StructuredOutputsParams(choice=("abcdefghijklmnopqrstuvwxyz", "bcdefghijklmnopqrstuvwxyza"))
    steps, [output] = watched(llm, ["x"], [SamplingParams(max_tokens=60, structured_outputs=constraint)])
    tokens, forced = len(output.outputs[0].token_ids), sum(step.forced_tokens for step in steps)
    assert sum(step.new_tokens for step in steps) == tokens and 0 < forced < tokens
    with_tokens = sum(step.new_tokens > 0 for step in steps)
    assert sum(sum(step.intervals.values()) for step in steps) == with_tokens - 1


def test_tokens_behind_a_stop_string_in_a_jump_ahead_do_not_count(tiny_model_dir: Path):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    constraint = StructuredOutputsParams(choice=("abcdefghijklmnopqrstuvwxyz",))
    params = SamplingParams(max_tokens=60, structured_outputs=constraint, stop=["k"])
    steps, [output] = watched(llm, ["x"], [params])
    assert output.outputs[0].text == "abcdefghij"
    assert sum(step.new_tokens for step in steps) == len(output.outputs[0].token_ids)


def test_sequences_that_go_side_by_side_are_one_entry(tiny_model_dir: Path):
    llm = LLM(tiny_model_dir, num_kv_blocks=200)
    steps, _ = watched(llm, ["a"] * 20, [SamplingParams(max_tokens=8, ignore_eos=True)] * 20)
    decodes = [step for step in steps if step.intervals]
    assert len(decodes) == 7 and all(list(step.intervals.values()) == [20] for step in decodes)
    assert all(interval > 0 for step in decodes for interval in step.intervals)


def test_nobody_watching_costs_no_booking(tiny_model_dir: Path):
    llm = LLM(tiny_model_dir, num_kv_blocks=64)
    asked: list[object] = []
    llm.core._samples_of = lambda changed: asked.append(changed) or []
    llm.generate(["a"], SamplingParams(max_tokens=4))
    assert not asked

"""Prefix hits in the real engine: fewer tokens are computed, and no answer changes."""

from __future__ import annotations

import pytest

from minillm_serve import LLM, SamplingParams

SHARED = "You are a helpful assistant. Answer in one short sentence, please, and never guess. "
PROMPTS = [SHARED + question for question in ("Who are you?", "What is two and two?", "Who are you?", "Why?")]
GREEDY = SamplingParams(max_tokens=10, temperature=0.0, ignore_eos=True)
CONFIGURATIONS = {
    "roomy": {"num_kv_blocks": 256},
    "small blocks": {"num_kv_blocks": 400, "block_size": 4},
    "chunked": {"num_kv_blocks": 256, "max_num_batched_tokens": 7, "block_size": 4},
    "evicting": {"num_kv_blocks": 30, "block_size": 4},
    "one at a time": {"num_kv_blocks": 256, "max_num_seqs": 1},
    "static": {"num_kv_blocks": 256, "max_num_seqs": 2, "batching": "static"},
    "by priority": {"num_kv_blocks": 256, "scheduling_policy": "priority"},
    "whole prompts": {"num_kv_blocks": 256, "enable_chunked_prefill": False},
}


def answers(llm: LLM) -> list[tuple[int, ...]]:
    return [tuple(output.outputs[0].token_ids) for output in llm.generate(PROMPTS, GREEDY)]


@pytest.fixture(scope="module")
def uncached(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=256, enable_prefix_caching=False)
    expected = answers(llm)
    assert llm.core.scheduler.kv.stats.hits == 0
    return expected


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_answers_are_the_same_from_the_cache(tiny_model_dir, uncached, name):
    """The first round shares within the batch, the second finds what the first has left."""
    llm = LLM(tiny_model_dir, **CONFIGURATIONS[name])
    stats = llm.core.scheduler.kv.stats
    assert answers(llm) == uncached
    first = stats.hits
    assert answers(llm) == uncached
    assert stats.hits > first > 0
    assert (stats.evictions > 0) == (name == "evicting")
    llm.core.scheduler.check()
    assert llm.stats().kv_blocks_used == 0


def test_the_second_turn_of_a_conversation_computes_only_what_is_new(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=256, block_size=4)
    prompt = llm.tokenizer.encode(SHARED)
    [turn] = llm.generate([prompt], GREEDY)
    longer = [*prompt, *turn.outputs[0].token_ids, 5, 6, 7]
    [answer] = llm.generate([longer], GREEDY)
    computed_before = len(prompt) + 9  # the last generated token was never computed on
    assert answer.metrics.num_cached_tokens == computed_before // 4 * 4


def test_after_an_interrupted_step_nothing_unwritten_is_believed(tiny_model_dir, uncached):
    """Ctrl-C in the middle of a step: the engine goes on, and what that step had published is not found."""
    llm = LLM(tiny_model_dir, num_kv_blocks=256)
    forward, runner = llm.core.runner.model.forward, llm.core.runner

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    runner.model.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS, GREEDY)
    runner.model.forward = forward
    assert answers(llm) == uncached
    llm.core.scheduler.check()


def test_a_reset_makes_the_next_request_do_all_the_work(tiny_model_dir):
    llm = LLM(tiny_model_dir, num_kv_blocks=256)
    first, again = (llm.generate(PROMPTS[0], GREEDY)[0] for _ in range(2))
    llm.reset_prefix_cache()
    afresh = llm.generate(PROMPTS[0], GREEDY)[0]
    assert (first.num_cached_tokens, afresh.num_cached_tokens) == (0, 0) and again.num_cached_tokens > 0
    assert first.outputs[0].token_ids == afresh.outputs[0].token_ids

"""Speculation changes no answer: the same tokens, texts, endings and log-probabilities, whoever drafts.

The truth is what a request gets alone, in an engine that does not speculate.
"""

from __future__ import annotations

import functools
from pathlib import Path
from random import Random
from typing import Any

import pytest
from test_cross_product import ENGINES, FEATURES, FEW, REQUESTS, SCHEMA, alone, logprobs, told, without_logprobs
from tiny_drafts import noisy_copy, tiny_head

from minillm_kernels import resolve
from minillm_serve import LLM, SamplingParams, StructuredOutputsParams

METHODS = {
    "ngram": {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 3},
    "suffix": {"method": "suffix", "suffix_decoding_min_token_prob": 0.0, "suffix_decoding_max_spec_factor": 4.0},
    "draft_model": {"method": "draft_model", "num_speculative_tokens": 3},
    "draft_model, sampled": {
        "method": "draft_model", "num_speculative_tokens": 3, "draft_sample_method": "probabilistic",
    },
    "eagle": {"method": "eagle", "num_speculative_tokens": 3},
    "eagle, sampled": {"method": "eagle", "num_speculative_tokens": 2, "draft_sample_method": "probabilistic"},
}  # fmt: skip
DRAFTED = (*range(3, 200, 7), *FEW)  # what the head can say


@functools.cache
def drafting(target: Path, method: str) -> dict[str, Any]:
    """A method's configuration. Every step drafts all it may: whether that pays is another question."""
    config = {**METHODS[method], "dynamic": False}
    if config["method"] == "draft_model":
        folder = target.parent / "noisy"
        config["model"] = str(folder if folder.exists() else noisy_copy(target, folder))
    elif config["method"] == "eagle":
        config["model"] = str(tiny_head(target, target.parent / "head", sorted(set(DRAFTED))))
    return config


class Count:
    """What an engine drafted and accepted."""

    def __init__(self, llm: LLM):
        self.drafted = self.accepted = 0
        lengths = llm.core.runner.speculation.lengths
        self._observe, lengths.observe = lengths.observe, self._count

    def _count(self, rid: int, drafted: int, accepted: int) -> None:
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted
        self._observe(rid, drafted, accepted)


@functools.cache
def together(folder: Path, engine: str, method: str) -> dict[tuple[str, str], list[Any]]:
    llm = LLM(folder, **ENGINES[engine], speculative_config=drafting(folder, method))
    count = Count(llm)
    llm.generate([prompt for prompt, _, _ in REQUESTS[:2]], SamplingParams(max_tokens=1, temperature=0))
    outputs = llm.generate([prompt for prompt, _, _ in REQUESTS], [params for _, _, params in REQUESTS])
    assert 0 < count.accepted < count.drafted, f"{method}: {count.accepted} of {count.drafted} drafts stood"
    assert (llm.stats().num_preemptions > 0) == (engine in ("preemption", "all of them"))
    llm.core.scheduler.check()
    return {(feature, prompt): told(output) for (prompt, feature, _), output in zip(REQUESTS, outputs, strict=True)}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", METHODS)
def test_every_feature_beside_all_others(tiny_model_dir, method, engine, feature):
    truth, drafted = alone(tiny_model_dir, "float32"), together(tiny_model_dir, engine, method)
    for prompt in {prompt for prompt, _, _ in REQUESTS}:
        expected, got = truth[feature, prompt], drafted[feature, prompt]
        if resolve("auto").name == "cpp":
            assert got == expected
        else:
            assert without_logprobs(got) == without_logprobs(expected)
            assert logprobs(got) == pytest.approx(logprobs(expected), abs=1e-4)


def any_params(rng: Random) -> SamplingParams:
    """Greedy, with a random handful of everything that may change or end a text."""
    few = sorted(rng.sample(range(40, 140), rng.randrange(4, 30)))
    guides = (
        {"json": SCHEMA},
        {"regex": "(ab|cd|[0-9]){3,12}"},
        {"choice": ("Paris", "Parma", "the cache keeps what was computed")},
        {"json": SCHEMA, "always_closes": True},
    )
    chances: tuple[tuple[float, dict[str, Any]], ...] = (
        (0.5, {"allowed_token_ids": tuple(few)}),
        (0.2, {"repetition_penalty": rng.choice((0.8, 1.3))}),
        (0.2, {"presence_penalty": rng.uniform(-2, 2), "frequency_penalty": rng.uniform(-2, 2)}),
        (0.2, {"logit_bias": {token: rng.uniform(-9, 9) for token in few[:4]}}),
        (0.2, {"bad_words_ids": ((few[0],), (few[1], few[2]), (few[3], few[3], few[3]))}),
        (0.2, {"stop_token_ids": tuple(few[:2]), "min_tokens": rng.randrange(4)}),
        (0.2, {"stop": ("a", "GH", "F"), "include_stop_str_in_output": rng.random() < 0.5}),
        (0.3, {"logprobs": rng.randrange(3)}),
        (0.2, {"ignore_eos": True}),
        (0.1, {"prompt_logprobs": 1}),
        (0.2, {"structured_outputs": StructuredOutputsParams(**rng.choice(guides))}),
    )
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": rng.randrange(8, 40)}
    for chance, fields in chances:
        if rng.random() < chance:
            asked |= fields
    if "structured_outputs" in asked:  # the grammar decides which token may come, and when the text ends
        for contradiction in ("allowed_token_ids", "ignore_eos", "stop_token_ids", "min_tokens"):
            asked.pop(contradiction, None)
        asked["max_tokens"] = 48
    return SamplingParams(**asked)


RANDOM = Random(7)
CASES = [
    ([RANDOM.randrange(3, 500) for _ in range(RANDOM.randrange(1, 40))] * RANDOM.choice((1, 1, 2)), any_params(RANDOM))
    for _ in range(500)
]


@functools.cache
def plain(folder: Path) -> list[list[Any]]:
    llm = LLM(folder, num_kv_blocks=800, enable_prefix_caching=False)
    return [told(output) for output in llm.generate([ids for ids, _ in CASES], [params for _, params in CASES])]


@pytest.mark.parametrize("method", METHODS)
def test_500_prompts_with_random_features(tiny_model_dir, method):
    llm = LLM(
        tiny_model_dir, num_kv_blocks=60, block_size=8, max_num_batched_tokens=96,
        speculative_config=drafting(tiny_model_dir, method),
    )  # fmt: skip
    count = Count(llm)
    got = [told(output) for output in llm.generate([ids for ids, _ in CASES], [params for _, params in CASES])]
    assert 0 < count.accepted < count.drafted
    assert llm.stats().num_preemptions > 0
    exact = resolve("auto").name == "cpp"
    for (_, params), one, expected in zip(CASES, got, plain(tiny_model_dir), strict=True):
        assert (one == expected) if exact else (without_logprobs(one) == without_logprobs(expected)), params


class InTurns:
    """Draft lengths that come and go: seven steps with drafts, seven without, in which the engine may run ahead."""

    resting = False

    def __init__(self, most: int):
        self.most, self.step = most, 0

    def lengths(self, rids, peek=False):
        step = self.step + 1
        if not peek:
            self.step = step
        return dict.fromkeys(rids, self.most if step // 7 % 2 else 0)

    def observe(self, rid, drafted, accepted):
        pass

    def drop(self, rid):
        pass


@pytest.mark.parametrize("method", ["ngram", "draft_model", "eagle"])
def test_an_engine_that_runs_ahead_between_drafts(tiny_model_dir, method):
    """What was computed ahead is unknown to a draft head, and no draft may follow it."""
    llm = LLM(
        tiny_model_dir, num_kv_blocks=60, block_size=8, max_num_batched_tokens=96, async_scheduling=True,
        speculative_config=drafting(tiny_model_dir, method),
    )  # fmt: skip
    llm.core.runner.speculation.lengths = InTurns(3)
    count, ahead = Count(llm), 0
    schedule = llm.core.scheduler.schedule

    def watched(early: bool = False):
        nonlocal ahead
        ahead += early
        plan = schedule(early)
        llm.core.scheduler.check()
        return plan

    llm.core.scheduler.schedule = watched
    free = [index for index, (_, params) in enumerate(CASES) if not holds_up(params)]
    outputs = llm.generate([CASES[index][0] for index in free], [CASES[index][1] for index in free])
    assert 0 < count.accepted < count.drafted and ahead > 20
    for index, output in zip(free, outputs, strict=True):
        got, expected = told(output), plain(tiny_model_dir)[index]
        same = got == expected if resolve("auto").name == "cpp" else without_logprobs(got) == without_logprobs(expected)
        assert same, CASES[index][1]


def holds_up(params: SamplingParams) -> bool:
    """Whether the host must know each token before the next is drawn."""
    penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1, 0, 0)
    constrained = params.structured_outputs is not None or params.bad_words_ids or params.min_tokens
    return bool(penalties or constrained or params.prompt_logprobs is not None)

"""Every sampling feature, through every way a request can be run: the outputs do not change.

A request alone in a roomy engine without prefix cache is the truth. Beside all the others, after a prefix hit, with its
prompt read in small chunks, preempted, or all of that at once, it must give the same tokens, text, ending and
log-probabilities. With the compiled kernels the log-probabilities are the same bit for bit.
"""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from minillm_kernels import resolve
from minillm_serve import LLM, RequestOutput, SamplingParams, StructuredOutputsParams

SHARED = "Once upon a time there was a small engine that answered many questions at once. "
PROMPTS = (SHARED + "The scheduler gives", SHARED + "Count to ten: 1, 2, 3")
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 150}}, "required": ["age"]}
COMMON = tuple(range(40, 140))
FEW = COMMON[:8]  # so few that a text repeats itself

FEATURES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "temperature": {"temperature": 1.2},
    "top_k": {"top_k": 5},
    "top_p": {"top_p": 0.7},
    "min_p": {"min_p": 0.2},
    "typical_p": {"typical_p": 0.6},
    "repetition_penalty": {"temperature": 0, "repetition_penalty": 1.6, "allowed_token_ids": FEW},
    "presence_penalty": {"temperature": 0, "presence_penalty": 1.9, "allowed_token_ids": FEW},
    "frequency_penalty": {"temperature": 0.5, "frequency_penalty": 1.5, "allowed_token_ids": FEW},
    "logit_bias": {"temperature": 0, "logit_bias": {50: 6.0, 51: 5.5, 52: -100.0}},
    "allowed_token_ids": {"allowed_token_ids": COMMON},
    "bad_words": {"allowed_token_ids": FEW, "bad_words": ("F", "GH", "HG", "M"), "bad_words_ids": ((43, 44),)},
    "min_tokens": {"allowed_token_ids": (*COMMON, 2), "min_tokens": 6, "ignore_eos": False, "logit_bias": {2: 12.0}},
    "stop_token_ids": {"stop_token_ids": tuple(range(100, 130))},
    "stop": {"allowed_token_ids": FEW, "stop": ("KM", "L", "F")},
    "include_stop_str_in_output": {
        "allowed_token_ids": FEW, "stop": ("KM", "L", "F"), "include_stop_str_in_output": True, "min_tokens": 3,
    },
    "skip_special_tokens": {"allowed_token_ids": (*FEW, 0, 1), "skip_special_tokens": False},
    "structured_outputs": {"structured_outputs": StructuredOutputsParams(json=SCHEMA), "ignore_eos": False},
    "logprobs": {"logprobs": 3},
    "logprobs of all": {"logprobs": -1, "max_tokens": 3},
    "prompt_logprobs": {"prompt_logprobs": 2},
    "n": {"n": 3},
    "best_of": {"n": 2, "best_of": 4, "top_k": 20},
    "penalties and filters": {
        "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5, "top_k": 30, "top_p": 0.9,
        "min_p": 0.02, "typical_p": 0.95, "logprobs": 2,
    },
    "masks and biases": {
        "allowed_token_ids": COMMON, "bad_words_ids": ((60,), (61, 62)), "logit_bias": {50: 2.0}, "top_p": 0.8,
        "presence_penalty": 0.7, "logprobs": 0, "prompt_logprobs": 0, "n": 2,
    },
    "guided, biased, n": {
        "structured_outputs": StructuredOutputsParams(json=SCHEMA), "ignore_eos": False, "n": 2, "top_k": 40,
        "frequency_penalty": 0.3, "logprobs": 1,
    },
}  # fmt: skip

ENGINES: dict[str, dict[str, Any]] = {
    "one batch": {"num_kv_blocks": 400, "enable_prefix_caching": False},
    "prefix hit": {"num_kv_blocks": 400, "block_size": 4},
    "chunked prefill": {"num_kv_blocks": 400, "max_num_batched_tokens": 5, "enable_prefix_caching": False},
    "preemption": {"num_kv_blocks": 44, "block_size": 4, "enable_prefix_caching": False},
    "all of them": {"num_kv_blocks": 20, "block_size": 4, "max_num_batched_tokens": 7},
}
ARITHMETIC: dict[str, dict[str, Any]] = {
    "float32": {},
    "int8": {"quantization": "int8", "kv_cache_dtype": "int8"},
}


def params_for(feature: str, number: int, without: bool = False) -> SamplingParams:
    """without: all but the feature itself."""
    defaults = {"max_tokens": 16, "temperature": 1.0, "seed": number, "ignore_eos": True}
    asked = {**defaults, **FEATURES[feature]}
    if without:
        asked = {name: value for name, value in asked.items() if name in defaults or feature in FEATURES[feature]}
        asked.pop(feature, None)
    return SamplingParams(**asked)


REQUESTS = [
    (prompt, feature, params_for(feature, number))
    for number, (feature, prompt) in enumerate((feature, prompt) for feature in FEATURES for prompt in PROMPTS)
]


def told(output: RequestOutput) -> list[Any]:
    """All that a user sees of a request."""
    return [asdict(sample) for sample in output.outputs] + [output.prompt_logprobs]


@functools.cache
def alone(folder: Path, arithmetic: str) -> dict[tuple[str, str], list[Any]]:
    llm = LLM(folder, num_kv_blocks=64, enable_prefix_caching=False, **ARITHMETIC[arithmetic])
    return {(feature, prompt): told(llm.generate(prompt, params)[0]) for prompt, feature, params in REQUESTS}


@functools.cache
def together(folder: Path, engine: str, arithmetic: str) -> dict[tuple[str, str], list[Any]]:
    """All requests at once, after proof that the engine does what its name says."""
    llm = LLM(folder, **ENGINES[engine], **ARITHMETIC[arithmetic])
    llm.generate(list(PROMPTS), SamplingParams(max_tokens=1, temperature=0))
    outputs = llm.generate([prompt for prompt, _, _ in REQUESTS], [params for _, _, params in REQUESTS])
    hits = [output.num_cached_tokens for output in outputs if output.prompt_logprobs is None]
    assert all(hits) if engine == "prefix hit" else any(hits) == (engine == "all of them")
    assert (llm.stats().num_preemptions > 0) == (engine in ("preemption", "all of them"))
    return {(feature, prompt): told(output) for (prompt, feature, _), output in zip(REQUESTS, outputs, strict=True)}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arithmetic", ARITHMETIC)
def test_outputs_do_not_change(tiny_model_dir, arithmetic, engine, feature):
    compiled = resolve("auto").name == "cpp"
    if arithmetic == "int8" and not compiled:
        pytest.skip("rounding to 8 bits makes a last bit's difference a large one: only the compiled kernels are exact")
    truth, all_of_them = alone(tiny_model_dir, arithmetic), together(tiny_model_dir, engine, arithmetic)
    for prompt in PROMPTS:
        expected, got = truth[feature, prompt], all_of_them[feature, prompt]
        if compiled:
            assert got == expected
        else:
            assert without_logprobs(got) == without_logprobs(expected)
            assert logprobs(got) == pytest.approx(logprobs(expected), abs=1e-4)


def without_logprobs(answer: list[Any]) -> list[Any]:
    return [
        {name: value for name, value in sample.items() if "logprob" not in name}
        for sample in answer
        if isinstance(sample, dict)
    ]


def logprobs(answer: list[Any]) -> list[float]:
    *samples, prompt = answer
    entries = [entry for sample in samples for entry in sample["logprobs"] or ()]
    entries += [asdict(entry) for entry in prompt or () if entry is not None]
    return [value for entry in entries for value in (entry["logprob"], *(p for _, p in entry["top"]))]


def test_every_feature_shows_in_its_outputs(tiny_model_dir):
    """A feature that is ignored would pass the test above: each must change what the request gives without it."""
    truth = alone(tiny_model_dir, "float32")
    llm = LLM(tiny_model_dir, num_kv_blocks=64, enable_prefix_caching=False)
    for number, (prompt, feature, _) in enumerate(REQUESTS):
        if feature not in ("greedy", "temperature"):
            [output] = llm.generate(prompt, params_for(feature, number, without=True))
            assert truth[feature, prompt] != told(output), feature

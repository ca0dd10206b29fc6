"""Every parameter of an answer, on both endpoints, whole and streamed; all greedy except where the name says so."""

from __future__ import annotations

from typing import Any

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.cases.making import LEAVE_OUT, chat, completion, streamed

LIST = "Count: one, two, three, four,"
POEM = "Roses are red, violets are blue,"

COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"max_tokens": 48},
    "one-token": {"max_tokens": 1},
    "default-max-tokens": {"max_tokens": LEAVE_OUT, "stop": ["."]},
    "presence-penalty": {"presence_penalty": 1.5, "max_tokens": 16},
    "presence-penalty-negative": {"presence_penalty": -2.0, "max_tokens": 12},
    "frequency-penalty": {"frequency_penalty": 1.5, "max_tokens": 16},
    "repetition-penalty": {"repetition_penalty": 1.4, "max_tokens": 16},
    "repetition-penalty-below-one": {"repetition_penalty": 0.7, "max_tokens": 10},
    "penalties-together": {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1,
                           "max_tokens": 16},
    "logit-bias": {"logit_bias": {"28": -100, "198": -100}, "max_tokens": 12},
    "logit-bias-up": {"logit_bias": {"253": 100}, "max_tokens": 4},
    "logit-bias-clamped": {"logit_bias": {"253": 1000}, "max_tokens": 4},
    "allowed-token-ids": {"allowed_token_ids": [253, 282, 284, 28], "max_tokens": 6},
    "bad-words": {"bad_words": ["Paris", "the"], "max_tokens": 12},
    "bad-words-of-several-tokens": {"bad_words": ["is the capital", "of France"], "max_tokens": 14},
    "min-tokens": {"min_tokens": 14, "max_tokens": 20},
    "min-tokens-before-stop": {"min_tokens": 6, "stop": ["."], "max_tokens": 24},
    "stop-string": {"stop": "a", "max_tokens": 24},
    "stop-list": {"stop": ["zzz", " is", "."], "max_tokens": 24},
    "stop-across-tokens": {"stop": ["is. ", "aris", "France is"], "max_tokens": 24},
    "stop-included": {"stop": [".", "is"], "include_stop_str_in_output": True, "max_tokens": 24},
    "stop-empty-list": {"stop": [], "max_tokens": 4},
    "stop-null": {"stop": None, "max_tokens": 4},
    "stop-token-ids": {"stop_token_ids": [30, 28], "max_tokens": 24},
    "stop-token-ids-kept": {"stop_token_ids": [30, 28], "include_stop_str_in_output": True, "max_tokens": 24},
    "ignore-eos": {"ignore_eos": True, "max_tokens": 24},
    "ignore-eos-with-special-tokens": {"ignore_eos": True, "skip_special_tokens": False, "max_tokens": 24},
    "special-tokens-shown": {"skip_special_tokens": False, "max_tokens": 32},
    "no-spaces-between-special-tokens": {"spaces_between_special_tokens": False, "max_tokens": 4},
    "token-ids": {"return_token_ids": True},
    "token-ids-false": {"return_token_ids": False},
    "truncated-left": {"truncate_prompt_tokens": 12, "return_token_ids": True},
    "truncated-right": {"truncate_prompt_tokens": 12, "truncation_side": "right", "return_token_ids": True},
    "truncated-to-more-than-there-is": {"truncate_prompt_tokens": 500, "return_token_ids": True},
    "truncated-to-what-fits": {"truncate_prompt_tokens": -1, "return_token_ids": True},
    "seed": {"seed": 7},
    "priority": {"priority": 3},
    "cache-salt": {"cache_salt": "a-secret"},
    "user": {"user": "somebody"},
    "request-id": {"request_id": "my-own-request"},
    "stream-interval": {"stream_interval": 3},
    "top-k": {"top_k": 5},
    "top-k-off": {"top_k": -1},
    "top-p-at-temperature-0": {"top_p": 0.5},
    "min-p-at-temperature-0": {"min_p": 0.5},
    "every-null": {name: None for name in (
        "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "presence_penalty",
        "frequency_penalty", "repetition_penalty", "logit_bias", "allowed_token_ids", "stream_options",
        "response_format", "structured_outputs", "truncate_prompt_tokens", "prompt_logprobs", "user", "cache_salt",
        "return_token_ids", "stream_interval")} | {"temperature": 0},
    "unknown-field": {"no_such_parameter": 1},
    "beam-search-off": {"use_beam_search": False, "length_penalty": 1.0},
    "x-args-null": {"vllm_xargs": None, "kv_transfer_params": None},
    "no-model": {"model": LEAVE_OUT},
    "null-model": {"model": None},
    "alias": {"model": "smollm2-alias"},
}  # fmt: skip

SAMPLED: dict[str, dict[str, Any]] = {
    "n": {"n": 3, "temperature": 1.0, "seed": 1, "ignore_eos": True},
    "n-with-logprobs": {"n": 2, "temperature": 0.8, "seed": 1, "ignore_eos": True, "max_tokens": 3},
    "n-with-token-ids": {"n": 2, "temperature": 0.8, "return_token_ids": True, "ignore_eos": True},
    "seeded": {"temperature": 1.0, "seed": 11, "ignore_eos": True},
    "seed-negative": {"temperature": 1.0, "seed": -5, "ignore_eos": True, "max_tokens": 3},
    "top-p": {"temperature": 1.0, "top_p": 0.1, "seed": 2, "ignore_eos": True},
    "min-p": {"temperature": 1.0, "min_p": 0.2, "seed": 2, "ignore_eos": True},
    "default-temperature": {"temperature": LEAVE_OUT, "ignore_eos": True, "max_tokens": 3},
    "hot": {"temperature": 2.0, "seed": 3, "ignore_eos": True, "max_tokens": 3},
}


def cases() -> list[Case]:
    """Whole and streamed, on both endpoints."""
    made = []
    for name, fields in COMMON.items():
        made += [chat(name, **fields), completion(name, LIST if "penalty" in name else POEM, **fields)]
    for name, fields in SAMPLED.items():
        shape = {"logprobs": True, "top_logprobs": 2} if "logprobs" in name else {}
        legacy = {"logprobs": 2} if "logprobs" in name else {}
        made += [chat(name, **fields, **shape, alike="in form"), completion(name, **fields, **legacy, alike="in form")]
    return [*made, *streamed(made)]

"""A bound on what a small request can make of an answer: log-probabilities are the one field that multiplies."""

from __future__ import annotations

from collections.abc import Sequence

from minillm_serve.engine.group import RequestGroup
from minillm_serve.params import WHOLE_VOCABULARY, RequestError, SamplingParams

# About 100 bytes each in JSON. The longest answer of one sequence with 20 of them at each of 8,192 tokens has 172,032.
MAX_LOGPROBS = 2**20


def check_logprobs(groups: Sequence[RequestGroup], vocab_size: int) -> None:
    """All engine requests of one HTTP request. Raises :class:`RequestError` when they may bring too many."""
    asked = sum(_most_logprobs(group, vocab_size) for group in groups)
    if asked > MAX_LOGPROBS:
        raise RequestError(
            f"the answer may hold {asked} log-probabilities (tokens, times alternatives, times choices); at most "
            f"{MAX_LOGPROBS} fit in one: ask for fewer, or set max_tokens",
            "logprobs",
        )


def _most_logprobs(group: RequestGroup, vocab_size: int) -> int:
    params = group.params
    if not isinstance(params, SamplingParams):
        return 0
    prompt, first = len(group.prompt_token_ids), group.samples[0].request
    new = (first.max_total_tokens - prompt) * len(group.samples)
    return prompt * _each(params.prompt_logprobs, vocab_size) + new * _each(params.logprobs, vocab_size)


def _each(logprobs: int | None, vocab_size: int) -> int:
    if logprobs is None:
        return 0
    return 1 + (vocab_size if logprobs == WHOLE_VOCABULARY else logprobs)

"""``usage`` and ``metrics``: how many tokens a request had, and where its time went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minillm_serve.request import RequestOutput
from minillm_serve.serve.service import usage_of


def usage(outputs: Sequence[RequestOutput], details: bool, block_size: int | None = None) -> dict[str, Any]:
    """OpenAI's ``usage`` of the latest outputs of all prompts. details: tell how much the prefix cache spared.

    block_size: of that cache; tell also how many prompt tokens were put into it (vLLM does for chat).
    """
    cached = sum(output.num_cached_tokens for output in outputs)
    created = None if block_size is None else sum(_newly_cached(output, block_size) for output in outputs)
    told = {"cached_tokens": cached, "created_cache_tokens": created, "multimodal_tokens": None}
    return usage_of(outputs) | {
        "prompt_tokens_details": told if details else None,
        "completion_tokens_details": None,
    }


def timings(outputs: Sequence[RequestOutput]) -> dict[str, float | None] | None:
    """vLLM's per-request ``metrics``, in milliseconds; None unless one sequence alone is meant.

    time_to_first_token_ms counts from the first step that computed something of the request, queue_time_ms ends there;
    generation_time_ms is first token to last; tokens_per_second counts prefill too.
    """
    if len(outputs) != 1 or len(outputs[0].outputs) != 1:
        return None
    metrics, tokens = outputs[0].metrics, len(outputs[0].outputs[0].token_ids)
    decode = _between(metrics.first_token, metrics.finished)
    compute = _between(metrics.first_scheduled, metrics.finished)
    return {
        "time_to_first_token_ms": _between(metrics.first_scheduled, metrics.first_token),
        "generation_time_ms": decode,
        "queue_time_ms": _between(metrics.arrival, metrics.first_scheduled),
        "mean_itl_ms": None if decode is None or tokens < 2 else decode / (tokens - 1),
        "tokens_per_second": None if not compute else tokens / compute * 1000,
        "speculative_decoding": None,
    }


def _newly_cached(output: RequestOutput, block_size: int) -> int:
    """Whole blocks only are found again."""
    return max(0, len(output.prompt_token_ids) // block_size * block_size - output.num_cached_tokens)


def _between(start: float | None, end: float | None) -> float | None:
    """Milliseconds."""
    return None if start is None or end is None else (end - start) * 1000


def without_none(content: Any) -> Any:
    """What a stream's last chunk leaves out: fields that say nothing."""
    if not isinstance(content, dict):
        return content
    return {name: without_none(value) for name, value in content.items() if value is not None}

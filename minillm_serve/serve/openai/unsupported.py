"""Parameters of OpenAI or vLLM that this server knows and does not honour yet: refused by name, never ignored.

Clients and benchmark tools send many of them with the value that means "as usual"; those values are accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minillm_serve.params import RequestError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1.0,),
    "watermarking": (False,),
    "top_logprobs": (0,),
    "suffix": (),
    "spaces_between_special_tokens": (True, False),  # means nothing for the tokenizers that this server reads
    "prompt_embeds": ([],),
    "return_prompt_text": (False,),
    "tools": (),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "functions": (),
    "function_call": ("none",),
    "reasoning_effort": (),
    "include_reasoning": (True, False),  # no model here has a reasoning part to leave out
    "thinking_token_budget": (),
    "verbosity": ("medium",),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "mm_processor_kwargs": (),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "kv_transfer_params": (),
    "ec_transfer_params": (),
    "media_io_kwargs": ({},),
    "mm_payload": ("tensors", "none"),
    "return_mm_kwargs": (False, True),
    "return_token_offsets": (False,),
    "routed_experts_prompt_start": (0,),
    "vllm_xargs": (),
    "logits_processors": (),
    "repetition_detection": (),
}
REPLACED_BY = {
    "functions": 'tools=[{"type": "function", "function": ...}]',
    "function_call": 'tool_choice="auto" or {"type": "function", "function": {"name": ...}}',
}
STREAM_OPTIONS_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "include_obfuscation": (False,),
}
STRUCTURED_OUTPUTS_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "disable_fallback": (False, True),
    "disable_additional_properties": (False,),
    "whitespace_pattern": (),
}
LEGACY_GUIDED = (
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_json_object",
    "guided_decoding_backend",
    "guided_whitespace_pattern",
    "structural_tag",
)
IGNORED_BY_DEFINITION = frozenset(
    {"user", "metadata", "safety_identifier", "session_id", "prompt_cache_key", "prompt_cache_retention"}
)


def refuse_unsupported(extra: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]], prefix: str = "") -> list[str]:
    """Names in ``extra`` that nobody knows. Raises :class:`RequestError` on a known one that asks for something."""
    unknown = []
    for name, value in extra.items():
        if value is None or name in IGNORED_BY_DEFINITION:
            continue
        if name in LEGACY_GUIDED and not prefix:
            raise RequestError(_migration_hint(name), name)
        if name not in neutral:
            unknown.append(prefix + name)
        elif not _is_one_of(value, neutral[name]):
            raise RequestError(_refusal(prefix + name, neutral[name]), prefix + name)
    return unknown


def warning_header(unknown: Iterable[str], notes: Iterable[tuple[str, str, str]] = ()) -> dict[str, str]:
    """``x-minillm-warning``: ignored parameters, and keywords of a schema that are not enforced with their places.

    Printable ASCII, bounded; empty when there is nothing to say.
    """
    names = ", ".join(ascii(name[:40]) for name in unknown)
    places = ", ".join(ascii(f"{keyword[:40]} at {path[:60] or '(root)'}") for keyword, path, _ in notes)
    parts = [f"ignored unknown parameters: {names}"] if names else []
    parts += [f"not enforced: {places}"] if places else []
    return {"x-minillm-warning": "; ".join(parts)[:500]} if parts else {}


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Equality that tells true from 1 and takes 1 for 1.0."""
    return any(value == item and isinstance(value, bool) == isinstance(item, bool) for item in neutral)


def _refusal(name: str, neutral: tuple[Any, ...]) -> str:
    if name in REPLACED_BY:
        return f"{name} is OpenAI's former name: use {REPLACED_BY[name]}"
    accepted = " or ".join(["null", *(repr(item).lower() for item in neutral)])
    return f"{name} is not supported by this server yet: leave it out (accepted: {accepted})"


def _migration_hint(name: str) -> str:
    return (
        f"{name} no longer exists (vLLM removed it in 0.12 and now ignores it silently): use "
        'response_format={"type": "json_schema", "json_schema": {"name": ..., "schema": ...}} or '
        'structured_outputs={"json": ...}; a server started with --accept-legacy-guided still takes it'
    )

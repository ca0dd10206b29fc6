"""The kinds of fields that bodies share, each with its bound: nothing long is walked before its length is known."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from minillm_serve.params import MAX_LOGPROB_TOKEN_IDS, RequestError

MAX_PROMPTS = 1024
MAX_BAD_WORDS = 128
MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKEN_IDS = 1024
MAX_ALLOWED_TOKEN_IDS = 2**18
MAX_CACHE_SALT_CHARS = 128
INT64 = 2**63
COMPLETION_MAX_TOKENS = 16

Prompt = str | list[int]

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_STOP_SCHEMA = {"anyOf": [{"type": "string"}, _STRINGS | {"maxItems": 4}, {"type": "null"}]}
_PROMPT_SCHEMA = {
    "anyOf": [{"type": "string"}, _STRINGS, _IDS, {"type": "array", "items": _IDS, "maxItems": MAX_PROMPTS}]
}
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Body(BaseModel):
    """Strict types; unknown fields are kept in ``model_extra`` and judged by ``refuse_unsupported``."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


def _parse_stop(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise RequestError("stop must be a string or a list of strings", "stop")


def _parse_prompts(value: Any) -> list[Prompt]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if _is_ids(value):
            return [value]
        if len(value) > MAX_PROMPTS:
            raise RequestError(f"at most {MAX_PROMPTS} prompts fit in one request, got {len(value)}", "prompt")
        for index, item in enumerate(value):
            if not isinstance(item, str) and not _is_ids(item):
                raise RequestError("each prompt must be a string or a list of token ids", f"prompt.{index}")
        return value
    raise RequestError("prompt must be a string, a list of token ids, or a non-empty list of either", "prompt")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= {int}


def _clamped(value: dict[str, float]) -> dict[str, float]:
    """Amounts beyond 100 say what 100 says (vLLM)."""
    return {token: min(100.0, max(-100.0, amount)) for token, amount in value.items()}


def _check_salt(value: str | None) -> str | None:
    if value is not None and (not 0 < len(value) <= MAX_CACHE_SALT_CHARS or set(value) & set("@/\\\0")):
        raise RequestError(
            f"cache_salt must have 1 to {MAX_CACHE_SALT_CHARS} characters, none of them @, /, \\ or NUL", "cache_salt"
        )
    return value


def _check_request_id(value: str | None) -> str | None:
    if value is not None and not _SAFE_ID.fullmatch(value):
        raise RequestError("request_id must be 1 to 128 letters, digits, or any of . _ : -", "request_id")
    return value


def _shown(kind: str, **bounds: float) -> WithJsonSchema:
    """How a number is documented; SamplingParams or the server's settings keep its bounds, and say so by name."""
    return WithJsonSchema({"type": kind, **bounds})


Stop = Annotated[Any, AfterValidator(_parse_stop), WithJsonSchema(_STOP_SCHEMA)]
Prompts = Annotated[Any, AfterValidator(_parse_prompts), WithJsonSchema(_PROMPT_SCHEMA)]
Temperature = Annotated[float, _shown("number", minimum=0, maximum=2)] | None
Probability = Annotated[float, _shown("number", minimum=0, maximum=1)] | None
PositiveProbability = Annotated[float, _shown("number", exclusiveMinimum=0, maximum=1)] | None
Penalty = Annotated[float, _shown("number", minimum=-2, maximum=2)] | None
RepetitionPenalty = Annotated[float, _shown("number", exclusiveMinimum=0)] | None
TopK = Annotated[int, _shown("integer", minimum=-1)] | None
Count = Annotated[int, _shown("integer", minimum=0)] | None
AtLeastOne = Annotated[int, _shown("integer", minimum=1)] | None
Seed = Annotated[int, _shown("integer", minimum=-INT64, maximum=INT64 - 1)] | None
Alternatives = Annotated[int, _shown("integer", minimum=-1)] | None
LogitBias = Annotated[dict[str, float], Field(max_length=MAX_LOGIT_BIAS), AfterValidator(_clamped)] | None
BadWords = Annotated[list[str], Field(max_length=MAX_BAD_WORDS, fail_fast=True)] | None
StopTokenIds = Annotated[list[int], Field(max_length=MAX_STOP_TOKEN_IDS, fail_fast=True)] | None
AllowedTokenIds = Annotated[list[int], Field(max_length=MAX_ALLOWED_TOKEN_IDS, fail_fast=True)] | None
LogprobTokenIds = Annotated[list[int], Field(max_length=MAX_LOGPROB_TOKEN_IDS, fail_fast=True)] | None
CacheSalt = Annotated[str | None, AfterValidator(_check_salt)]
RequestId = Annotated[str | None, AfterValidator(_check_request_id)]
Int64 = Annotated[int, Field(ge=-INT64, lt=INT64)]
TruncationSide = Literal["left", "right"] | None

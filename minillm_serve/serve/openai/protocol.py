"""The bodies of the OpenAI API as vLLM reads them, and their translation into SamplingParams.

Every field is honoured here or refused in :mod:`minillm_serve.serve.openai.unsupported`; numbers out of range are
refused by SamplingParams itself.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from minillm_serve.params import RequestError, SamplingParams
from minillm_serve.serve.openai import constraints
from minillm_serve.serve.openai.messages import MESSAGES_SCHEMA, parse_messages
from minillm_serve.serve.openai.unsupported import (
    NEUTRAL,
    STREAM_OPTIONS_NEUTRAL,
    STRUCTURED_OUTPUTS_NEUTRAL,
    refuse_unsupported,
)

MAX_PROMPTS = 1024
COMPLETION_MAX_TOKENS = 16

Prompt = str | list[int]


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
    return isinstance(value, list) and all(type(item) is int for item in value)


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_STOP_SCHEMA = {"anyOf": [{"type": "string"}, _STRINGS | {"maxItems": 4}, {"type": "null"}]}
_PROMPT_SCHEMA = {"anyOf": [{"type": "string"}, _STRINGS, _IDS, {"type": "array", "items": _IDS}]}


class _Body(BaseModel):
    """Strict types; unknown fields are kept in ``model_extra`` and judged by ``refuse_unsupported``."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class StreamOptions(_Body):
    include_usage: bool | None = None


class GenerationRequest(_Body):
    """What chat and completions have in common."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Annotated[Any, AfterValidator(_parse_stop), WithJsonSchema(_STOP_SCHEMA)] = Field(None, validate_default=True)
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: constraints.ResponseFormat | None = None
    structured_outputs: constraints.StructuredOutputs | None = None
    return_token_ids: bool | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def client_names(self) -> dict[str, str]:
        """The engine's name of a field -> the path where this body has it, for the fields whose names differ."""
        return constraints.client_names(self.response_format)

    def unknown_fields(self) -> list[str]:
        """Names that are ignored. Raises :class:`RequestError` on known ones that are not supported."""
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options needs stream=true", "stream_options")
        unknown = refuse_unsupported(self.model_extra or {}, NEUTRAL)
        for name, neutral in (
            ("stream_options", STREAM_OPTIONS_NEUTRAL),
            ("structured_outputs", STRUCTURED_OUTPUTS_NEUTRAL),
            ("response_format", {}),
        ):
            part = getattr(self, name)
            if part is not None:
                unknown += refuse_unsupported(part.model_extra or {}, neutral, f"{name}.")
        return unknown

    def sampling_params(self, max_tokens: int | None, lenient: bool = False) -> SamplingParams:
        """Raises :class:`RequestError` naming the field that is out of range. lenient: what the header said."""
        given = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "seed", "ignore_eos")}
        return SamplingParams(
            max_tokens=max_tokens,
            stop=tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            structured_outputs=constraints.structured_outputs(self.response_format, self.structured_outputs, lenient),
            **{name: value for name, value in given.items() if value is not None},
        )


class ChatCompletionRequest(GenerationRequest):
    messages: Annotated[Any, AfterValidator(parse_messages), WithJsonSchema(MESSAGES_SCHEMA)]
    max_completion_tokens: int | None = None

    @property
    def token_limit(self) -> int | None:
        """Tokens at most, under its newer or its older name; None: what is left of the context."""
        if self.max_completion_tokens is None:
            return self.max_tokens
        if self.max_tokens not in (None, self.max_completion_tokens):
            raise RequestError(
                "max_tokens and max_completion_tokens contradict each other: send one of them", "max_completion_tokens"
            )
        return self.max_completion_tokens

    def client_names(self) -> dict[str, str]:
        limit = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return super().client_names() | {"prompt": "messages", "max_tokens": limit}


class CompletionRequest(GenerationRequest):
    prompt: Annotated[Any, AfterValidator(_parse_prompts), WithJsonSchema(_PROMPT_SCHEMA)]


Body = TypeVar("Body", bound=GenerationRequest)


def parse(kind: type[Body], content: dict[str, Any], legacy_guided: bool = False) -> Body:
    """Validate a JSON object. Raises :class:`RequestError` about the first thing that is wrong with it.

    legacy_guided: take vLLM's former ``guided_*`` fields for what they meant.
    """
    try:
        return kind.model_validate(constraints.modernised(content) if legacy_guided else content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, RequestError):
            raise cause from None
        param = ".".join(str(part) for part in first["loc"])
        others = error.error_count() - 1
        more = f" ({others} more errors)" if others else ""
        raise RequestError(f"{param}: {first['msg']}{more}", param) from None

"""The bodies of the OpenAI API as vLLM reads them, and their translation into SamplingParams.

Every field is honoured here or refused in :mod:`minillm_serve.serve.openai.unsupported`; numbers out of range are
refused by SamplingParams itself. Null is the same as absent.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, WithJsonSchema

from minillm_serve.params import WHOLE_VOCABULARY, RequestError, SamplingParams
from minillm_serve.serve.openai import constraints, fields
from minillm_serve.serve.openai.conversation import TOOL_CHOICE_SCHEMA, ConversationBody
from minillm_serve.serve.openai.defaults import SamplingDefaults
from minillm_serve.serve.openai.tools import ToolUse, read_tool_use
from minillm_serve.serve.openai.unsupported import (
    NEUTRAL,
    STREAM_OPTIONS_NEUTRAL,
    STRUCTURED_OUTPUTS_NEUTRAL,
    refuse_unsupported,
)
from minillm_serve.serve.settings import ServerSettings
from minillm_serve.serve.truncation import Truncation

# Fields with the same name and meaning as in SamplingParams; absent ones keep the defaults.
SAMPLING = (
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "logit_bias",
    "bad_words",
    "skip_special_tokens",
)


class StreamOptions(fields.Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationRequest(fields.Body):
    """What chat and completions have in common."""

    model: str | None = None
    max_tokens: fields.Count = None
    n: fields.AtLeastOne = None
    temperature: fields.Temperature = None
    top_p: fields.PositiveProbability = None
    top_k: fields.TopK = None
    min_p: fields.Probability = None
    typical_p: fields.PositiveProbability = None
    presence_penalty: fields.Penalty = None
    frequency_penalty: fields.Penalty = None
    repetition_penalty: fields.RepetitionPenalty = None
    seed: fields.Seed = None
    stop: fields.Stop = Field(None, validate_default=True)
    stop_token_ids: fields.StopTokenIds = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: fields.Count = None
    logit_bias: fields.LogitBias = None
    allowed_token_ids: fields.AllowedTokenIds = None
    bad_words: fields.BadWords = None
    skip_special_tokens: bool | None = None
    prompt_logprobs: fields.Alternatives = None
    logprob_token_ids: fields.LogprobTokenIds = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: fields.TruncationSide = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stream_interval: Annotated[int, Field(ge=1)] | None = None
    priority: fields.Int64 | None = None
    request_id: fields.RequestId = None
    cache_salt: fields.CacheSalt = None
    response_format: constraints.ResponseFormat | None = None
    structured_outputs: constraints.StructuredOutputs | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Usage in every chunk; without include_usage it means nothing (vLLM)."""
        return self.include_usage and bool(self.stream_options.continuous_usage_stats)

    @property
    def token_limit(self) -> int | None:
        """Tokens to generate at most; None: the endpoint's default."""
        return self.max_tokens

    @property
    def asked_logprobs(self) -> int | None:
        """Alternatives to each token's log-probability; None for no log-probabilities."""
        raise NotImplementedError

    @property
    def asked_prompt_logprobs(self) -> int | None:
        """The same for the prompt, which an echo includes."""
        return self.prompt_logprobs

    @property
    def truncation(self) -> Truncation | None:
        """How a longer prompt is cut; None: not at all."""
        if self.truncate_prompt_tokens is None:
            return None
        return Truncation(self.truncate_prompt_tokens, self.truncation_side or "left")

    def client_names(self) -> dict[str, str]:
        """The engine's name of a field -> the path where this body has it, for the fields whose names differ."""
        return constraints.client_names(self.response_format)

    def unknown_fields(self, strict: bool = False) -> list[str]:
        """Names that are ignored. Raises :class:`RequestError` on known ones that are not supported.

        strict: ignore none.
        """
        if self.stream_options is not None and self.stream_options.model_fields_set and not self.stream:
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
        if strict and unknown:
            raise RequestError(f"{unknown[0][:100]} is no parameter that this server knows", unknown[0])
        return unknown

    def sampling_params(
        self, settings: ServerSettings, defaults: SamplingDefaults, lenient: bool = False
    ) -> SamplingParams:
        """Raises :class:`RequestError` naming the field that is out of range. lenient: what the header said."""
        self.check_bounds(settings)
        given = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        return SamplingParams(
            **{**defaults.fields, **given, **self.own_sampling()},
            max_tokens=defaults.token_limit(self.token_limit),
            seed=None if self.seed == -1 else self.seed,  # vLLM: -1 is no seed
            stop=tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            allowed_token_ids=None if self.allowed_token_ids is None else tuple(self.allowed_token_ids),
            logprobs=self.asked_logprobs,
            prompt_logprobs=self.asked_prompt_logprobs,
            logprob_token_ids=tuple(self.logprob_token_ids) if self.logprob_token_ids else None,
            structured_outputs=constraints.structured_outputs(self.response_format, self.structured_outputs, lenient),
        )

    def own_sampling(self) -> dict[str, Any]:
        """Fields of SamplingParams that only this endpoint has."""
        return {}

    def check_bounds(self, settings: ServerSettings) -> None:
        """What the server's settings forbid, before any work. Raises :class:`RequestError`."""
        if self.n is not None and not 1 <= self.n <= settings.max_n:
            raise RequestError(f"n must be between 1 and {settings.max_n}, got {self.n}", "n")
        for name in ("logprobs", "prompt_logprobs"):
            self._check_logprobs(name, getattr(self, f"asked_{name}"), settings.max_logprobs)
        if self.prompt_logprobs is not None and self.stream:
            raise RequestError("prompt_logprobs cannot be streamed: leave out one of the two", "prompt_logprobs")

    @staticmethod
    def _check_logprobs(name: str, asked: int | None, most: int) -> None:
        if asked is None or most == WHOLE_VOCABULARY:
            return
        if asked > most or asked == WHOLE_VOCABULARY:
            raise RequestError(f"{name} must be at most {most} on this server, got {asked}", name)


class ChatCompletionRequest(GenerationRequest, ConversationBody):
    tool_choice: Annotated[Any, WithJsonSchema(TOOL_CHOICE_SCHEMA)] = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: fields.AtLeastOne = None
    logprobs: bool | None = None
    top_logprobs: fields.Alternatives = None
    return_prompt_text: bool | None = None

    @property
    def token_limit(self) -> int | None:
        """Tokens at most, under its newer or its older name."""
        if self.max_completion_tokens is None:
            return self.max_tokens
        if self.max_tokens not in (None, self.max_completion_tokens):
            raise RequestError(
                "max_tokens and max_completion_tokens contradict each other: send one of them", "max_completion_tokens"
            )
        return self.max_completion_tokens

    @property
    def asked_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def asked_prompt_logprobs(self) -> int | None:
        if self.prompt_logprobs is None and self.echo and not self.stream:
            return self.top_logprobs or 0
        return self.prompt_logprobs

    def check_bounds(self, settings: ServerSettings) -> None:
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs=true", "top_logprobs")
        super().check_bounds(settings)

    def tool_use(self, settings: ServerSettings) -> ToolUse:
        """What is to be made of tools. Raises :class:`RequestError`."""
        constrained_by = None
        if self.response_format is not None and self.response_format.type != "text":
            constrained_by = "response_format"
        elif self.structured_outputs is not None and self.structured_outputs.constraint():
            constrained_by = "structured_outputs"
        return read_tool_use(self.tools, self.tool_choice, self.parallel_tool_calls, settings, constrained_by)

    def client_names(self) -> dict[str, str]:
        limit = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        return super().client_names() | {"prompt": "messages", "max_tokens": limit, "logprobs": "top_logprobs"}


class CompletionRequest(GenerationRequest):
    prompt: fields.Prompts
    logprobs: fields.Alternatives = None
    best_of: fields.AtLeastOne = None

    @property
    def only_echo(self) -> bool:
        """The prompt alone is to come back. The engine generates a token all the same, which counts (vLLM)."""
        return bool(self.echo) and self.max_tokens == 0

    @property
    def token_limit(self) -> int:
        if self.only_echo:
            return 1
        return fields.COMPLETION_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def asked_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def asked_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.prompt_logprobs is None and self.echo else self.prompt_logprobs

    def own_sampling(self) -> dict[str, Any]:
        return {} if self.best_of is None else {"best_of": self.best_of}

    def check_bounds(self, settings: ServerSettings) -> None:
        super().check_bounds(settings)
        if self.only_echo and self.logprob_token_ids:
            raise RequestError("logprob_token_ids are for generated tokens; max_tokens=0 has none", "logprob_token_ids")
        if self.best_of is None:
            return
        if not 1 <= self.best_of <= settings.max_n:
            raise RequestError(f"best_of must be between 1 and {settings.max_n}, got {self.best_of}", "best_of")
        if self.stream and self.best_of > (self.n or 1):
            raise RequestError("best_of cannot be streamed: which ones are best is known at the end", "best_of")


Request = TypeVar("Request", bound=GenerationRequest)


def parse(kind: type[Request], content: dict[str, Any], legacy_guided: bool = False) -> Request:
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

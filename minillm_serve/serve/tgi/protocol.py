"""The bodies of TGI 3.3's own API and what they ask of the engine (its router/src/lib.rs and validation.rs).

Every parameter is honoured or refused; names and bounds are TGI's.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from minillm_serve.engine.group import derived_seed
from minillm_serve.params import MAX_STOP_STRINGS, RequestError, SamplingParams, StructuredOutputsParams

MAX_BEST_OF = 2
MAX_TOP_N_TOKENS = 5
UINT64 = 2**64
# The engine's names of what the client calls otherwise.
CLIENT_NAMES = {
    "max_tokens": "max_new_tokens",
    "prompt": "inputs",
    "structured_outputs.json": "grammar",
    "structured_outputs.json_object": "grammar",
    "structured_outputs.regex": "grammar",
}
_ANY_JSON = {"anyOf": [{"type": "object"}, {"type": "string"}]}

JsonValue = Annotated[Any, WithJsonSchema(_ANY_JSON)]
Count = Annotated[int | None, Field(ge=0, lt=2**32)]


class _Body(BaseModel):
    """Strict types; unknown fields are kept in ``model_extra`` and told of in a header."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class Grammar(_Body):
    """What the text must look like: a JSON schema or a regular expression. ``json_object`` is another name of json."""

    type: Literal["json", "json_object", "regex", "json_schema"]
    value: JsonValue

    def constraint(self) -> StructuredOutputsParams:
        """Raises :class:`RequestError`."""
        if self.type == "regex":
            if not isinstance(self.value, str):
                raise RequestError("value must be a regular expression", "grammar.value")
            return StructuredOutputsParams(regex=self.value)
        schema = self.value
        if self.type == "json_schema":
            if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
                raise RequestError("value must be an object with a schema", "grammar.value.schema")
            schema = schema["schema"]
        if isinstance(schema, str):
            schema = _parsed(schema)
        if not isinstance(schema, dict):
            raise RequestError("value must be a JSON schema, as an object or as its text", "grammar.value")
        return StructuredOutputsParams(json=schema)


class GenerateParameters(_Body):
    """TGI's ``parameters``; null is the same as absent."""

    best_of: Count = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool | None = None
    max_new_tokens: Count = None
    return_full_text: bool | None = None
    stop: list[str] | None = None
    truncate: Count = None
    watermark: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    seed: Annotated[int | None, Field(ge=0, lt=UINT64)] = None
    top_n_tokens: Count = None
    grammar: Grammar | None = None
    adapter_id: str | None = None


class GenerateRequest(_Body):
    """The body of /generate, /generate_stream and /tokenize."""

    inputs: str
    parameters: GenerateParameters | None = None

    @property
    def asked(self) -> GenerateParameters:
        """The parameters. TGI samples when none at all are sent, and is greedy when they say nothing of sampling."""
        return GenerateParameters(do_sample=True) if self.parameters is None else self.parameters

    def unknown_fields(self) -> list[str]:
        """Names that are ignored."""
        own = self.parameters.model_extra if self.parameters is not None else None
        return [*(self.model_extra or {}), *(f"parameters.{name}" for name in own or {})]


class CompatGenerateRequest(GenerateRequest):
    """The body of ``POST /``."""

    stream: bool | None = None


@dataclass(frozen=True)
class Asked:
    """A request that passed TGI's rules. seed: as the client sees it, None where nothing is drawn at random."""

    inputs: str
    parameters: GenerateParameters
    sampling: SamplingParams
    seed: int | None
    with_details: bool

    def seed_of(self, index: int) -> int | None:
        """The seed that makes sequence ``index`` on its own."""
        if index == 0 or self.sampling.seed is None:
            return self.seed
        return derived_seed(self.sampling.seed, index)


def understood(body: GenerateRequest, stream: bool, max_input_tokens: int) -> Asked:
    """Raises :class:`RequestError` naming the parameter that is out of TGI's bounds, or the engine's."""
    given = body.asked
    best_of = 1 if given.best_of is None else given.best_of
    _check(body.inputs != "", "inputs", "must not be empty")
    _check_support(given)
    _check_bounds(given, max_input_tokens)
    _check_best_of(given, best_of, stream)
    drawn = _draws(given)
    seed = (given.seed if given.seed is not None else secrets.randbits(64)) if drawn else None
    with_details = bool(given.details or given.decoder_input_details)
    _check(not (stream and given.decoder_input_details), "decoder_input_details", "cannot be had in a stream")
    top_n = given.top_n_tokens or 0
    tokens_told = stream or with_details or best_of > 1
    penalties = {"repetition_penalty": given.repetition_penalty, "frequency_penalty": given.frequency_penalty}
    filters = {"top_k": given.top_k, "top_p": given.top_p, "typical_p": given.typical_p} if drawn else {}
    params = SamplingParams(
        n=best_of,
        temperature=(1.0 if given.temperature is None else given.temperature) if drawn else 0.0,
        seed=None if seed is None else seed - UINT64 if seed >= UINT64 // 2 else seed,
        stop=tuple(given.stop or ()),
        include_stop_str_in_output=True,
        max_tokens=given.max_new_tokens,
        logprobs=top_n if tokens_told else None,
        prompt_logprobs=0 if given.decoder_input_details else None,
        structured_outputs=None if given.grammar is None else given.grammar.constraint(),
        **{name: value for name, value in (penalties | filters).items() if value is not None},
    )
    return Asked(body.inputs, given, params, seed, with_details)


def _draws(given: GenerateParameters) -> bool:
    """Whether tokens are drawn at random. A temperature of 1 alone is TGI's default and says nothing."""
    filters = (given.top_k, given.top_p, given.typical_p)
    return bool(given.do_sample) or given.temperature not in (None, 1.0) or any(value is not None for value in filters)


def _check_support(given: GenerateParameters) -> None:
    _check(not given.watermark, "watermark", "is not supported by this server: leave it out")
    _check(given.adapter_id is None, "adapter_id", "is not supported by this server, which has no adapters")


def _check_bounds(given: GenerateParameters, max_input_tokens: int) -> None:
    for name in ("temperature", "repetition_penalty", "top_k", "max_new_tokens"):
        value = getattr(given, name)
        _check(value is None or value > 0, name, f"must be greater than 0, got {value}")
    for name in ("top_p", "typical_p"):
        value = getattr(given, name)
        _check(value is None or 0.0 < value < 1.0, name, f"must be greater than 0 and less than 1, got {value}")
    for name, high in (("truncate", max_input_tokens), ("best_of", MAX_BEST_OF)):
        value = getattr(given, name)
        _check(value is None or 1 <= value <= high, name, f"must be from 1 to {high}, got {value}")
    top_n = given.top_n_tokens or 0
    _check(top_n <= MAX_TOP_N_TOKENS, "top_n_tokens", f"must be from 0 to {MAX_TOP_N_TOKENS}, got {top_n}")
    stops = len(given.stop or ())
    _check(stops <= MAX_STOP_STRINGS, "stop", f"must hold at most {MAX_STOP_STRINGS} stop sequences, got {stops}")


def _check_best_of(given: GenerateParameters, best_of: int, stream: bool) -> None:
    if best_of == 1:
        return
    _check(given.seed is None, "seed", "must not be set when best_of is greater than 1")
    _check(_draws(given), "best_of", "needs sampling: do_sample, or a temperature other than 1")
    _check(not stream, "best_of", "must be 1 in a stream")


def _check(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise RequestError(f"{name} {rule}", name)


def _parsed(schema: str) -> Any:
    try:
        return json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"value is not JSON: {error}", "grammar.value") from error


Parsed = TypeVar("Parsed", bound=GenerateRequest)


def parse(kind: type[Parsed], content: dict[str, Any]) -> Parsed:
    """Validate a JSON object. Raises :class:`RequestError` about the first thing that is wrong with it."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{param}: {first['msg']}", param) from None

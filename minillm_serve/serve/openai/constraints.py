"""How clients say what their answer must look like: ``response_format``, ``structured_outputs``, older vLLM fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from minillm_serve.params import CONSTRAINT_KINDS, RequestError, StructuredOutputsParams

OPTIONS = ("whitespace", "max_whitespace", "any_order", "lenient", "always_closes")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LEGACY_KINDS = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_json_object": "json_object",
    "structural_tag": "structural_tag",
}
LEGACY_WITHOUT_EFFECT = ("guided_decoding_backend",)
_JSON_SCHEMA = {"anyOf": [{"type": "object"}, {"type": "string"}, {"type": "boolean"}, {"type": "null"}]}
_OBJECT_OR_TEXT = {"anyOf": [{"type": "object"}, {"type": "string"}, {"type": "null"}]}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class JsonSchemaFormat(_Part):
    """OpenAI's ``json_schema``. ``strict`` changes nothing: the schema is always kept to, or refused."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(_Part):
    """OpenAI's ``response_format``, with vLLM's ``structural_tag``."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchemaFormat | None = None
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None
    format: dict[str, Any] | None = None


class StructuredOutputs(_Part):
    """vLLM's own field for constrained output, and this server's options beside it."""

    json_: Annotated[Any, WithJsonSchema(_JSON_SCHEMA)] = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Annotated[Any, WithJsonSchema(_OBJECT_OR_TEXT)] = None
    whitespace: str | None = None
    max_whitespace: int | None = None
    any_order: bool | None = None
    lenient: bool | None = None
    always_closes: bool | None = None
    disable_any_whitespace: bool | None = None

    def constraint(self) -> dict[str, Any]:
        """What it asks of the text, by the names of StructuredOutputsParams."""
        given = {name: getattr(self, "json_" if name == "json" else name) for name in CONSTRAINT_KINDS}
        return {name: value for name, value in given.items() if value is not None}

    def options(self) -> dict[str, Any]:
        """How the constraint is spelled out."""
        given = {name: getattr(self, name) for name in OPTIONS}
        if self.disable_any_whitespace and self.whitespace is None:
            given["whitespace"] = "compact"
        return {name: value for name, value in given.items() if value is not None}


def structured_outputs(
    form: ResponseFormat | None, own: StructuredOutputs | None, lenient: bool
) -> StructuredOutputsParams | None:
    """The one constraint of a request, None for none. Raises :class:`RequestError`.

    ``structured_outputs`` beside a ``response_format`` may only hold options. lenient: as if the options said so.
    """
    asked = {} if form is None else _asked_by_format(form)
    if own is not None:
        constraint = own.constraint()
        if asked and constraint:
            raise RequestError(
                "response_format and structured_outputs both constrain the answer: send one of them",
                "structured_outputs",
            )
        asked |= constraint
    if not asked and own is None:
        return None
    options = ({} if own is None else own.options()) | ({"lenient": True} if lenient else {})
    return StructuredOutputsParams(**asked, **options)


def client_names(form: ResponseFormat | None) -> dict[str, str]:
    """The engine's name of a constraint -> the path where ``response_format`` has it."""
    if form is None:
        return {}
    places = {"json_schema": ("json", "response_format.json_schema.schema")}
    kind, place = places.get(form.type, (form.type, "response_format"))
    return {f"structured_outputs.{kind}": place}


def _asked_by_format(form: ResponseFormat) -> dict[str, Any]:
    if form.type == "text":
        return {}
    if form.type == "json_object":
        return {"json_object": True}
    if form.type == "structural_tag":
        parts = {"structures": form.structures, "triggers": form.triggers, "format": form.format}
        return {"structural_tag": {"type": "structural_tag", **{k: v for k, v in parts.items() if v is not None}}}
    if form.json_schema is None:
        raise RequestError("type json_schema needs json_schema: name and schema", "response_format.json_schema")
    if not NAME.fullmatch(form.json_schema.name):
        raise RequestError(
            "name must be 1 to 64 letters, digits, underscores or dashes", "response_format.json_schema.name"
        )
    return {"json": form.json_schema.schema_}


def lenient_header(value: str | None) -> bool:
    """Whether the request header ``x-minillm`` says ``lenient``. Raises :class:`RequestError` on anything else."""
    if value is None or not value.strip():
        return False
    if value.strip().lower() != "lenient":
        raise RequestError(f"the header x-minillm may only say lenient, got {value[:40]!r}")
    return True


def modernised(content: Mapping[str, Any]) -> dict[str, Any]:
    """A body whose ``guided_*`` fields (vLLM before 0.12) stand in ``structured_outputs``. Raises RequestError."""
    given = {name: value for name, value in content.items() if name in LEGACY_KINDS and value is not None}
    rest = {name: value for name, value in content.items() if name not in (*LEGACY_KINDS, *LEGACY_WITHOUT_EFFECT)}
    if not given:
        return rest
    name = next(iter(given))
    if len(given) > 1 or rest.get("structured_outputs") is not None:
        raise RequestError(f"{name} is not the only constraint: send one", name)
    return rest | {"structured_outputs": {LEGACY_KINDS[name]: given[name]}}

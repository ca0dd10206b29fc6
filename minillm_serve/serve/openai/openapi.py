"""What /openapi.json says of bodies, answers and errors: most are read and written by hand, unseen by FastAPI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

ERRORS = (400, 401, 404, 405, 408, 413, 415, 429, 431, 500, 503, 504)
BODY_ERRORS = (400, 413, 415)
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENTS = {"text/event-stream": {"itemSchema": _EVENT}}

Responses = dict[int | str, dict[str, Any]]
NOTHING: Responses = {200: {"description": "Nothing but the status"}}


class ErrorDetail(BaseModel):
    """param: dotted path of the field at fault. code: the HTTP status."""

    message: str
    type: str
    param: str | None
    code: int


class Error(BaseModel):
    """Every refusal and failure."""

    error: ErrorDetail


def document_body(model: type[BaseModel], names: Sequence[str] = ()) -> dict[str, Any]:
    """``openapi_extra`` for an endpoint that takes ``model`` as its JSON body. names: what its field model may be."""
    schema = model.model_json_schema()
    if names:
        schema["properties"]["model"] = {"enum": [*names, None], "default": None}
    content = {"application/json": {"schema": _inlined(schema, schema.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def answers(model: type[BaseModel], *, streams: bool = False) -> Responses:
    """``responses`` for an endpoint that answers 200 with ``model``, or, if it streams, with events as well."""
    return {200: {"model": model, "description": "The answer", **({"content": EVENTS} if streams else {})}}


def answers_events() -> Responses:
    """``responses`` for an endpoint that always streams."""
    return {200: {"description": "The answer", "content": EVENTS}}


def answers_text(media_type: str) -> Responses:
    """``responses`` for an endpoint that answers 200 with text."""
    return {200: {"description": "The answer", "content": {media_type: {"schema": {"type": "string"}}}}}


def errors(model: type[BaseModel] = Error, statuses: Iterable[int] = ERRORS) -> Responses:
    """``responses`` for what every endpoint may answer but its own."""
    return {status: {"model": model, "description": HTTPStatus(status).phrase} for status in statuses}


def describe_truthfully(app: FastAPI) -> None:
    """Make ``app`` leave out of its description what FastAPI supposes and what never comes.

    Endpoints that return a ready Response are supposed to answer with JSON.
    """

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _correct(operation)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]


def _correct(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    if "requestBody" not in operation:
        for status in BODY_ERRORS:
            responses.pop(str(status), None)
    content = responses.get("200", {}).get("content", {})
    if content.get("application/json", {}).get("schema") == {}:
        del content["application/json"]


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """``node`` with its references replaced by what they refer to: an OpenAPI file has no ``$defs`` of its own."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}

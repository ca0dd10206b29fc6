"""Errors as TGI writes them: ``{"error": text, "error_type": word}``, with its statuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from minillm_serve.engine.async_engine import EngineBusyError, EngineDeadError
from minillm_serve.params import RequestError
from minillm_serve.serve.http.errors import RETRY_AFTER_S, ApiError, describe, error_body

GENERATION_FAILED = 424
OVERLOADED = 429
INVALID = 422
_TYPES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "validation",
    415: "validation",
    INVALID: "validation",
    GENERATION_FAILED: "generation",
    OVERLOADED: "overloaded",
    500: "incomplete_generation",
    503: "unavailable",
    504: "timeout",
}


def tgi_error(error: Exception) -> tuple[int, dict[str, str]]:
    """Status and body. What was not meant for clients stays in the log."""
    status, message, param = describe(error)
    if isinstance(error, EngineDeadError):
        status = GENERATION_FAILED
    elif isinstance(error, EngineBusyError) or (status == 503 and getattr(error, "reason", None) is not None):
        status = OVERLOADED  # one status for a full queue, here as in TGI
    elif isinstance(error, RequestError):
        status = INVALID
        named = message if param is None or param in message else f"{param}: {message}"
        message = f"Input validation error: {named}"
    elif status == 400:
        status = INVALID
    return status, body_of(status, message)


def body_of(status: int, message: str) -> dict[str, str]:
    """``{"error", "error_type"}``, bounded and without addresses, like every error text of this server."""
    text: Any = error_body(status, message)["error"]["message"]
    return {"error": text, "error_type": _TYPES.get(status, "validation" if status < 500 else "incomplete_generation")}


def write_error(error: Exception) -> Response:
    """The answer to a failed request on a path of TGI's."""
    status, body = tgi_error(error)
    response = JSONResponse(body, status, getattr(error, "headers", None))
    if status in (OVERLOADED, 503):
        response.headers.setdefault("retry-after", str(RETRY_AFTER_S))
    return response


@contextmanager
def generation_errors() -> Iterator[None]:
    """Inside, what fails in the engine is raised as TGI's 424."""
    try:
        yield
    except ApiError as error:
        if error.status != 500:
            raise
        raise ApiError(GENERATION_FAILED, f"Request failed during generation: {error}") from error


class TgiErrors:
    """Pure ASGI: on TGI's paths every error is TGI's, also those of limits and of the router."""

    def __init__(self, app: ASGIApp, owns: Callable[[str], bool]):
        self._app = app
        self._owns = owns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._owns(scope["path"]):
            answer_as_tgi(scope)
        await self._app(scope, receive, send)


def answer_as_tgi(scope: Scope) -> None:
    """From here on errors of this request are written as TGI writes them."""
    scope.setdefault("state", {})["error_writer"] = write_error

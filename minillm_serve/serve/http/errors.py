"""One error shape for everything that can go wrong: OpenAI's, with vLLM's type names and integer codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from minillm_serve.engine.async_engine import EngineBusyError, EngineDeadError
from minillm_serve.params import RequestError
from minillm_serve.serve.http.hygiene import clean

ErrorWriter = Callable[[Exception], Response]

MAX_MESSAGE_CHARS = 1000
CLIENT_CLOSED_REQUEST = 499
RETRY_AFTER_S = 1
_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    408: "RequestTimeoutError",
    413: "RequestTooLargeError",
    415: "UnsupportedMediaTypeError",
    429: "RateLimitError",
    431: "RequestHeaderFieldsTooLargeError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "DeadlineExceededError",
}


class ApiError(Exception):
    """An answer other than 200. ``param`` is the dotted path of the field at fault, ``reason`` which limit was met."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        reason: str | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.param = param
        self.headers = headers
        self.reason = reason


def error_body(status: int, message: str, param: str | None = None) -> dict[str, dict[str, str | int | None]]:
    """``{"error": {"message", "type", "param", "code"}}``, a few kB at most whatever the message quotes."""
    return {
        "error": {
            "message": clean(message, MAX_MESSAGE_CHARS),
            "type": _TYPES.get(status, "APIError"),
            "param": None if param is None else clean(param, 200),
            "code": status,
        }
    }


def error_response(
    status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The one shape; a 503 that does not say when to come again says: in a second."""
    response = JSONResponse(error_body(status, message, param), status, headers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers.setdefault("retry-after", str(RETRY_AFTER_S))
    return response


@contextmanager
def named_for_client(names: Mapping[str, str]) -> Iterator[None]:
    """Inside, a RequestError's param is replaced by the client's own name for that field, where ``names`` has one."""
    try:
        yield
    except RequestError as error:
        error.param = names.get(error.param or "", error.param)
        raise


def describe(error: Exception) -> tuple[int, str, str | None]:
    """Status, message and param of an error; what was not meant for clients stays in the log."""
    if isinstance(error, ApiError):
        return error.status, str(error), error.param
    if isinstance(error, RequestError):
        return 400, str(error), error.param
    if isinstance(error, EngineDeadError):
        return 503, "the engine has stopped; the request was not completed", None
    if isinstance(error, EngineBusyError):
        return 503, str(error), None
    return 500, "the server failed on this request; its log says why", None


def install_handlers(app: FastAPI) -> None:
    """Make ``app`` answer every error in the one shape."""
    app.add_exception_handler(ApiError, _on_known_error)
    app.add_exception_handler(RequestError, _on_known_error)
    app.add_exception_handler(EngineDeadError, _on_known_error)
    app.add_exception_handler(EngineBusyError, _on_known_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def answer(scope: Scope, error: Exception) -> Response:
    """What a request is told of ``error``: in our shape, or as ``scope["state"]["error_writer"]`` writes it (TGI)."""
    writer: ErrorWriter = scope.get("state", {}).get("error_writer", _write)
    return writer(error)


def _write(error: Exception) -> Response:
    return error_response(*describe(error), headers=getattr(error, "headers", None))


def _on_known_error(request: Request, error: Exception) -> Response:
    return answer(request.scope, error)


def _on_http_exception(request: Request, error: HTTPException) -> Response:
    """The router's own refusals: no such path, no such method."""
    path = request.scope["path"][:200]
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is nothing at {path}; the API is described at /openapi.json"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another one")
        message = f"{path} does not answer to {request.method[:20]}; expected: {allowed}"
    return answer(request.scope, ApiError(error.status_code, message, headers=dict(error.headers or {})))


def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)  # nobody is there to read it

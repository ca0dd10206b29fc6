"""Every answer carries X-Request-Id, and a failure nobody expected becomes a 500 in the one error shape."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import ApiError, answer
from minillm_serve.serve.observe.trace_context import trace_context

logger = logging.getLogger("minillm.serve")
# What may travel into ids, headers and logs as it came; anything else is replaced.
_SAFE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class CallerMiddleware:
    """Pure ASGI (a wrapped ``receive`` would hide disconnects). What it finds is in ``request.state.caller``."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["caller"] = caller = Caller(request_id, trace=trace_context(scope["headers"]))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                known_as = scope["state"]["caller"].request_id.encode()  # a body may have named the request
                message = message | {"headers": [*message["headers"], (b"x-request-id", known_as)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # the server is ending and this request's time is up
            if not started:
                await answer(scope, ApiError(503, "the server is shutting down"))(scope, receive, send_with_id)
        except Exception as error:
            logger.exception("request %s failed", request_id)
            if not started:
                await answer(scope, error)(scope, receive, send_with_id)
        finally:
            caller.end()


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex

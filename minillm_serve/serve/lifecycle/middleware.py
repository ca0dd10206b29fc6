"""At the door: counts who is inside, sends away whoever comes too early or too late."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillm_serve.serve.http.errors import answer
from minillm_serve.serve.lifecycle.state import Lifecycle

# Answered in every state: what tells how the server is. Not counted, so that a scrape never delays its end.
ALWAYS_ANSWERED = frozenset({"/health", "/ready", "/version", "/metrics", "/load", "/tgi/health", "/openapi.json"})


class LifecycleMiddleware:
    """Pure ASGI. Answers 503 + Retry-After while the model loads and while the server drains.

    While it drains every answer says ``Connection: close``: the client's next request goes to another server, not to
    a connection that is about to be cut.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle):
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        lifecycle = self._lifecycle

        async def send_closing(message: Message) -> None:
            if lifecycle.draining and message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        if (refusal := lifecycle.refusal()) is not None:
            await answer(scope, refusal)(scope, receive, send_closing)
            return
        lifecycle.under_way += 1
        try:
            if not lifecycle.slot.loaded:
                await asyncio.shield(lifecycle.slot.begin())
            lost = lifecycle.refusal() if lifecycle.failed else None
            await (self._app if lost is None else answer(scope, lost))(scope, receive, send_closing)
        finally:
            lifecycle.under_way -= 1

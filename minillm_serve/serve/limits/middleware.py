"""What stands between a client and the API: its key, its quota, the queue's bound, and the time it may take.

Pure ASGI. Each answers for itself, in the shape that the path calls for, and lets nothing of a refused request further.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import ApiError, answer
from minillm_serve.serve.http.streaming import DONE
from minillm_serve.serve.limits.keys import KeyRing, presented_key
from minillm_serve.serve.limits.queue import QueueBound
from minillm_serve.serve.limits.quotas import Quotas
from minillm_serve.serve.limits.rejections import Reason, Rejections

OPEN_PATHS = frozenset({"/health", "/ready"})
UNQUEUED = "tokenize"


class KeyMiddleware:
    """No key, no answer: every path and method but GET of the open paths, whether or not there is anything there.

    The path is the one that is routed by. The Host header, from which a URL could be pieced together that says
    something else (CVE-2026-48710), is not looked at.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, rejections: Rejections, open_paths: frozenset[str] = OPEN_PATHS):
        self._app = app
        self._keys = keys
        self._rejections = rejections
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._keys:
            await self._app(scope, receive, send)
            return
        presented = presented_key(scope["headers"])
        key = None if presented is None else self._keys.find(presented)
        if key is not None:
            scope["state"]["caller"] = replace(scope["state"]["caller"], client=key.name)
        elif not (scope["path"] in self._open_paths and scope["method"] in ("GET", "HEAD")):
            self._rejections.count(Reason.API_KEY)
            said = "the API key is not valid" if presented else "an API key is needed: Authorization: Bearer KEY"
            refusal = ApiError(401, said, headers={"WWW-Authenticate": "Bearer"})
            await answer(scope, refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class DeadlineMiddleware:
    """Ends requests that take longer than ``seconds``: with 504, or with an error event in a stream that has begun."""

    def __init__(self, app: ASGIApp, seconds: float, rejections: Rejections):
        self._app = app
        self._seconds = seconds
        self._rejections = rejections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._seconds:
            await self._app(scope, receive, send)
            return
        answered = _Answered()

        async def noting(message: Message) -> None:
            answered.note(message)
            await send(message)

        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._app(scope, receive, noting)
        except TimeoutError:
            if not limit.expired():
                raise
            self._rejections.count(Reason.REQUEST_TIMEOUT)
            await self._tell(answered, scope, receive, send)

    async def _tell(self, answered: _Answered, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"the request took longer than this server's limit of {self._seconds:g} s and was ended"
        response = answer(scope, ApiError(504, message, headers={"X-Should-Retry": "false"}))
        if not answered.begun:
            await response(scope, receive, send)
        elif answered.streams and not answered.complete:
            last_word = b"" if "error_writer" in scope["state"] else DONE
            event = b"data: " + bytes(response.body) + b"\n\n" + last_word
            await send({"type": "http.response.body", "body": event, "more_body": False})


class _Answered:
    """How far an answer has come."""

    def __init__(self) -> None:
        self.begun = self.streams = self.complete = False

    def note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self.streams = any(
                name == b"content-type" and b"event-stream" in value for name, value in message["headers"]
            )
        else:
            self.complete = not message.get("more_body", False)


class DoorMiddleware:
    """Turns a POST away before its body is read if the queue is full or its client's quota used up.

    It gets its place in the queue when its body is complete: whoever sends one a byte a second must not hold any.
    """

    def __init__(self, app: ASGIApp, quotas: Quotas, queue: QueueBound):
        self._app = app
        self._quotas = quotas
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller: Caller = scope["state"]["caller"]
        counted = False

        async def send_with_quota(message: Message) -> None:
            nonlocal counted
            if message["type"] == "http.response.start":
                if counted and message["status"] >= 500:
                    counted = False
                    self._quotas.forgive(caller)
                message = message | {"headers": [*message["headers"], *self._quotas.headers(caller)]}
            await send(message)

        if scope["method"] == "POST":
            queued = not scope["path"].rstrip("/").endswith(UNQUEUED)
            try:
                if queued:
                    self._queue.look()
                self._quotas.enter(caller)
            except ApiError as refusal:
                await answer(scope, refusal)(scope, receive, send_with_quota)
                return
            counted = True
            if queued:
                receive = self._entering(caller, receive)
        try:
            await self._app(scope, receive, send_with_quota)
        except Exception:
            if counted:
                self._quotas.forgive(caller)
            raise

    def _entering(self, caller: Caller, receive: Receive) -> Receive:
        entered = False

        async def receive_and_enter() -> Message:
            nonlocal entered
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False) and not entered:
                entered = True
                self._queue.enter(caller)
            return message

        return receive_and_enter

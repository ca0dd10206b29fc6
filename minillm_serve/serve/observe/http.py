"""Every HTTP request is counted, timed and told to the log when it is over, whoever answered it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import CLIENT_CLOSED_REQUEST
from minillm_serve.serve.observe.buckets import HTTP_SECONDS

UNKNOWN = "unknown"
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
# What monitoring itself asks, every few seconds: neither counted nor logged, as in vLLM.
PROBES = frozenset({"/metrics", "/health", "/ready", "/load", "/ping", "/version", "/tgi/health"})


class Told(Protocol):
    """What wants to know of a finished HTTP request. handler: the route's template, such as ``/v1/models/{name}``."""

    def __call__(self, scope: Scope, handler: str, status: int, seconds: float) -> None: ...


class HttpMetrics:
    """``http_requests_total`` and ``http_request_duration_seconds``, without prefix, as in vLLM.

    Each label has few values, whatever clients send: a method nobody has heard of is OTHER, a path without a route
    "unknown". ``status`` is the class of the status, ``5xx``, as vLLM's dashboards expect; ``code`` is the status.
    """

    def __init__(self, registry: CollectorRegistry):
        self._requests = Counter(
            "http_requests", "HTTP requests answered.", ("method", "status", "code", "handler"), registry=registry
        )
        self._duration = Histogram(
            "http_request_duration_seconds", "From the request's head to the answer's last byte.",
            ("method", "handler"), buckets=HTTP_SECONDS, registry=registry,
        )  # fmt: skip

    def __call__(self, scope: Scope, handler: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._requests.labels(method, f"{status // 100}xx", str(status), handler).inc()
        self._duration.labels(method, handler).observe(seconds)


class HttpObserver:
    """Outermost middleware, pure ASGI: what any other refuses is seen too. A client that left unanswered is 499."""

    def __init__(self, app: ASGIApp, router: Router, told: Iterable[Told]):
        self._app = app
        self._router = router
        self._told = tuple(told)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), CLIENT_CLOSED_REQUEST

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            handler, seconds = handler_of(scope, self._router), time.monotonic() - start
            for told in self._told:
                told(scope, handler, status, seconds)


def handler_of(scope: Scope, router: Router) -> str:
    """The template of the route that took a request, or would have, had it not been refused before."""
    matched = scope if "endpoint" in scope else _match(scope, router)
    if matched is None:
        return UNKNOWN
    path = scope["path"]
    for name, value in matched.get("path_params", {}).items():
        if not isinstance(value, str):  # converted: it may have been spelled in many ways
            return UNKNOWN
        before, _, after = path.rpartition(value) if value else (path, "", "")
        path = f"{before}{{{name}}}{after}"
    return path


def _match(scope: Scope, router: Router) -> Scope | None:
    for route in router.routes:
        matches, found = route.matches(scope)
        if matches is not Match.NONE:
            return found
    return None


def caller_in(scope: Scope) -> Caller | None:
    """Who sent it; None where it was refused before anybody asked."""
    return scope.get("state", {}).get("caller")

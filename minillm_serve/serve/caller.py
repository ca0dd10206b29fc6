"""Who sent an HTTP request, and what follows it from the socket to the engine and back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.requests import Request

ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Caller:
    """One HTTP request as the service sees it.

    request_id: in logs, ids and headers; unique or not, as the client wished. received: ``time.monotonic()`` when its
    head had come in. client: the name of its API key, never the key.
    """

    request_id: str
    received: float = field(default_factory=time.monotonic)
    client: str = ANONYMOUS


def caller_of(http: Request) -> Caller:
    """What the middleware has found out about a request (``scope["state"]["caller"]``)."""
    return http.state.caller

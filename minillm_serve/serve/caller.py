"""Who sent an HTTP request, and what follows it from the socket to the engine and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.requests import Request

from minillm_serve.serve.observe.trace_context import TraceContext

ANONYMOUS = "anonymous"


@dataclass
class Account:
    """What the engine requests of one HTTP request came to, for its line in the log. trace_id: of its own trace."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    endings: set[str] = field(default_factory=set)
    trace_id: str | None = None


@dataclass(frozen=True, eq=False)
class Caller:
    """One HTTP request as the service sees it; equal to what is made of it when more is known, and to no other.

    request_id: in logs, ids and headers; unique or not, as the client wished. received: ``time.monotonic()`` when its
    head had come in. client: the name of its API key, never the key. trace: the client's trace it belongs to.
    """

    request_id: str
    received: float = field(default_factory=time.monotonic)
    client: str = ANONYMOUS
    trace: TraceContext | None = None
    account: Account = field(default_factory=Account, repr=False)
    _ending: ExitStack = field(default_factory=ExitStack, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Caller) and other._ending is self._ending

    def __hash__(self) -> int:
        return id(self._ending)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the HTTP request is over, however that happens; the last one given goes first.

        What a request holds is given back here at the latest: a generator that was never started, or a task that was
        cancelled before its first step, runs no ``finally``.
        """
        self._ending.callback(callback)

    def end(self) -> None:
        """The HTTP request is over: called by the middleware that made this."""
        self._ending.close()


def caller_of(http: Request) -> Caller:
    """What the middleware has found out about a request (``scope["state"]["caller"]``)."""
    return http.state.caller

"""How limits refuse requests, and metrics, traces and logs follow them, without any endpoint knowing of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import Caller


class Watch(Protocol):
    """Follows one engine request (one prompt with all its samples) from its queueing to its end."""

    def update(self, output: RequestOutput) -> None:
        """One output, cumulative (see RequestOutput). A request read only at its end has one."""

    def end(self, reason: str) -> None:
        """It is over: a FinishReason, ``abort`` when the client left, or ``error``. Called exactly once."""


class Observer(Protocol):
    """Something that wants to follow every request of the server."""

    def watch(self, caller: Caller, group: RequestGroup) -> Watch:
        """Called on the event loop when a request is about to be queued. Must not raise."""


class Gate(Protocol):
    """Something that may turn away sound requests because of what else is under way (queue bounds, quotas)."""

    def check(self, caller: Caller, groups: Sequence[RequestGroup]) -> None:
        """All engine requests of one HTTP request, about to be queued. Raises ApiError with 429 or 503."""

"""A bound on what may be under way, so that a burst is turned away at once rather than kept waiting for ever.

The two bounds and their meanings are vLLM's (``AsyncLLM.check_admission``): sequences that are waiting or running, and
prompt tokens of requests still in prefill. Both are 503 with Retry-After: another replica may have room.

Everything here runs on the event loop, so a check and the watches that follow it in the same turn are one step. A
request counts from its first watch to the watch's end, which comes however the request ends (see Outputs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minillm_serve.engine.group import RequestGroup
from minillm_serve.request import RequestOutput
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.http.errors import RETRY_AFTER_S, ApiError
from minillm_serve.serve.limits.rejections import Reason, Rejections


def _busy(message: str, reason: Reason) -> ApiError:
    return ApiError(503, message, headers={"Retry-After": str(RETRY_AFTER_S)}, reason=reason)


def _full() -> ApiError:
    message = "the engine is busy and takes no more requests; try again later or on another replica"
    return _busy(message, Reason.QUEUED_REQUESTS)


class QueueBound:
    """Gate and observer. max_requests, max_tokens: 0 for no bound."""

    def __init__(self, max_requests: int, max_tokens: int, rejections: Rejections):
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self._rejections = rejections
        self._in_prefill: set[QueuedRequest] = set()  # or were when last looked at
        self._preparing: set[Caller] = set()
        self._sequences = 0

    @property
    def sequences(self) -> int:
        """Sequences that wait or run."""
        return self._sequences

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens of requests that have no first token yet."""
        self._in_prefill = {queued for queued in self._in_prefill if queued.in_prefill}
        return sum(queued.prompt_tokens for queued in self._in_prefill)

    @property
    def preparing(self) -> int:
        """HTTP requests whose body is there and whose prompts are not yet queued."""
        return len(self._preparing)

    def look(self) -> None:
        """Raises ApiError 503 when there is no room."""
        if self.max_requests and self._sequences + len(self._preparing) >= self.max_requests:
            self._rejections.count(Reason.QUEUED_REQUESTS)
            raise _full()

    def enter(self, caller: Caller) -> None:
        """The body of a request is complete. Raises ApiError 503 before any of it is parsed when there is no room.

        Those being prepared count too: else a burst that meets an empty queue would be tokenised whole.
        """
        self.look()
        self._preparing.add(caller)
        caller.at_end(lambda: self._preparing.discard(caller))

    def check(self, caller: Caller, groups: Sequence[RequestGroup]) -> None:
        """See Gate. Raises ApiError 503, or 400 when the bound itself is smaller than the request."""
        sequences = sum(len(group.samples) for group in groups)
        if self.max_requests and sequences > self.max_requests:
            raise ApiError(
                400, f"the request makes {sequences} sequences; this server takes at most {self.max_requests} at a time"
            )
        if self.max_requests and self._sequences + sequences > self.max_requests:
            self._rejections.count(Reason.QUEUED_REQUESTS)
            raise _full()
        if self.max_tokens and self.queued_tokens >= self.max_tokens:
            self._rejections.count(Reason.QUEUED_TOKENS)
            message = "too many prompt tokens wait to be read; try again later or on another replica"
            raise _busy(message, Reason.QUEUED_TOKENS)

    def watch(self, caller: Caller, group: RequestGroup) -> QueuedRequest:
        """See Observer."""
        self._preparing.discard(caller)
        queued = QueuedRequest(self, group)
        self._sequences += queued.sequences
        if self.max_tokens:
            self._in_prefill.add(queued)
        return queued

    def leave(self, queued: QueuedRequest) -> None:
        """A watched request is over."""
        self._in_prefill.discard(queued)
        self._sequences -= queued.sequences


class QueuedRequest:
    """One engine request while it is under way."""

    def __init__(self, bound: QueueBound, group: RequestGroup):
        self._bound = bound
        self._first = group.samples[0].request
        self.sequences = len(group.samples)
        self.prompt_tokens = len(group.prompt_token_ids)

    @property
    def in_prefill(self) -> bool:
        return self._first.metrics.first_token is None

    def update(self, output: RequestOutput) -> None:
        """See Watch."""

    def end(self, reason: str) -> None:
        """See Watch."""
        self._bound.leave(self)


@dataclass(frozen=True)
class QueuePatience:
    """How long a request may wait for its first step."""

    seconds: float
    rejections: Rejections

    def refusal(self) -> ApiError:
        """Counts the request whose time is up."""
        self.rejections.count(Reason.QUEUE_TIMEOUT)
        message = f"the request waited {self.seconds:g} s in the queue and was given up; try again later"
        return _busy(message, Reason.QUEUE_TIMEOUT)

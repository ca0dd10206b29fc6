"""What a server may answer to nonsense: a refusal that is small, clean and of the right shape, or the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_ERROR_BYTES = 8 * 1024
# A transfer coding and an HTTP version that a server does not speak (RFC 9112, 6.1; RFC 9110, 15.6.6): no failure.
NOT_OURS = (501, 505)
_LEAKS = re.compile(
    r"Traceback \(most recent|File \\?\"|\b0x[0-9a-f]{6,}\b|site-packages|/(?:usr|home|root|opt|tmp|var)/[\w.]|\.py\b"
)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end. headers: by lower-case name."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def streams(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


def fault(answer: Answer, path: str) -> str | None:
    """What is wrong with an answer of the API at ``path``, None for nothing."""
    if answer.status >= 500:
        return f"status {answer.status}: {answer.body[:300]!r}"
    if answer.status >= 400:
        return _fault_of_error(answer.body) or _fault_of_shape(answer.body, path)
    if answer.streams:
        return _fault_of_events(answer.body, path)
    if answer.body and answer.headers.get("content-type", "").startswith("application/json"):
        return None if _json(answer.body) is not None else "an answer that is not JSON"
    return None


def fault_of_raw(status: int, body: bytes) -> str | None:
    """The same of an answer to bytes that may never have reached the API."""
    if status >= 500 and status not in NOT_OURS:
        return f"status {status}: {body[:300]!r}"
    return _fault_of_error(body) if status >= 400 else None


def _fault_of_error(body: bytes) -> str | None:
    if len(body) > MAX_ERROR_BYTES:
        return f"an error body of {len(body)} bytes"
    leak = _LEAKS.search(body.decode("utf-8", "replace"))
    return None if leak is None else f"an error body that says {leak[0]!r}"


def _fault_of_shape(body: bytes, path: str) -> str | None:
    content = _json(body)
    error = content.get("error") if isinstance(content, dict) else None
    if path == "/tgi" or path.startswith("/tgi/"):
        sound = isinstance(error, str) and isinstance(content.get("error_type"), str)
    else:
        sound = isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys()
    return None if sound else f"an error of another shape: {body[:300]!r}"


def _fault_of_events(body: bytes, path: str) -> str | None:
    """A stream ends with its last event, and tells of no failure that is the server's own."""
    events = [line.removeprefix(b"data:").strip() for line in body.split(b"\n") if line.startswith(b"data:")]
    if not events:
        return "a stream without events"
    for event in events:
        content = None if event == b"[DONE]" else _json(event)
        error = content.get("error") if isinstance(content, dict) else None
        if isinstance(error, dict) and int(error.get("code") or 500) >= 500:
            return f"a stream that failed: {event[:300]!r}"
        if error is not None and (found := _fault_of_error(event)) is not None:
            return found
    if not path.startswith("/tgi") and events[-1] != b"[DONE]":
        return f"a stream that ends with {events[-1][:100]!r}"
    return None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None

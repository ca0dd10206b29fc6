"""W3C trace context: which trace of the client's a request belongs to (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_STATE_BYTES = 512
_PARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LATER_VERSION = re.compile(rb"-.*")
_STATE = re.compile(rb"[\x20-\x7e]+")


@dataclass(frozen=True)
class TraceContext:
    """parent: the header ``traceparent``, known to be sound. state: ``tracestate``, handed on as it came."""

    parent: str
    state: str = ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.parent.split("-")[1]


def trace_context(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
    """What the client said; None for nothing or nonsense, which is passed over, as the standard wants."""
    parents = [value.strip() for name, value in headers if name == b"traceparent"]
    if len(parents) != 1 or not _sound(parents[0]):
        return None
    state = b",".join(value.strip() for name, value in headers if name == b"tracestate")
    if len(state) > MAX_STATE_BYTES or not _STATE.fullmatch(state):
        state = b""
    return TraceContext(parents[0][:55].decode(), state.decode())


def _sound(parent: bytes) -> bool:
    """Version 00 has four parts and no more; a later one may go on after them."""
    if _PARENT.match(parent) is None:
        return False
    rest = parent[55:]
    return not rest or (parent[:2] != b"00" and _LATER_VERSION.fullmatch(rest) is not None)

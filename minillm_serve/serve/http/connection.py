"""One client connection with a limit on everything its client could draw out: uvicorn has few of them.

A head that never ends, a body a byte a second, an answer nobody reads, ten thousand sockets: each costs the server a
timer and a few kB, then the connection is closed. What is refused before the application sees it gets the one error
shape too.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from minillm_serve.serve.http.errors import RETRY_AFTER_S, error_body
from minillm_serve.serve.limits.rejections import Reason, Rejections
from minillm_serve.serve.limits.settings import LimitSettings

SEND_BUFFER_BYTES = 64 * 2**10
CLOSING_S = 1.0  # what a client that is sent away gets to read why


class Connection(H11Protocol):
    """uvicorn's connection, watched. most: connections at once."""

    def __init__(self, *, settings: LimitSettings, rejections: Rejections, most: int, **options: Any):
        super().__init__(**options)
        self._settings = settings
        self._rejections = rejections
        self._most = most
        self._refused = False
        self._reading: asyncio.TimerHandle | None = None  # until the head, then the body, is complete
        self._writing: asyncio.TimerHandle | None = None  # while the client takes nothing
        self.timeout_keep_alive = settings.keep_alive_timeout
        self.conn = _CheckedConnection(settings, self._on_event)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse it if there are too many; else a clock runs until its first request is there."""
        super().connection_made(transport)
        # With no room in the process's own buffer ``pause_writing`` tells of every byte that the client does not take.
        transport.set_write_buffer_limits(high=0)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if len(self.connections) > self._most:
            self._refuse_connection()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading_clock()
        self._stop_writing_clock()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Nothing of a refused connection is looked at."""
        if self._refused:
            return
        if self._reading is None and self.conn.their_state is h11.IDLE:
            self._await_head()
        super().data_received(data)
        # The rest of a body whose request was answered before has stopped the clock that ran since the answer.
        unused = self.conn.our_state is h11.IDLE and self.conn.their_state is h11.IDLE
        if unused and self._reading is None and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def pause_writing(self) -> None:
        """The client does not take what is sent to it, for now."""
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_writing_clock()

    def send_400_response(self, msg: str) -> None:
        """What h11 cannot read: 400, or the status that fits better. Called where the error is being handled."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._give_up(status, f"the request is not valid HTTP: {error}" if error else msg)

    def _unsupported_upgrade_warning(self) -> None:
        """There are no WebSockets here; the request is answered as if it had not asked."""

    def _on_event(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._start_reading_clock(self._settings.body_timeout, self._body_is_late)
        elif isinstance(event, h11.EndOfMessage):
            self._stop_reading_clock()

    def _await_head(self) -> None:
        self._start_reading_clock(self._settings.header_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        self._rejections.count(Reason.HEADER_TIMEOUT)
        if not self.conn.trailing_data[0]:
            self.transport.close()  # it has sent nothing, so it waits for no answer
            return
        seconds = self._settings.header_timeout
        self._give_up(408, f"the request's headers did not come within {seconds:g} s")

    def _body_is_late(self) -> None:
        if self.flow.read_paused:  # the application lets it wait (the model may still be loading), not the client
            self._start_reading_clock(self._settings.body_timeout, self._body_is_late)
            return
        self._rejections.count(Reason.BODY_TIMEOUT)
        if self.cycle is not None and self.cycle.response_started:
            self.transport.abort()
        else:
            self._give_up(408, f"the request's body did not come within {self._settings.body_timeout:g} s")

    def _give_up(self, status: int, message: str) -> None:
        """Answer what the application will not, and close; it hears that its client has gone."""
        answered = self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE)
        self._close_with(b"" if answered else _error_answer(status, message))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _refuse_connection(self) -> None:
        """Say so and close. Beyond some more the socket is just closed: those that hear why take up room as well."""
        self._rejections.count(Reason.CONNECTIONS)
        if len(self.connections) > self._most + max(16, self._most // 16):
            self._refused = True
            self.transport.abort()
        else:
            self._close_with(_error_answer(503, "the server has too many open connections; try again in a moment"))

    def _close_with(self, last_words: bytes) -> None:
        """Closing at once would reset the connection under the answer if more of the request is on its way."""
        self._stop_reading_clock()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self.transport.write(last_words)
        self.transport.write_eof()
        self.loop.call_later(CLOSING_S, self.transport.abort)

    def _start_reading_clock(self, seconds: float, late: Callable[[], None]) -> None:
        self._stop_reading_clock()
        self._reading = self.loop.call_later(seconds, late)

    def _stop_reading_clock(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _watch_writing(self, unsent: int) -> None:
        self._stop_writing_clock()
        if unsent:
            self._writing = self.loop.call_later(self._settings.write_timeout, self._is_anything_taken, unsent)

    def _is_anything_taken(self, unsent_before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < unsent_before:
            self._watch_writing(unsent)
        else:
            self._rejections.count(Reason.WRITE_TIMEOUT)
            self.transport.abort()

    def _stop_writing_clock(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


class _CheckedConnection(h11.Connection):
    """h11, which says when a request's parts have come, and refuses some that it would let pass."""

    def __init__(self, settings: LimitSettings, on_event: Callable[[Any], None]):
        super().__init__(h11.SERVER, settings.h11_max_incomplete_event_size)
        self._max_bytes = settings.h11_max_incomplete_event_size
        self._max_headers = settings.h11_max_header_count
        self._on_event = on_event

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._check(event)
        self._on_event(event)
        return event

    def _check(self, request: h11.Request) -> None:
        headers = list(request.headers)
        names = [name for name, _ in headers]
        if request.http_version not in (b"1.0", b"1.1"):
            raise h11.RemoteProtocolError("this is not HTTP/1.0 or HTTP/1.1", error_status_hint=505)
        if len(headers) > self._max_headers:
            raise h11.RemoteProtocolError(f"more than {self._max_headers} headers", error_status_hint=431)
        # h11 looks at the size of what is incomplete: a head that comes in one piece could have any.
        if len(request.target) + sum(len(name) + len(value) for name, value in headers) > self._max_bytes:
            raise h11.RemoteProtocolError(f"a head of more than {self._max_bytes} bytes", error_status_hint=431)
        if b"content-length" in names and b"transfer-encoding" in names:
            # Two opinions on where the request ends: a proxy may have the other one (request smuggling, RFC 9112 6.1).
            raise h11.RemoteProtocolError("Content-Length beside Transfer-Encoding")


def _error_answer(status: int, message: str) -> bytes:
    """A whole HTTP answer after which the connection ends."""
    body = json.dumps(error_body(status, message), separators=(",", ":"), ensure_ascii=False).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-Id": uuid.uuid4().hex,
        **({"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}),
    }
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body

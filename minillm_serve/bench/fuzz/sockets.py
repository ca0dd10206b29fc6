"""Bytes that are not quite HTTP, and connections that end where they should not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from minillm_serve.bench.fuzz.seeds import GOOD

Draw = Callable[[st.SearchStrategy[Any]], Any]

BODY = json.dumps(GOOD[1]).encode()
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: fuzz\r\nContent-Type: application/json\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: fuzz\r\n"
SOUND = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY

HALF_CLOSE, CLOSE, RESET = "half-close", "close", "reset"
ENDINGS = (HALF_CLOSE, CLOSE, RESET)


@dataclass(frozen=True, repr=False)
class RawCase:
    """Bytes for a connection of their own. ending: ``half-close`` (no more will come; an answer is read until the
    server closes), ``close`` or ``reset`` (nobody reads)."""

    name: str
    data: bytes
    ending: str = HALF_CLOSE

    def __repr__(self) -> str:
        """Short: hypothesis asks for it each time."""
        return f"RawCase({self.name!r}, {len(self.data)} bytes)"

    def describe(self) -> dict[str, Any]:
        """For a report: enough to send it again, unless it is very long."""
        text = self.data[:20_000].decode("latin-1").encode("unicode_escape").decode()
        return {"kind": self.name, "ending": self.ending, "bytes": len(self.data), "data": text}


REQUEST_LINES = (
    *(b"", b"\r\n", b"GET", b"GET /", b"GET / HTTP", b"GET / HTTP/9.9", b"GET / HTTP/0.9", b"get /health http/1.1"),
    *(b"GET  /health HTTP/1.1", b"\x00\x00 / HTTP/1.1", b"G\xc3\xa9T / HTTP/1.1", b"GET /%00 HTTP/1.1"),
    *(b"GET /\xff\xfe HTTP/1.1", b"GET http://x/health HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT x:1 HTTP/1.1"),
    *(b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"A" * 70_000 + b" / HTTP/1.1", b"GET /health?" + b"&" * 9000),
    *(b"GET /v1/models/..%2f..%2fetc HTTP/1.1", b"GET //health HTTP/1.1", b"GET /health/ HTTP/1.1"),
    *(b"POST /v1/models HTTP/1.1", b"DELETE /v1/completions HTTP/1.1", b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0"),
    *(b"GET /v1/models/%ff%fe%00 HTTP/1.1", b"GET /\xf0\x9f\x99\x82 HTTP/1.1", b"GET ?x HTTP/1.1"),
)
HEADER_LINES = (
    *(
        b"no colon",
        b": no name",
        b"A : b",
        b"A:\x00",
        b"A: \xff\xfe",
        b" folded: yes",
        b"A: b\r\n folded",
        b"A: b\nB: c",
    ),
    *(b"Host: other", b"Host: a/health?", b"Host: \xff", b"Connection: close, keep-alive", b"Connection: upgrade"),
    *(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13",),
    *(b"Expect: 100-continue", b"Expect: nonsense", b"Upgrade: h2c", b"X: " + b"a" * 70_000, b"Authorization: \x7f"),
    *(b"X-Request-Id: a\rb", b"Cookie: " + b"a=b; " * 3000, b"Transfer-Encoding: gzip", b"TE: trailers"),
)
LENGTHS = (b"-1", b"+1", b"1e3", b"0x10", b"99999999999999999999", b"", b" ", b"1, 1", b"1\r\nContent-Length: 2", b"0")
CODINGS = (b"chunked", b"chunked, chunked", b"identity", b"gzip, chunked", b"xchunked", b" chunked", b"chunked\x00")
CHUNKS = (
    *(b"zz\r\nab\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b"5\r\nab", b"2\r\nabX\r\n", b"\r\n", b"1;" + b"e" * 20_000),
    *(b"2\nab\n0\n\n", b"0\r\nTrailer: x\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 500 + b"\r\n", b"0x2\r\nab\r\n0\r\n\r\n"),
    *(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), b"1\r\n{\r\n" * 50),
)
OTHER_PROTOCOLS = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"\x00" * 100,
    b"\n" * 5000,
    b"*1\r\n$4\r\nPING\r\n",
)


def _line(draw: Draw) -> bytes:
    return draw(st.sampled_from(REQUEST_LINES)) + b"\r\nHost: fuzz\r\n\r\n"


def _headers(draw: Draw) -> bytes:
    lines = draw(st.lists(st.sampled_from(HEADER_LINES), min_size=1, max_size=3))
    return GET + b"\r\n".join(lines) + b"\r\n\r\n"


def _flood(draw: Draw) -> bytes:
    count, size = draw(st.sampled_from(((50, 10), (1000, 10), (5000, 2), (200, 400), (3, 400_000))))
    return GET + b"".join(b"X-%d: %b\r\n" % (index, b"a" * size) for index in range(count)) + b"\r\n"


def _length(draw: Draw) -> bytes:
    return HEAD + b"Content-Length: " + draw(st.sampled_from(LENGTHS)) + b"\r\n\r\n" + BODY


def _smuggled(draw: Draw) -> bytes:
    coding = b"Transfer-Encoding: " + draw(st.sampled_from(CODINGS)) + b"\r\n"
    length = b"Content-Length: %d\r\n" % draw(st.integers(0, len(BODY) + 5))
    both = draw(st.sampled_from((coding + length, length + coding, coding, coding + coding)))
    return HEAD + both + b"\r\n" + draw(st.sampled_from((BODY, *CHUNKS)))


def _chunked(draw: Draw) -> bytes:
    chunks = draw(st.lists(st.sampled_from(CHUNKS), min_size=1, max_size=3))
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def _cut(draw: Draw) -> bytes:
    """A sound request of which the end is missing."""
    return SOUND[: draw(st.integers(0, len(SOUND) - 1))]


def _pipelined(draw: Draw) -> bytes:
    one = st.sampled_from((SOUND, GET + b"\r\n", b"nonsense\r\n\r\n", HEAD + b"Content-Length: 3\r\n\r\n{}}"))
    return b"".join(draw(st.lists(one, min_size=2, max_size=5)))


def _spoilt(draw: Draw) -> bytes:
    """A sound request with some bytes changed."""
    data = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def _noise(draw: Draw) -> bytes:
    return draw(st.sampled_from(OTHER_PROTOCOLS) | st.binary(max_size=200))


KINDS: dict[str, Callable[[Draw], bytes]] = {
    "request line": _line,
    "headers": _headers,
    "header flood": _flood,
    "content length": _length,
    "length and coding": _smuggled,
    "chunks": _chunked,
    "cut": _cut,
    "pipelined": _pipelined,
    "spoilt": _spoilt,
    "noise": _noise,
}


@st.composite
def raw_cases(draw: Draw) -> RawCase:
    """Of every kind, mostly read to the end of the answer."""
    name = draw(st.sampled_from(sorted(KINDS)))
    ending = draw(st.sampled_from((HALF_CLOSE, HALF_CLOSE, HALF_CLOSE, CLOSE, RESET)))
    return RawCase(name, KINDS[name](draw), ending)

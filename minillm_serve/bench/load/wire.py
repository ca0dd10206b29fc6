"""A bare HTTP/1.1 client: thousands of connections at little cost, and full control over reading, waiting and leaving.

Client libraries pool, retry and read ahead, which is what a load test must not do.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

DONE = b"[DONE]"
NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int


@dataclass(frozen=True)
class Answer:
    """One whole answer. headers: names in lower case. seconds: from sending to the last byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Raises ValueError for a body that is no JSON."""
        return json.loads(self.body)


class StreamRefused(Exception):
    """A stream was asked for and something else came: ``answer``."""

    def __init__(self, answer: Answer):
        super().__init__(f"status {answer.status}: {answer.body[:200]!r}")
        self.answer = answer


class Connection:
    """One keep-alive connection; requests go over it one after the other. Raises OSError or EOFError when it breaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: Address) -> Connection:
        """Connect. Raises OSError."""
        return cls(*await asyncio.open_connection(address.host, address.port))

    def close(self) -> None:
        """Leave at once: what is under way is given up, and the server is not told more than a FIN or a reset."""
        self._writer.transport.abort()

    async def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """Send a request, ``body`` as JSON (bytes as they are), and read its whole answer."""
        started = time.perf_counter()
        self._writer.write(request_bytes(method, path, body, headers))
        status, found = await self._head()
        content = b"".join([part async for part in self._parts(found)])
        return Answer(status, found, content, time.perf_counter() - started)

    async def events(
        self, path: str, body: Any, headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[tuple[float, bytes]]:
        """POST ``body``; each server-sent event's data with the moment it came (``time.perf_counter()``).

        Raises :class:`StreamRefused` when the answer is not a stream.
        """
        self._writer.write(request_bytes("POST", path, body, headers))
        status, found = await self._head()
        if status != 200 or not found.get("content-type", "").startswith("text/event-stream"):
            content = b"".join([part async for part in self._parts(found)])
            raise StreamRefused(Answer(status, found, content, 0.0))
        rest = b""
        async for part in self._parts(found):
            now = time.perf_counter()
            *whole, rest = (rest + part).split(b"\n\n")
            for event in whole:
                if event.startswith(b"data: "):
                    yield now, event[6:]

    async def _head(self) -> tuple[int, dict[str, str]]:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return int(lines[0].split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def _parts(self, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            yield await self._reader.readexactly(int(headers.get("content-length", "0")))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")


def request_bytes(method: str, path: str, body: Any = None, headers: Mapping[str, str] = NO_HEADERS) -> bytes:
    """A whole HTTP/1.1 request."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    own = {"Host": "load", "Content-Length": str(len(content)), "Content-Type": "application/json"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (own | dict(headers)).items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + content


async def once(
    address: Address, method: str, path: str, body: Any = None, headers: Mapping[str, str] = NO_HEADERS
) -> Answer:
    """One request over a connection of its own."""
    connection = await Connection.open(address)
    try:
        return await connection.ask(method, path, body, headers)
    finally:
        connection.close()


async def slow_stream(address: Address, path: str, body: Any, bytes_per_second: int, receive_buffer: int) -> int:
    """Ask for a stream and read it slowly through a small socket buffer until the server ends it; the bytes read."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(sock, (address.host, address.port))
        await loop.sock_sendall(sock, request_bytes("POST", path, body))
        total = 0
        try:
            while part := await loop.sock_recv(sock, bytes_per_second):
                total += len(part)
                await asyncio.sleep(1.0)
        except ConnectionError:
            pass  # cut off by the server: what a slow reader has coming
        return total

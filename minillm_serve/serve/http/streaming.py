"""Answers that end when their client does: server-sent events, and waiting for an answer nobody may want any more.

Starlette abandons the body iterator of a streaming response when the client goes away, which would leave the engine
computing for nobody (LiteLLM issue 30244). Here the iterator is always closed, which aborts its requests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Item = TypeVar("Item")

DONE = b"data: [DONE]\n\n"
MAX_ARRIVED = 4
encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def event(content: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {encode_json(content)}\n\n".encode()


class EventStream(Response):
    """Sends the events of an async generator; closes it when it ends, fails, or the client disconnects.

    The status goes out with the first event: what fails before it (the queue, the deadline) is an error like any other.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], headers: dict[str, str] | None = None):
        no_buffering = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(headers=no_buffering | (headers or {}))
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await until_disconnect(self._send_all(send), receive)

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            first = await anext(events, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
            async for data in events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_disconnect(work: Awaitable[Item], receive: Receive) -> Item | None:
    """The result of ``work``, or None when the client disconnects first; ``work`` is then cancelled and awaited."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def answer_or_disconnect(request: Request, work: Awaitable[Item]) -> Item:
    """The result of ``work``. Raises ClientDisconnect when the client of ``request`` is gone before."""
    result = await until_disconnect(work, request.receive)
    if result is None:
        raise ClientDisconnect
    return result


async def merged(streams: Sequence[AsyncGenerator[Item]]) -> AsyncIterator[tuple[int, Item]]:
    """The items of several streams as they come, each with its stream's index. Closing it closes them all.

    A reader that falls behind makes the streams wait: at most MAX_ARRIVED items are held for it.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as items:
            async for item in items:
                yield 0, item
        return
    arrived: asyncio.Queue[tuple[int, Item] | None] = asyncio.Queue(MAX_ARRIVED)
    pumps = [asyncio.ensure_future(_pump(index, stream, arrived)) for index, stream in enumerate(streams)]
    try:
        open_streams = len(pumps)
        while open_streams:
            item = await arrived.get()
            if item is not None:
                yield item
                continue
            open_streams -= 1
            for pump in pumps:  # a stream that failed fails the whole
                if pump.done():
                    pump.result()
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(index: int, stream: AsyncGenerator[Item], into: asyncio.Queue[tuple[int, Item] | None]) -> None:
    try:
        async with aclosing(stream) as items:
            async for item in items:
                await into.put((index, item))
    except asyncio.CancelledError:  # nobody reads any more
        raise
    except BaseException:
        await into.put(None)
        raise
    await into.put(None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

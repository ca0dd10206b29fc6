"""A streaming chat server in virtual time, so that a client can be checked without sockets and without a clock.

The simulation is a discrete-event loop: it lets the student's coroutines run until none of them moves, asks
``respond`` for the scripts of the requests that arrived meanwhile, then delivers the earliest chunk and sets the
clock to its time. The size of each group of arrivals is therefore the client's real concurrency.

This file imports only the standard library: the grader copies it beside its sandboxed worker.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any

# A script is the list of chunks of one answer: {"t": seconds after arrival, "rol", "contenido", "uso"}.
Script = list[dict[str, Any]]
QUIET_TURNS = 40


class StuckClient(RuntimeError):
    """The student's coroutine waits for something that will never come."""


class SimulatedServer:
    """``client`` stands in for ``openai.AsyncOpenAI``; ``clock()`` is the virtual clock in seconds.

    respond: receives the bodies of the requests that arrived together and returns one script for each.
    """

    def __init__(self, respond: Callable[[list[dict[str, Any]]], list[Script]]):
        self.now = 0.0
        self.client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=self._create)))
        self._respond = respond
        self._arrived: list[tuple[dict[str, Any], asyncio.Queue]] = []
        self._schedule: list[tuple[float, int, dict[str, Any] | None, asyncio.Queue]] = []
        self._order = 0
        self._activity = 0

    def clock(self) -> float:
        return self.now

    async def _create(self, **body: Any) -> AsyncIterator[SimpleNamespace]:
        if not body.get("stream"):
            raise ValueError("esta comprobación mide el TTFT: la petición debe llevar stream=True")
        queue: asyncio.Queue = asyncio.Queue()
        self._arrived.append((body, queue))
        self._activity += 1
        return _stream(queue)

    async def drive(self, work: Awaitable[Any]) -> Any:
        """Run ``work`` to its end in virtual time and return its result."""
        task = asyncio.ensure_future(work)
        while True:
            await self._until_quiet(task)
            if task.done():
                return task.result()
            if self._arrived:
                self._admit()
            elif self._schedule:
                self._deliver()
            else:
                task.cancel()
                raise StuckClient("tu cliente se quedó esperando sin ninguna petición en curso")

    async def _until_quiet(self, task: asyncio.Future) -> None:
        turns, seen = 0, self._activity
        while turns < QUIET_TURNS and not task.done():
            await asyncio.sleep(0)
            turns = turns + 1 if self._activity == seen else 0
            seen = self._activity

    def _admit(self) -> None:
        arrivals, self._arrived = self._arrived, []
        for (_, queue), script in zip(arrivals, self._respond([c for c, _ in arrivals]), strict=True):
            for chunk in [*script, None]:
                t = self.now + (chunk["t"] if chunk else script[-1]["t"])
                heapq.heappush(self._schedule, (t, self._order, chunk, queue))
                self._order += 1

    def _deliver(self) -> None:
        self.now, _, chunk, queue = heapq.heappop(self._schedule)
        queue.put_nowait(chunk)


async def _stream(queue: asyncio.Queue) -> AsyncIterator[SimpleNamespace]:
    while (chunk := await queue.get()) is not None:
        yield _openai_chunk(chunk)


def _openai_chunk(chunk: dict[str, Any]) -> SimpleNamespace:
    """The attributes of an OpenAI chunk: the usage chunk has no choices, the role chunk has no content."""
    if chunk.get("uso") is not None:
        return SimpleNamespace(choices=[], usage=SimpleNamespace(completion_tokens=chunk["uso"]))
    delta = SimpleNamespace(role=chunk.get("rol"), content=chunk.get("contenido"))
    return SimpleNamespace(choices=[SimpleNamespace(index=0, delta=delta, finish_reason=None)], usage=None)


def script_of(words: Iterable[str], first_token: float, between_tokens: float) -> Script:
    """Script of one answer: an empty role chunk first, then one chunk per word, then the usage chunk."""
    words = list(words)
    chunks: Script = [{"t": first_token / 2, "rol": "assistant", "contenido": ""}]
    chunks += [{"t": first_token + i * between_tokens, "contenido": w} for i, w in enumerate(words)]
    return [*chunks, {"t": chunks[-1]["t"] + between_tokens / 4, "uso": len(words)}]

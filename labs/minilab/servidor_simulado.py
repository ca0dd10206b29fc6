"""A streaming chat server in virtual time, so that a client can be checked without sockets and without a clock.

The simulation is a discrete-event loop: it lets the student's coroutines run until none of them moves, asks
``responde`` for the scripts of the requests that arrived meanwhile, then delivers the earliest chunk and sets the
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
Guion = list[dict[str, Any]]
VUELTAS_EN_CALMA = 40


class ClienteBloqueado(RuntimeError):
    """The student's coroutine waits for something that will never come."""


class ServidorSimulado:
    """``cliente`` stands in for ``openai.AsyncOpenAI``; ``reloj()`` is the virtual clock in seconds.

    responde: receives the bodies of the requests that arrived together and returns one script for each.
    """

    def __init__(self, responde: Callable[[list[dict[str, Any]]], list[Guion]]):
        self.ahora = 0.0
        self.cliente = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=self._crear)))
        self._responde = responde
        self._nuevos: list[tuple[dict[str, Any], asyncio.Queue]] = []
        self._agenda: list[tuple[float, int, dict[str, Any] | None, asyncio.Queue]] = []
        self._orden = 0
        self._actividad = 0

    def reloj(self) -> float:
        return self.ahora

    async def _crear(self, **cuerpo: Any) -> AsyncIterator[SimpleNamespace]:
        if not cuerpo.get("stream"):
            raise ValueError("esta comprobación mide el TTFT: la petición debe llevar stream=True")
        cola: asyncio.Queue = asyncio.Queue()
        self._nuevos.append((cuerpo, cola))
        self._actividad += 1
        return _flujo(cola)

    async def conduce(self, trabajo: Awaitable[Any]) -> Any:
        """Run ``trabajo`` to its end in virtual time and return its result."""
        tarea = asyncio.ensure_future(trabajo)
        while True:
            await self._hasta_la_calma(tarea)
            if tarea.done():
                return tarea.result()
            if self._nuevos:
                self._admite()
            elif self._agenda:
                self._entrega()
            else:
                tarea.cancel()
                raise ClienteBloqueado("tu cliente se quedó esperando sin ninguna petición en curso")

    async def _hasta_la_calma(self, tarea: asyncio.Future) -> None:
        vueltas, vista = 0, self._actividad
        while vueltas < VUELTAS_EN_CALMA and not tarea.done():
            await asyncio.sleep(0)
            vueltas = vueltas + 1 if self._actividad == vista else 0
            vista = self._actividad

    def _admite(self) -> None:
        llegadas, self._nuevos = self._nuevos, []
        for (_, cola), guion in zip(llegadas, self._responde([c for c, _ in llegadas]), strict=True):
            for trozo in [*guion, None]:
                t = self.ahora + (trozo["t"] if trozo else guion[-1]["t"])
                heapq.heappush(self._agenda, (t, self._orden, trozo, cola))
                self._orden += 1

    def _entrega(self) -> None:
        self.ahora, _, trozo, cola = heapq.heappop(self._agenda)
        cola.put_nowait(trozo)


async def _flujo(cola: asyncio.Queue) -> AsyncIterator[SimpleNamespace]:
    while (trozo := await cola.get()) is not None:
        yield _trozo_openai(trozo)


def _trozo_openai(trozo: dict[str, Any]) -> SimpleNamespace:
    """The attributes of an OpenAI chunk: the usage chunk has no choices, the role chunk has no content."""
    if trozo.get("uso") is not None:
        return SimpleNamespace(choices=[], usage=SimpleNamespace(completion_tokens=trozo["uso"]))
    delta = SimpleNamespace(role=trozo.get("rol"), content=trozo.get("contenido"))
    return SimpleNamespace(choices=[SimpleNamespace(index=0, delta=delta, finish_reason=None)], usage=None)


def guion_de(palabras: Iterable[str], primer_token: float, entre_tokens: float) -> Guion:
    """Script of one answer: an empty role chunk first, then one chunk per word, then the usage chunk."""
    palabras = list(palabras)
    trozos: Guion = [{"t": primer_token / 2, "rol": "assistant", "contenido": ""}]
    trozos += [{"t": primer_token + i * entre_tokens, "contenido": p} for i, p in enumerate(palabras)]
    return [*trozos, {"t": trozos[-1]["t"] + entre_tokens / 4, "uso": len(palabras)}]

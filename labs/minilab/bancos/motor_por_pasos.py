"""The real engine behind the four calls of lab 9, and a student's app on a port of its own, in a thread."""

from __future__ import annotations

import asyncio
import atexit
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minillm_serve import LLM, SamplingParams
from minillm_serve.guided.automaton.vocab import token_bytes

TTFT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STARTUP_S, SHUTDOWN_S = 30.0, 10.0


class PortTaken(RuntimeError):
    """Somebody listens on the port already; shown as its sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class MotorReal:
    """``entra``, ``paso``, ``pendientes`` and ``aborta`` over the engine of an LLM; greedy, tokens as their bytes.

    Whoever drives it makes one call at a time. The steps run in one thread of its own: each thread that computes would
    otherwise have its own team of helpers, more than there are cores.
    """

    def __init__(self, llm: LLM):
        self._core, self._tokenizer = llm.core, llm.tokenizer
        self._bytes = token_bytes(llm.tokenizer.backend)
        self._ids: dict[int, int] = {}  # the engine's number -> the caller's
        self._told: dict[int, int] = {}
        self._arrived: dict[int, float] = {}
        self._first: list[float] = []
        self._tokens = 0
        self._steps = ThreadPoolExecutor(1, "motor-real")
        self.contexto = llm.core.admission.max_model_len

    def cuenta(self, mensajes: Sequence[dict[str, str]]) -> int:
        """Tokens of the prompt that these messages make."""
        return len(self._tokenizer.apply_chat_template(mensajes))

    def entra(self, id: int, mensajes: Sequence[dict[str, str]], max_tokens: int) -> None:
        """A chat joins the queue. Raises RequestError where the engine refuses it."""
        prompt = self._tokenizer.apply_chat_template(mensajes)
        group = self._core.prepare(prompt, SamplingParams(max_tokens=max_tokens, temperature=0.0))
        self._ids[group.rid], self._told[group.rid], self._arrived[group.rid] = id, 0, time.monotonic()
        self._core.add(str(id), group)

    def aborta(self, id: int) -> None:
        """A request leaves before its end; its blocks are free at once."""
        numbers = [number for number, mine in self._ids.items() if mine == id]
        self._core.abort(numbers)
        for number in numbers:
            self._forget(number)

    def pendientes(self) -> int:
        """Requests that have not ended."""
        return len(self._ids) if self._ids else int(self._core.has_work())

    def paso(self) -> list[tuple[int, bytes, bool]]:
        """One step: (id, the bytes of its new tokens, whether it ended) for each request that got any."""
        return self._steps.submit(self._step).result()

    def medidas(self) -> list[dict[str, Any]]:
        """What there is to tell at /metrics, as lab 9's ``expone_metricas`` takes it."""
        stats, labels = self._core.stats(), {"model_name": "aula"}
        kinds = (
            ("aula:num_requests_running", "gauge", "Peticiones en curso.", stats.running),
            ("aula:num_requests_waiting", "gauge", "Peticiones en espera.", stats.waiting),
            ("aula:generation_tokens_total", "counter", "Tokens producidos.", self._tokens),
        )
        rows = [{"nombre": n, "tipo": t, "ayuda": a, "etiquetas": labels, "valor": v} for n, t, a, v in kinds]
        first = {"nombre": "aula:time_to_first_token_seconds", "tipo": "histogram", "ayuda": "TTFT en segundos."}
        return [*rows, {**first, "etiquetas": labels, "limites": list(TTFT_BUCKETS), "observaciones": self._first}]

    def _step(self) -> list[tuple[int, bytes, bool]]:
        told = []
        for output in self._core.step():
            if output.rid not in self._ids:
                continue
            tokens, before = output.outputs[0].token_ids, self._told[output.rid]
            if before == 0 and tokens:
                self._first.append(time.monotonic() - self._arrived[output.rid])
            self._told[output.rid] = len(tokens)
            self._tokens += len(tokens) - before
            told.append((self._ids[output.rid], self._text(tokens[before:]), output.finished))
            if output.finished:
                self._forget(output.rid)
        return told

    def _text(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self._bytes[token] or b"" for token in tokens)

    def _forget(self, number: int) -> None:
        for table in (self._ids, self._told, self._arrived):
            table.pop(number, None)


class EnHilo:
    """A FastAPI app with its bridge's loop, served in a thread; ready when the constructor returns.

    crea: () -> (bridge, app), called inside the thread's event loop. url ends in ``/v1``. puerto 0 picks a free one.
    Raises :class:`PortTaken`, and what the bridge's loop raises before the server is ready.
    """

    def __init__(self, crea: Callable[[], tuple[Any, Any]], puerto: int = 0):
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", puerto))
        except OSError as error:
            self._socket.close()
            busy = f"El puerto {puerto} ya está en uso: para el otro servidor, o elige otro puerto."
            raise PortTaken(busy) from error
        self.puerto = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.puerto}/v1"
        self._make, self._ready, self._error = crea, threading.Event(), None
        self._thread = threading.Thread(target=self._run, name="servidor-propio", daemon=True)
        self._thread.start()
        self._ready.wait(STARTUP_S)
        if self._error is not None:
            raise self._error
        atexit.register(self.para)

    def para(self) -> None:
        """Stop it; calling it twice is harmless."""
        self._server.should_exit = True
        self._thread.join(SHUTDOWN_S)

    def __enter__(self) -> EnHilo:
        return self

    def __exit__(self, *_: object) -> None:
        self.para()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        import uvicorn

        bridge, app = self._make()
        config = uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off", timeout_graceful_shutdown=3)
        self._server = uvicorn.Server(config)
        steps = asyncio.create_task(bridge.bucle())
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        if not steps.done():
            self._ready.set()
        await asyncio.wait({steps, serving}, return_when=asyncio.FIRST_COMPLETED)
        if steps.done() and not serving.done():
            self._server.should_exit = True
            await serving
            steps.result()
            raise RuntimeError("bucle() terminó: debe seguir mientras viva el servidor")
        steps.cancel()
        await asyncio.gather(steps, return_exceptions=True)

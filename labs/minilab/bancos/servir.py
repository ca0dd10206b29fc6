"""What lab 9 stands on: OpenAI's bodies, a toy engine that is advanced step by step, and rehearsals of what drives it.

Standard library only: the grader pastes this file before the student's cells.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

DEFAULT_MAX = 16
REHEARSAL_S = 5.0
IDLE_S = 0.1  # how long a rehearsal watches a bridge that has nothing to do
TOO_MANY = 20_000  # questions between two steps: a loop that asks so often never lets anybody else run
TURNS = 6  # turns of the event loop that a toy step waits for: whoever misuses it meanwhile is seen


# --- What travels ---------------------------------------------------------------------------------------------------


def lee_json(octetos: bytes) -> Any:
    """The JSON value of a request's body, None where it is none."""
    try:
        return json.loads(octetos)
    except ValueError:
        return None


def trozo(peticion: dict[str, Any], texto: str, fin: str | None = None) -> dict[str, Any]:
    """One event of a streamed chat: what is new of the text; ``fin`` (stop, length) in the last one."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": texto}, "finish_reason": fin}
    return {**_frame(peticion, "chat.completion.chunk"), "choices": [choice]}


def trozo_de_uso(peticion: dict[str, Any], entrada: int, salida: int) -> dict[str, Any]:
    """The event after the last: how many tokens the prompt and the answer have."""
    return {**_frame(peticion, "chat.completion.chunk"), "choices": [], "usage": _usage(entrada, salida)}


def junta(peticion: dict[str, Any], eventos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answer of a request that is not streamed, from the events it would have had."""
    choices = [event["choices"][0] for event in eventos if event["choices"]]
    text = "".join(choice["delta"]["content"] for choice in choices)
    message = {"role": "assistant", "content": text}
    whole = {"index": 0, "message": message, "finish_reason": choices[-1]["finish_reason"]}
    usage = next((event["usage"] for event in eventos if "usage" in event), None)
    return {**_frame(peticion, "chat.completion"), "choices": [whole], "usage": usage}


def _frame(request: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-aula", "object": kind, "created": int(time.time()), "model": request.get("model")}


def _usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def anade_rutas(app: Any, modelo: str, metricas: Callable[[], str]) -> None:
    """The three routes beside the chat: ``/health``, ``/v1/models`` and ``/metrics`` (what ``metricas()`` writes)."""
    from fastapi.responses import JSONResponse, PlainTextResponse

    async def health() -> Any:
        return PlainTextResponse("")

    async def models() -> Any:
        card = {"id": modelo, "object": "model", "created": int(time.time()), "owned_by": "aula"}
        return JSONResponse({"object": "list", "data": [card]})

    async def metrics() -> Any:
        return PlainTextResponse(metricas(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, answer in (("/health", health), ("/v1/models", models), ("/metrics", metrics)):
        app.add_api_route(path, answer, methods=["GET"])


def transmision(generador: Any) -> Any:
    """A streamed answer of server-sent events; however it ends, the generator is closed then.

    Starlette alone leaves a generator that waits at its ``yield`` to the garbage collector: the abort would come late.
    """
    from starlette.responses import StreamingResponse

    class Transmision(StreamingResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await generador.aclose()

    return Transmision(generador, media_type="text/event-stream")


# --- A toy engine ---------------------------------------------------------------------------------------------------


def respuesta_de_juguete(prompt: Any) -> bytes:
    """What the toy answers: the prompt in exclamation marks, with characters of one to four bytes."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return f"¡{text}! ñandú → 🙂🙂 {text[::-1]}.".encode()


class MotorDeJuguete:
    """Four calls, as in a real engine: ``entra``, ``paso``, ``pendientes``, ``aborta``.

    Each step gives ``corte`` bytes to each of at most ``plazas`` requests, without regard for where characters end.

    Nobody may call it while a step is under way, and a step must not run in the event loop's thread: ``quejas`` tells.
    charlas: prompts must be lists of messages, as the real engine's are; otherwise a string will do too.
    """

    def __init__(self, plazas: int = 4, corte: int = 3, retraso: float = 0.0, charlas: bool = False):
        self.plazas, self.corte, self.retraso, self.charlas = plazas, corte, retraso, charlas
        self.pasos: list[list[int]] = []  # the ids of each step
        self.abortos: list[int] = []
        self.quejas: list[str] = []
        self.consultas = 0
        self._asked = 0  # since the last step
        self.ttft: list[float] = []
        self.tokens = 0
        self.a_mitad: Callable[[int], None] | None = None
        self._waiting: dict[int, list[bytes]] = {}
        self._running: dict[int, list[bytes]] = {}
        self._loop_thread = threading.get_ident()
        self._in_step = False

    def cuenta(self, mensajes: Any) -> int:
        """Tokens of a prompt: here, its words."""
        return sum(len(m["content"].split()) for m in mensajes)

    def entra(self, id: int, prompt: Any, max_tokens: int) -> None:
        """A request joins the queue."""
        self._between_steps("entra")
        if self.charlas and not isinstance(prompt, list):
            self.quejas.append(f"entra() recibió {prompt!r}: el motor espera una lista de mensajes, con role y content")
        text = respuesta_de_juguete(prompt)
        pieces = [text[i : i + self.corte] for i in range(0, len(text), self.corte)]
        self._waiting[id] = pieces[:max_tokens]

    def aborta(self, id: int) -> None:
        """A request leaves before its end; its place is free at once."""
        self._between_steps("aborta")
        if self._waiting.pop(id, None) is None and self._running.pop(id, None) is None:
            self.quejas.append(f"abortaste la petición {id}, que ya no estaba")
            return
        self.abortos.append(id)

    def pendientes(self) -> int:
        """Requests that have not ended. Raises RuntimeError where nothing else is ever asked."""
        self.consultas += 1
        self._asked += 1
        if self._asked > TOO_MANY:
            raise RuntimeError("bucle() pregunta pendientes() sin parar y no deja correr a nadie: ¿falta clear()?")
        return len(self._waiting) + len(self._running)

    def paso(self) -> list[tuple[int, bytes, bool]]:
        """One step: (id, the bytes of its new token, whether that was the last) for each running request."""
        if not self._waiting and not self._running:
            self.quejas.append("paso() sin nada pendiente")
            return []
        if threading.get_ident() == self._loop_thread:
            self.quejas.append("paso() corrió en el hilo del bucle de eventos: mientras dura, nadie más avanza")
        self._in_step, self._asked = True, 0
        while self._waiting and len(self._running) < self.plazas:
            id = next(iter(self._waiting))
            self._running[id] = self._waiting.pop(id)
        self.pasos.append(list(self._running))
        time.sleep(self.retraso)
        if self.a_mitad:
            self.a_mitad(len(self.pasos))
        outputs = [(id, pieces.pop(0), not pieces) for id, pieces in self._running.items()]
        self._running = {id: pieces for id, pieces in self._running.items() if pieces}
        self.tokens += len(outputs)
        self._in_step = False
        return outputs

    def medidas(self) -> list[dict[str, Any]]:
        """What there is to tell at /metrics, as lab 9's ``expone_metricas`` takes it."""
        return [
            {"nombre": "aula:num_requests_running", "tipo": "gauge", "ayuda": "Peticiones en curso.",
             "etiquetas": {}, "valor": len(self._running)},
            {"nombre": "aula:generation_tokens_total", "tipo": "counter", "ayuda": "Tokens producidos.",
             "etiquetas": {}, "valor": self.tokens},
        ]  # fmt: skip

    def _between_steps(self, call: str) -> None:
        if self._in_step:
            self.quejas.append(f"{call}() en mitad de un paso: el motor solo se toca entre dos pasos")


# --- Rehearsals -----------------------------------------------------------------------------------------------------


def ensaya_puente(crea: Callable[[Any], Any], guion: dict[str, Any]) -> dict[str, Any]:
    """Drive a student's bridge over the toy engine.

    guion: ``plazas``, ``corte`` and ``clientes``: each ``prompt``, ``max``, ``llega`` (0 at the start, n in the middle
    of step n, -1 when all is quiet) and at will ``se_va_tras`` (pieces) or ``cancela_en`` (step).
    """
    return _run(_rehearse_bridge(crea, guion))


async def _rehearse_bridge(crea: Callable[[Any], Any], guion: dict[str, Any]) -> dict[str, Any]:
    motor = MotorDeJuguete(guion.get("plazas", 4), guion.get("corte", 3))
    bridge, clients = crea(motor), guion["clientes"]
    got: list[list[bytes]] = [[] for _ in clients]
    tasks: dict[int, asyncio.Task] = {}

    async def client(place: int) -> None:
        stream = bridge.genera(clients[place]["prompt"], clients[place]["max"])
        async for piece in stream:
            got[place].append(piece)
            if len(got[place]) == clients[place].get("se_va_tras"):
                break
        await stream.aclose()

    def arrive(moment: int) -> None:
        for place, script in enumerate(clients):
            if script["llega"] == moment:
                tasks[place] = asyncio.ensure_future(client(place))
            if moment > 0 and script.get("cancela_en") == moment and place in tasks:
                tasks[place].cancel()

    _watch_steps(motor, arrive)
    loop = asyncio.ensure_future(bridge.bucle())
    for moment in (0, -1):
        arrive(moment)
        await _all_done(tasks, loop)
        await _turns(TURNS)
    asked = motor.consultas
    await asyncio.sleep(IDLE_S)
    spinning = motor.consultas - asked
    await _end(loop)
    return {
        "octetos": [list(b"".join(pieces)) for pieces in got],
        "pasos": motor.pasos,
        "abortos": len(motor.abortos),
        "quejas": motor.quejas,
        "vueltas": spinning,
        "colas": len(bridge.colas),
    }


def ensaya_chat(chat: Callable[..., Any], crea: Callable[[Any], Any], guion: dict[str, Any]) -> dict[str, Any]:
    """Call ``await chat(bridge, message, max)`` for all messages at once over the toy engine."""

    async def rehearse() -> dict[str, Any]:
        motor = MotorDeJuguete(len(guion["mensajes"]), charlas=True)
        bridge = crea(motor)
        _watch_steps(motor, lambda moment: None)
        loop = asyncio.ensure_future(bridge.bucle())
        tasks = {i: asyncio.ensure_future(chat(bridge, m, guion["max"])) for i, m in enumerate(guion["mensajes"])}
        await _all_done(tasks, loop)
        await _end(loop)
        most = max(map(len, motor.pasos), default=0)
        return {"textos": [task.result() for task in tasks.values()], "a_la_vez": most, "quejas": motor.quejas}

    return _run(rehearse())


def ensaya_app(crea_app: Callable[..., Any], crea: Callable[[Any], Any], guion: dict[str, Any]) -> dict[str, Any]:
    """Ask a student's app without sockets, over the toy engine.

    guion: ``modelo``, ``contexto``, ``plazas`` and ``peticiones``, all at once: each ``ruta``, ``cuerpo`` (text, None
    for a GET) and at will ``se_va_tras``: pieces of the body after which the client hangs up.
    """

    async def rehearse() -> dict[str, Any]:
        motor = MotorDeJuguete(guion.get("plazas", 4), charlas=True)
        bridge = crea(motor)
        app = crea_app(bridge, guion["modelo"], guion["contexto"])
        _watch_steps(motor, lambda moment: None)
        loop = asyncio.ensure_future(bridge.bucle())
        tasks = {i: asyncio.ensure_future(_request(app, p)) for i, p in enumerate(guion["peticiones"])}
        await _all_done(tasks, loop)
        left = await _emptied(motor)
        await _end(loop)
        return {
            "respuestas": [task.result() for task in tasks.values()],
            "abortos": len(motor.abortos),
            "pendientes": left,
            "a_la_vez": max(map(len, motor.pasos), default=0),
            "quejas": motor.quejas,
        }

    return _run(rehearse())


async def _request(app: Any, script: dict[str, Any]) -> dict[str, Any]:
    """One request through ASGI: status, content type, pieces of the body."""
    body = script.get("cuerpo")
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": "GET" if body is None else "POST", "path": script["ruta"], "raw_path": script["ruta"].encode(),
        "query_string": b"", "root_path": "", "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    answer: dict[str, Any] = {"estado": None, "tipo": "", "trozos": []}
    gone, asked = asyncio.Event(), False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": (body or "").encode(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            answer["estado"], answer["tipo"] = message["status"], headers.get("content-type", "")
        elif message.get("body"):
            answer["trozos"].append(message["body"].decode("utf-8", "replace"))
            if len(answer["trozos"]) == script.get("se_va_tras"):
                gone.set()
        await asyncio.sleep(0)

    await app(scope, receive, send)
    return answer


def _watch_steps(motor: MotorDeJuguete, arrive: Callable[[int], None]) -> None:
    """In the middle of each step the event loop takes some turns, and clients come and go."""
    loop = asyncio.get_running_loop()

    def halfway(number: int) -> None:
        turned = threading.Event()

        async def turn() -> None:
            try:
                arrive(number)
                await _turns(TURNS)
            finally:
                turned.set()

        if threading.get_ident() != motor._loop_thread:
            asyncio.run_coroutine_threadsafe(turn(), loop)
            turned.wait(REHEARSAL_S)
        else:
            arrive(number)

    motor.a_mitad = halfway


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _all_done(tasks: dict[int, asyncio.Task], loop: asyncio.Future) -> None:
    """Until every client is done, those that arrive meanwhile too. Raises what the bridge's loop raised."""
    deadline = time.monotonic() + REHEARSAL_S
    while waiting := [task for task in tasks.values() if not task.done()]:
        left = deadline - time.monotonic()
        done, _ = await asyncio.wait([*waiting, loop], timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        if loop.done():
            loop.result()
            raise RuntimeError("bucle() terminó: debe seguir mientras viva el servidor")
        if not done:
            for task in waiting:
                task.cancel()
            raise TimeoutError(f"{len(waiting)} clientes esperan algo que no llega")
    errors = [task.exception() for task in tasks.values() if not task.cancelled()]
    if error := next(filter(None, errors), None):  # all were asked for theirs: asyncio would print what nobody reads
        raise error


async def _emptied(motor: MotorDeJuguete) -> int:
    """What is still in the engine a while after the last client has gone."""
    deadline = time.monotonic() + REHEARSAL_S / 2
    while (left := motor.pendientes()) and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    return left


async def _end(loop: asyncio.Future) -> None:
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """In a thread of its own: where this is called, an event loop may be running."""
    result: dict[str, Any] = {}

    def target() -> None:
        try:
            result["value"] = asyncio.run(work)
        except BaseException as error:
            result["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]

"""The trusted end of the pipe: starts a worker, sends one call at a time, and never believes more than JSON."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import minilab.pruebas.planos
import minilab.pruebas.servidor_simulado
import minilab.pruebas.tensores
from minilab.pruebas.casos import Case, Reply, StudentError, respond_with
from minilab.pruebas.planos import NotPlainValue, to_plain
from minilab_grading.arnes.aislamiento import NONE, Isolation, NoIsolation, session_folder
from minilab_grading.arnes.celdas import PREPARATION
from minilab_grading.arnes.vigilante import Watchdog, kill_tree

WORKER = Path(__file__).with_name("trabajador.py")
PROGRAM = (
    WORKER,
    Path(minilab.pruebas.planos.__file__),
    Path(minilab.pruebas.servidor_simulado.__file__),
    Path(minilab.pruebas.tensores.__file__),
)
START_S, CALL_S, SESSION_S = 30.0, 10.0, 90.0
REPLY_MAX = 1 << 20
LIMITS = {
    "RLIMIT_CPU": 60,
    "RLIMIT_DATA": 2 << 30,  # what a process may write to; libraries that are only mapped are not in it
    "RLIMIT_AS": 8 << 30,  # torch with CUDA maps more than 3 GiB before it has done anything
    "RLIMIT_NPROC": 32,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_FSIZE": 1 << 20,
    "RLIMIT_CORE": 0,
    "RLIMIT_MSGQUEUE": 0,
}


class WorkerDied(RuntimeError):
    """The worker ended, fell silent or broke the protocol; the message is for the student."""


class Session:
    """One worker with the student's cells loaded. Use as a context manager, from one thread.

    A call may take ``call_s`` seconds of real time, all calls together ``session_s`` seconds of waiting on the worker,
    a reply 1 MiB, and all its processes 1.5 GiB of memory. Past a limit the worker is killed; that call and every later
    one raise :class:`WorkerDied`. Entering raises ``NoIsolation`` where the worker does not start.
    """

    def __init__(self, isolation: Isolation, call_s: float = CALL_S, session_s: float = SESSION_S):
        self._isolation, self._call_s, self._session_s = isolation, call_s, session_s
        self._pending, self._end, self._handles = b"", "", 0
        self._left = self._limit_s = START_S

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(session_folder(PROGRAM))
            launch = self._isolation.launch(self._folder, WORKER.name)
            self._process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=launch.cwd,
                env=launch.environment,
                start_new_session=True,
                bufsize=0,
            )
            stack.callback(self._close)
            os.set_blocking(self._process.stdin.fileno(), False)
            os.set_blocking(self._process.stdout.fileno(), False)
            self._watchdog = Watchdog(self._roots)
            try:
                self._ask({"op": "hola"}, START_S)
            except WorkerDied as error:
                raise NoIsolation(f"El proceso aislado ({self._isolation.level}) no arrancó: {error}.") from error
            self._left = self._session_s
            self._watchdog.start()
            stack.callback(self._watchdog.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close(self) -> None:
        kill_tree(self._roots())
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _roots(self) -> list[int]:
        """The processes that everything of this worker descends from; a container has another parent."""
        with contextlib.suppress(OSError, ValueError):
            return [int((self._folder / "pid").read_text()), self._process.pid]
        return [self._process.pid]

    def load(self, sources: Sequence[tuple[str, str]]) -> Reply:
        """Run the cells (name, source) in order in one namespace.

        The course's own preparation may take as long as a start: it may read torch from a cold disk.
        """
        limits = dict(LIMITS)
        if self._isolation.level == NONE:
            del limits["RLIMIT_NPROC"]  # without a user namespace it counts every process of the grader's user
        course = [source for source in sources if source[0] == PREPARATION]
        if course:
            prepared = self._ask({"op": "carga", "fuentes": course, "limites": limits}, START_S)
            if prepared.error:
                return prepared
        own = [source for source in sources if source[0] != PREPARATION]
        return self._ask({"op": "carga", "fuentes": own, "limites": limits})

    def call(self, function: str, case: Case) -> Reply:
        """Call the student's function with the case's arguments; a client case talks to the simulated server here."""
        command = {"op": "llama", "funcion": function, "args": list(case.args)}
        if case.scripts is None:
            return self._ask(command)
        groups: list = []
        reply = self._ask({**command, "op": "cliente"}, respond=respond_with(case, groups))
        return Reply(reply.value, reply.error, reply.message, tuple(groups))

    def remote(self) -> SessionRemote:
        return SessionRemote(self)

    def new(self, cls: str, args: Sequence[Any]) -> tuple[int, Reply]:
        """Make an instance; this end counts the handles."""
        self._handles += 1
        return self._handles, self._ask({"op": "crea", "objeto": self._handles, "clase": cls, "args": list(args)})

    def run(self, handle: int, calls: Sequence[tuple[str, Sequence[Any]]]) -> Reply:
        """Several methods of an instance; the value is a list with one value each."""
        reply = self._ask({"op": "metodos", "objeto": handle, "llamadas": [[m, list(args)] for m, args in calls]})
        if not reply.error and (type(reply.value) is not list or len(reply.value) != len(calls)):
            self._kill("el proceso rompió el protocolo")
        return reply

    def _ask(
        self, command: dict[str, Any], limit_s: float | None = None, respond: Callable[[list], list] | None = None
    ) -> Reply:
        if self._end:
            raise WorkerDied(self._end)
        self._limit_s = limit_s or self._call_s
        deadline, nonce = time.monotonic() + self._limit_s, secrets.token_hex(8)
        self._write({"n": nonce, **command}, deadline)
        while True:
            message = self._read(deadline)
            if message.get("n") != nonce:
                self._kill("el proceso respondió fuera de turno")
            try:
                if "llegan" not in message:
                    return _reply(message)
                bodies = to_plain(message["llegan"])
            except NotPlainValue:
                bodies = None
            if respond is None or not _are_bodies(bodies):
                self._kill("el proceso rompió el protocolo")
            self._write({"n": nonce, "guiones": respond(bodies)}, deadline)

    def _write(self, message: dict[str, Any], deadline: float) -> None:
        data = memoryview((json.dumps(message) + "\n").encode())
        while data:
            self._wait(self._process.stdin, selectors.EVENT_WRITE, deadline)
            try:
                data = data[os.write(self._process.stdin.fileno(), data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._kill("el proceso terminó antes de tiempo")

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._pending:
            self._wait(self._process.stdout, selectors.EVENT_READ, deadline)
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                self._kill("el proceso terminó antes de tiempo")
            self._pending += chunk
            if len(self._pending) > REPLY_MAX:
                self._kill("la respuesta es demasiado grande")
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._kill("el proceso rompió el protocolo")
        return message

    def _wait(self, pipe: Any, event: int, deadline: float) -> None:
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            ready = selector.select(max(0.0, min(deadline - began, self._left)))
        self._left -= time.monotonic() - began
        if self._left <= 0:
            self._kill(f"agotó los {self._session_s:.0f} s de esta comprobación")
        if not ready:
            self._kill(f"no respondió en {self._limit_s:.0f} s")

    def _kill(self, reason: str) -> None:
        """End the worker; the watchdog's reason, where it has one, is the cause of what was seen here."""
        self._end = self._watchdog.reason or reason
        kill_tree(self._roots())
        raise WorkerDied(self._end)


class SessionRemote:
    """:class:`minilab.pruebas.casos.Remote` on a session."""

    def __init__(self, session: Session):
        self._session = session

    def new(self, cls: str, *args: Any) -> int:
        handle, reply = self._session.new(cls, args)
        _value(reply)
        return handle

    def call(self, handle: int, method: str, *args: Any) -> Any:
        return self.run(handle, [(method, args)])[0]

    def run(self, handle: int, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        return _value(self._session.run(handle, calls))

    def function(self, name: str, *args: Any) -> Any:
        return _value(self._session.call(name, Case(name=name, args=args, hint="")))


def _value(reply: Reply) -> Any:
    if reply.error:
        raise StudentError(reply.error, reply.message)
    return reply.value


def _reply(message: dict[str, Any]) -> Reply:
    if error := message.get("error"):
        return Reply(error=_text(error, 80), message=_text(message.get("mensaje", ""), 300))
    try:
        return Reply(value=to_plain(message.get("valor")))
    except NotPlainValue as error:
        return Reply(error="TypeError", message=str(error))


def _text(value: Any, limit: int) -> str:
    """At most ``limit`` characters that any file can hold."""
    return value[:limit].encode(errors="replace").decode() if type(value) is str else "?"


def _are_bodies(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(body, dict) for body in value)

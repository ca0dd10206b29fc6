"""The trusted end of the pipe: starts a worker, sends one call at a time, and never believes more than JSON."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minilab.planos
import minilab.servidor_simulado
from minilab.casos import Case, Reply, respond_with
from minilab.planos import NotPlainValue, to_plain
from minilab_grading.arnes.aislamiento import Isolation

WORKER = Path(__file__).with_name("trabajador.py")
CALL_S = 20.0
REPLY_MAX = 1 << 20
LIMITS = {"RLIMIT_CPU": 30, "RLIMIT_AS": 2 << 30, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CORE": 0}


class WorkerDied(RuntimeError):
    """The worker ended, fell silent or broke the protocol; the message is for the student."""


class Session:
    """One worker process with the student's cells loaded. Use as a context manager.

    Every wait is bounded by ``call_s`` wall-clock seconds and every reply by 1 MiB; on either limit the whole
    process group is killed and :class:`WorkerDied` is raised.
    """

    def __init__(self, isolation: Isolation, call_s: float = CALL_S):
        self._isolation, self._call_s = isolation, call_s
        self._pending = b""

    def __enter__(self) -> Session:
        self._folder = Path(tempfile.mkdtemp(prefix="arnes-"))
        for file in (WORKER, minilab.planos.__file__, minilab.servidor_simulado.__file__):
            shutil.copy(file, self._folder)
        command = [*self._isolation.command, sys.executable, "-I", str(self._folder / WORKER.name)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            env=self._environment(),
            start_new_session=True,
            bufsize=0,
        )
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)
        return self

    def _environment(self) -> dict[str, str]:
        """Nothing of the grader's environment goes in; PATH is what the sandbox commands need."""
        fixed = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self._folder), "LANG": "C.UTF-8"}
        return {**fixed, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def load(self, sources: list[tuple[str, str]]) -> Reply:
        """Run the cells (name, source) in order in one namespace."""
        return self._ask({"op": "carga", "fuentes": sources, "limites": LIMITS}, None)

    def call(self, function: str, case: Case) -> Reply:
        """Call the student's function with the case's arguments; a client case talks to the simulated server here."""
        groups: list = []
        mode = "normal" if case.scripts is None else "cliente"
        command = {"op": "llama", "funcion": function, "args": list(case.args), "modo": mode}
        reply = self._ask(command, respond_with(case, groups))
        return Reply(reply.value, reply.error, reply.message, tuple(groups))

    def _ask(self, command: dict[str, Any], respond: Callable[[list], list] | None) -> Reply:
        deadline, nonce = time.monotonic() + self._call_s, secrets.token_hex(8)
        self._write({"n": nonce, **command}, deadline)
        while True:
            message = self._read(deadline)
            if message.get("n") != nonce:
                raise WorkerDied("el proceso respondió fuera de turno")
            if "llegan" not in message:
                return _reply(message)
            if respond is None or not _are_bodies(message["llegan"]):
                raise WorkerDied("el proceso rompió el protocolo")
            self._write({"n": nonce, "guiones": respond(message["llegan"])}, deadline)

    def _write(self, message: dict[str, Any], deadline: float) -> None:
        data = memoryview((json.dumps(message) + "\n").encode())
        while data:
            self._wait(self._process.stdin, selectors.EVENT_WRITE, deadline)
            try:
                data = data[os.write(self._process.stdin.fileno(), data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise WorkerDied("el proceso terminó antes de tiempo") from error

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._pending:
            self._wait(self._process.stdout, selectors.EVENT_READ, deadline)
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise WorkerDied("el proceso terminó antes de tiempo")
            self._pending += chunk
            if len(self._pending) > REPLY_MAX:
                raise WorkerDied("la respuesta es demasiado grande")
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise WorkerDied("el proceso rompió el protocolo") from error
        if not isinstance(message, dict):
            raise WorkerDied("el proceso rompió el protocolo")
        return message

    def _wait(self, pipe: Any, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise WorkerDied(f"no respondió en {self._call_s:.0f} s")


def _reply(message: dict[str, Any]) -> Reply:
    if error := message.get("error"):
        return Reply(error=str(error)[:80], message=str(message.get("mensaje", ""))[:300])
    try:
        return Reply(value=to_plain(message.get("valor")))
    except NotPlainValue as error:
        return Reply(error="TypeError", message=str(error))


def _are_bodies(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(body, dict) for body in value)

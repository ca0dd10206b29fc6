"""Measuring processes: one that holds the engine's model, one that holds the pipeline, each loaded once.

A run is a fresh fork of a loaded process: it starts with the weights in memory and nothing else of the runs before it.
The loaded process computes with one thread, so that no thread pool exists when it forks; the fork starts its own.
Linux and other systems with ``fork``. The protocol is one JSON object a line, strictly question and answer.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ANSWER_S = 300.0


class MeterError(RuntimeError):
    """The instructor's machine cannot measure (not the student's fault); one Spanish sentence with the remedy."""


class Bank:
    """The trusted end. kind: ``motor`` or ``pipeline``; the process starts with the first run and ends with the grader.

    Any failure of the process is a :class:`MeterError`.
    """

    def __init__(self, kind: str, model: Path):
        self._kind, self._model = kind, model
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._pending = b""

    @contextmanager
    def run(self, threads: int, **setup: Any) -> Iterator[Run]:
        """A fresh process with ``threads`` threads, warmed up; ``setup`` is what its kind needs (:mod:`.bancos`)."""
        if self._process is None:
            self.start()
        self._ask({"hilos": threads, **setup})
        run = Run(self)
        try:
            yield run
        except MeterError:
            self.close()
            raise
        except BaseException:
            self._ask({"op": "fin"})
            raise
        self._ask({"op": "fin"})

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process, self._pending = None, b""

    def start(self) -> None:
        environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "minilab_grading.medidores.bancos", self._kind, str(self._model)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=os.environ | environment, bufsize=0,
        )  # fmt: skip
        self.info = self._read()

    def _ask(self, message: dict[str, Any]) -> Any:
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._failure("terminó antes de tiempo") from error
        return self._read()

    def _read(self) -> Any:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(ANSWER_S):
                    raise self._failure(f"no respondió en {ANSWER_S:.0f} s")
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._failure("terminó antes de tiempo")
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        message = json.loads(line)
        if "error" in message:
            raise self._failure(message["error"])
        return message["valor"]

    def _failure(self, what: str) -> MeterError:
        self._log.seek(0)
        tail = self._log.read()[-800:].decode(errors="replace").strip()
        return MeterError(
            f"el proceso de medida «{self._kind}» {what}" + (f"; lo último que dijo:\n{tail}" if tail else "")
        )


class Run:
    """One fork of a bank."""

    def __init__(self, bank: Bank):
        self._bank = bank

    def ask(self, op: str, **fields: Any) -> Any:
        return self._bank._ask({"op": op, **fields})


class Pipe:
    """The measuring process's end: questions on stdin, answers on what was stdout; libraries' prints go to stderr."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._pending = b""

    def read(self) -> dict[str, Any] | None:
        """The next question; None when the grader is gone."""
        while b"\n" not in self._pending:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def answer(self, value: Any) -> None:
        self._write({"valor": value})

    def fail(self, why: str) -> None:
        self._write({"error": why})

    def _write(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._out, data) :]

"""Start a worker (worker.py) and follow what it says; whatever happens to it, the GPU's memory is free afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import minillm_kernels
import minillm_serve

WORKER = Path(__file__).with_name("worker.py")
LOG_TAIL = 6000
POLL_S = 2.0


class WorkerError(RuntimeError):
    """A worker ended early, or said nothing for too long; the message's first line says why, then comes the end of
    what it printed."""


def follow(job: Mapping[str, Any], site: Path | None = None, timeout_s: float = 600.0) -> Iterator[dict[str, Any]]:
    """Run a job; yields its messages as they come. Raises :class:`WorkerError`.

    site: folder that goes before all others on the worker's PYTHONPATH. timeout_s: longest silence.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log, tempfile.TemporaryDirectory() as cwd:
        process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            cwd=cwd,  # not the repository: its folder kernels has the name of a package that transformers looks for
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": _python_path(job["backend"], site)},
            # vLLM's engine is a process of its own, and must not outlive this one with the GPU in its hands.
            **({"process_group": 0} if os.name == "posix" else {}),
        )
        try:
            yield from _messages(process, job, timeout_s)
        except WorkerError as error:
            log.seek(0)
            tail = log.read()[-LOG_TAIL:].strip()
            raise WorkerError(f"{error}\n{tail}") from None
        finally:
            _end(process)


def _messages(process: subprocess.Popen[str], job: Mapping[str, Any], timeout_s: float) -> Iterator[dict[str, Any]]:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(json.dumps(job))
        process.stdin.close()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(process, lines), daemon=True).start()
    while True:
        line = _next_line(process, lines, timeout_s)
        if not line:
            raise WorkerError(f"ended with code {process.wait()}")
        message = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        if "done" in message:
            return
        yield message


def _next_line(process: subprocess.Popen[str], lines: queue.SimpleQueue[str], timeout_s: float) -> str:
    """Empty at the end; also where the worker died and a process that it had started keeps the pipe open."""
    deadline, dead = time.monotonic() + timeout_s, False
    while time.monotonic() < deadline:
        try:
            return lines.get(timeout=min(timeout_s, POLL_S))
        except queue.Empty:
            if dead:
                return ""
            dead = process.poll() is not None  # what it said last may still be on its way
    raise WorkerError(f"said nothing for {timeout_s:.0f} s")


def _listen(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _end(process: subprocess.Popen[str]) -> None:
    """The worker and all that it started."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()


def _python_path(backend: str, site: Path | None) -> str:
    """Where the worker finds packages: ``site``, what this process was given and, for our engine alone, our own two."""
    modules = (minillm_serve, minillm_kernels) if backend == "minillm" else ()
    ours = {str(Path(module.__file__).absolute().parents[1]) for module in modules}
    given = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return os.pathsep.join([*([str(site.absolute())] if site else []), *given, *sorted(ours)])

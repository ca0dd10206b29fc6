"""Run something in a forked child: it sees all that the notebook holds, changes none of it, and can be ended."""

from __future__ import annotations

import io
import os
import pickle
import selectors
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
MEMORY = 2 << 30  # bytes a check may take beyond what the notebook holds
PRINTED = 4_000  # characters of what the student's code prints


class OutOfProcess(RuntimeError):
    """The child did not end in time, or ended without an answer; the message is for the student."""


def run_apart(work: Callable[[], T], limit_s: float) -> T:
    """``work()`` in a child of this process; its value must pickle. Raises :class:`OutOfProcess`, or what it raised.

    What it prints is shown here when it ends, its beginning at least.

    Where there is no ``fork`` (Windows), or where forking a process with threads is not safe (macOS), it runs here.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin":
        return work()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; see _calm_threads
        child = os.fork()
    if child == 0:
        os.close(reader)
        _work_and_exit(work, writer)
    os.close(writer)
    try:
        answer = _read_until(reader, time.monotonic() + limit_s)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer is None:
        raise OutOfProcess(f"no terminó en {limit_s:.0f} s: ¿hay un bucle que no acaba?")
    if not answer:
        raise OutOfProcess("el proceso de la comprobación terminó antes de tiempo: ¿sin memoria, o un exit()?")
    kind, value, printed = pickle.loads(answer)
    if printed:
        print(printed, end="")
    if kind == "raised":
        raise value
    return value


def _work_and_exit(work: Callable[[], Any], writer: int) -> None:
    """The child's whole life. It must not return into the notebook's own loop, nor print into its outputs."""
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        sys.stdout = sys.stderr = printed = io.StringIO()
        _calm_threads()
        _limit_memory()
        try:
            answer = ("value", work())
        except Exception as error:
            answer = ("raised", error)
        with open(writer, "wb") as output:
            output.write(pickle.dumps((*answer, printed.getvalue()[:PRINTED])))
    finally:
        os._exit(0)


def _calm_threads() -> None:
    """The parent's thread pools did not come along with the fork: torch must not wait for them."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _limit_memory() -> None:
    """Private memory beyond what is mapped already; only Linux counts it this way."""
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/status", encoding="ascii") as status:
        held = next(int(line.split()[1]) for line in status if line.startswith("VmData:")) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, held + MEMORY))


def _read_until(reader: int, deadline: float) -> bytes | None:
    """All that the child writes, empty if it writes nothing; None if it is still at it at ``deadline``."""
    parts: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(reader, 1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None

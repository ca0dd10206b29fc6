"""How much work one constraint may cause: counted, so that a hostile schema is refused within a second."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minillm_serve.guided.errors import SchemaError

STEPS = 3_000_000  # about one second of Python on a slow core; what a step is, each caller of spend() says
SECONDS = 1.0


class _Collections(threading.local):
    """The CPU seconds that full garbage collections took in this thread: they go by the heap of the whole process,
    so where it is large one of them takes longer than a compilation may, and whose turn it is, is chance.
    """

    seconds = 0.0
    began = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        if info["generation"] == 2:
            if phase == "start":
                self.began = time.thread_time()
            else:
                self.seconds += time.thread_time() - self.began


_collections = _Collections()
gc.callbacks.append(_collections)


def _worked() -> float:
    """CPU seconds of this thread, full collections not counted."""
    return time.thread_time() - _collections.seconds


class Budget:
    """The steps and the seconds of this thread's own work that are left to one compilation."""

    def __init__(self, steps: int = STEPS, seconds: float = SECONDS):
        self.left = steps
        self.deadline = _worked() + seconds

    def spend(self, steps: int, keyword: str, path: str) -> None:
        self.left -= steps
        if self.left < 0 or _worked() > self.deadline:
            raise SchemaError(keyword, path, "it takes more work to compile than is allowed for one request")


_current: ContextVar[Budget | None] = ContextVar("minillm_guided_budget", default=None)


@contextmanager
def budget(limit: Budget | None = None) -> Iterator[Budget]:
    """Within the block, :func:`spend` counts against ``limit`` (a fresh budget by default)."""
    limit = limit or Budget()
    token = _current.set(limit)
    try:
        yield limit
    finally:
        _current.reset(token)


def spend(steps: int, keyword: str = "schema", path: str = "") -> None:
    """Count ``steps`` units of work done for ``keyword`` at ``path``. Raises :class:`SchemaError` when none are left.

    Outside a :func:`budget` block nothing is counted.
    """
    limit = _current.get()
    if limit is not None:
        limit.spend(steps, keyword, path)

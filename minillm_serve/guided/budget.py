"""How much work one constraint may cause: counted, so that a hostile schema is refused within a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from minillm_serve.guided.errors import SchemaError

STEPS = 3_000_000  # about one second of Python on a slow core; what a step is, each caller of spend() says
SECONDS = 1.0


class Budget:
    """The steps and the seconds of this thread's CPU time that are left to one compilation."""

    def __init__(self, steps: int = STEPS, seconds: float = SECONDS):
        self.left = steps
        self.deadline = time.thread_time() + seconds

    def spend(self, steps: int, keyword: str, path: str) -> None:
        self.left -= steps
        if self.left < 0 or time.thread_time() > self.deadline:
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

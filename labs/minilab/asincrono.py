"""Run a coroutine from a notebook cell, a script or a check alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def corre(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end in a thread and an event loop of its own (a notebook's loop is already running)."""
    output: dict[str, Any] = {}

    def target() -> None:
        try:
            output["valor"] = asyncio.run(coroutine)
        except BaseException as error:
            output["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join()
    if "error" in output:
        raise output["error"]
    return output["valor"]

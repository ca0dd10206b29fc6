"""Run a coroutine from a notebook cell, a script or a check alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def corre(corrutina: Coroutine[Any, Any, T]) -> T:
    """Run ``corrutina`` to its end in a thread and an event loop of its own (a notebook's loop is already running)."""
    salida: dict[str, Any] = {}

    def hilo() -> None:
        try:
            salida["valor"] = asyncio.run(corrutina)
        except BaseException as error:
            salida["error"] = error

    trabajo = threading.Thread(target=hilo, daemon=True)
    trabajo.start()
    trabajo.join()
    if "error" in salida:
        raise salida["error"]
    return salida["valor"]

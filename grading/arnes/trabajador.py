"""The worker: runs the student's cells and answers calls, one JSON line each. Started in a folder of its own.

It holds no expected value and no hidden case: it gets the arguments of one call at a time. Its neighbours in that
folder are ``planos.py`` and ``servidor_simulado.py``, copies of the public ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from planos import NotPlainValue, to_plain
from servidor_simulado import SimulatedServer


def set_limits(limits: dict[str, int]) -> None:
    """CPU seconds, address space in bytes and largest file in bytes; nothing where the platform has no rlimits."""
    try:
        import resource
    except ImportError:
        return
    for name, value in limits.items():
        # macOS refuses RLIMIT_AS; the other limits still hold there.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (value, value))


class Channel:
    """JSON lines on the original stdin and stdout; the student's prints go to stderr instead."""

    def __init__(self) -> None:
        self._input = os.fdopen(os.dup(0), "r", encoding="utf-8")
        self._output = os.fdopen(os.dup(1), "w", encoding="utf-8")
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.dup2(2, 1)

    def read(self) -> dict | None:
        line = self._input.readline()
        return json.loads(line) if line else None

    def write(self, message: dict) -> None:
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()


def load(namespace: dict, sources: list[list[str]]) -> None:
    for name, code in sources:
        exec(compile(code, f"<{name}>", "exec"), namespace)


def call(namespace: dict, command: dict, channel: Channel) -> dict:
    function = namespace.get(command["funcion"])
    if not callable(function):
        return {"error": "NameError", "mensaje": f"no existe la función {command['funcion']}"}
    if command["modo"] == "cliente":
        return {"valor": to_plain(asyncio.run(_drive(function, command, channel)))}
    return {"valor": to_plain(function(*command["args"]))}


async def _drive(function: object, command: dict, channel: Channel) -> object:
    def respond(bodies: list[dict]) -> list:
        channel.write({"n": command["n"], "llegan": to_plain(bodies)})
        reply = channel.read()
        if reply is None:
            raise SystemExit(0)
        return reply["guiones"]

    server = SimulatedServer(respond)
    return await server.drive(function(server.client, *command["args"], server.clock))


def main() -> None:
    channel = Channel()
    namespace: dict = {"__name__": "cuaderno"}
    while (command := channel.read()) is not None:
        try:
            if command["op"] == "carga":
                set_limits(command["limites"])
                load(namespace, command["fuentes"])
                reply: dict = {"valor": None}
            else:
                reply = call(namespace, command, channel)
        except NotPlainValue as error:
            reply = {"error": "TypeError", "mensaje": str(error)}
        except Exception as error:
            reply = {"error": type(error).__name__, "mensaje": str(error)[:300]}
        channel.write({"n": command["n"], **reply})


if __name__ == "__main__":
    main()

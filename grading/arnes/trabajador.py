"""The worker: runs the student's cells and answers calls, one JSON line each. Started in a folder of its own.

It holds no expected value and no hidden case: it gets the arguments of one call at a time. Its neighbours in that
folder are ``planos.py``, ``servidor_simulado.py`` and ``tensores.py``, copies of the public ones.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import linecache
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from planos import NotPlainValue, to_plain
from servidor_simulado import SimulatedServer
from tensores import with_tensors

ADDED = "celdas añadidas"


def set_limits(limits: dict[str, int]) -> None:
    """Limits of this process and its children, by the names of module ``resource``; none on a platform without it."""
    try:
        import resource
    except ImportError:
        return
    for name, value in limits.items():
        # macOS refuses RLIMIT_AS and has no RLIMIT_MSGQUEUE; the other limits still hold there.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (value, value))


class Channel:
    """JSON lines on the original stdin and stdout; what the student prints goes to stderr, which nobody reads."""

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


class Notebook:
    """The student's namespace, as a module of its own, and the instances that were made in it."""

    def __init__(self) -> None:
        module = ModuleType("cuaderno")
        sys.modules["cuaderno"] = module  # dataclasses and typing look the module of a class up
        self.namespace = vars(module)
        self._objects: dict[int, Any] = {}

    def load(self, sources: list[list[str]]) -> None:
        for name, code in sources:
            # Where inspect looks for the source of a function: Triton compiles kernels from there.
            linecache.cache[f"<{name}>"] = (len(code), None, code.splitlines(keepends=True), f"<{name}>")
            if name != ADDED:
                exec(compile(code, f"<{name}>", "exec", dont_inherit=True), self.namespace)
                continue
            for statement in ast.parse(code).body:
                # An added cell may lean on what only the notebook has; the rest of it still counts.
                with contextlib.suppress(Exception, SystemExit):
                    one = ast.Module([statement], type_ignores=[])
                    exec(compile(one, f"<{name}>", "exec", dont_inherit=True), self.namespace)

    def named(self, name: str) -> Any:
        if not callable(found := self.namespace.get(name)):
            raise NameError(f"no existe {name}")
        return found

    def new(self, handle: int, cls: str, args: list) -> None:
        self._objects[handle] = self.named(cls)(*with_tensors(args))

    def run(self, handle: int, calls: list[list]) -> list:
        return [to_plain(getattr(self._objects[handle], method)(*with_tensors(args))) for method, args in calls]

    def call(self, name: str, args: list) -> Any:
        return to_plain(self.named(name)(*with_tensors(args)))

    async def drive(self, name: str, args: list, nonce: str, channel: Channel) -> Any:
        """A client case: each group of requests goes to the other end, and its scripts come back."""

        def respond(bodies: list[dict]) -> list:
            channel.write({"n": nonce, "llegan": to_plain(bodies)})
            if (reply := channel.read()) is None:
                os._exit(0)
            return reply["guiones"]

        server = SimulatedServer(respond)
        return to_plain(await server.drive(self.named(name)(server.client, *args, server.clock)))


def answer(notebook: Notebook, command: dict, channel: Channel) -> Any:
    match command["op"]:
        case "hola":
            return None
        case "carga":
            set_limits(command["limites"])
            return notebook.load(command["fuentes"])
        case "crea":
            return notebook.new(command["objeto"], command["clase"], command["args"])
        case "metodos":
            return notebook.run(command["objeto"], command["llamadas"])
        case "llama":
            return notebook.call(command["funcion"], command["args"])
        case "cliente":
            return asyncio.run(notebook.drive(command["funcion"], command["args"], command["n"], channel))


def main() -> None:
    channel, notebook = Channel(), Notebook()
    while (command := channel.read()) is not None:
        try:
            reply: dict = {"valor": answer(notebook, command, channel)}
        except NotPlainValue as error:
            reply = {"error": "TypeError", "mensaje": str(error)}
        except BaseException as error:
            reply = {"error": type(error).__name__, "mensaje": describe(error)}
        channel.write({"n": command["n"], **reply})


def describe(error: BaseException) -> str:
    """The message of an exception, whatever its own ``__str__`` does."""
    try:
        return str(error)[:300]
    except Exception:
        return ""


if __name__ == "__main__":
    main()

"""``minillm serve`` beside a notebook: started in one cell, stopped in another, or with the kernel."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from minillm_serve.bench.server_process import ServerError, ServerProcess


class ServidorNoArranca(RuntimeError):
    """The server ended or never became healthy; says so in Spanish and quotes its log."""


class Servidor:
    """A server of its own on a free loopback port, ready when the constructor returns.

    url: base address for the OpenAI client (it ends in ``/v1``). opciones: further flags of ``minillm serve``.
    """

    def __init__(self, modelo: str, *opciones: str):
        self.registro = Path(tempfile.mkdtemp(prefix="minilab-")) / "servidor.log"
        self._proceso: ServerProcess | None = ServerProcess([modelo, *opciones], self.registro)
        try:
            self._proceso.__enter__()
        except ServerError as error:
            self._proceso = None
            raise ServidorNoArranca(f"El servidor no arrancó. Esto dijo: {error}") from error
        self.url = self._proceso.base_url
        atexit.register(self.para)

    def para(self) -> None:
        """Stop the server; calling it twice is harmless."""
        if self._proceso is None:
            return
        proceso, self._proceso = self._proceso, None
        atexit.unregister(self.para)
        proceso.__exit__(None, None, None)

    def __enter__(self) -> Servidor:
        return self

    def __exit__(self, *_: object) -> None:
        self.para()

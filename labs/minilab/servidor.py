"""``minillm serve`` beside a notebook: started in one cell, stopped in another, or with the kernel."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from minillm_serve.bench.server_process import ServerError, ServerProcess


class ServerNotStarted(RuntimeError):
    """The server ended or never became healthy; says so in Spanish and quotes its log."""


class Servidor:
    """A server of its own on a free loopback port, ready when the constructor returns.

    url: base address for the OpenAI client (it ends in ``/v1``). options: further flags of ``minillm serve``.
    """

    def __init__(self, model: str, *options: str):
        self.log = Path(tempfile.mkdtemp(prefix="minilab-")) / "servidor.log"
        self._process: ServerProcess | None = ServerProcess([model, *options], self.log)
        try:
            self._process.__enter__()
        except ServerError as error:
            self._process = None
            raise ServerNotStarted(f"El servidor no arrancó. Esto dijo: {error}") from error
        self.url = self._process.base_url
        atexit.register(self.para)

    def para(self) -> None:
        """Stop the server; calling it twice is harmless."""
        if self._process is None:
            return
        process, self._process = self._process, None
        atexit.unregister(self.para)
        process.__exit__(None, None, None)

    def __enter__(self) -> Servidor:
        return self

    def __exit__(self, *_: object) -> None:
        self.para()

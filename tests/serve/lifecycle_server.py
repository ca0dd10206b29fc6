"""The command's own server, signals and all, in a thread of the test process; its engine may be on its way."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from live_server import PATIENCE_S, LiveServer, wait_until

from minillm_serve.config import EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.serve.api import create_app
from minillm_serve.serve.http.config import http_config
from minillm_serve.serve.lifecycle.server import Server
from minillm_serve.serve.lifecycle.slot import EngineSlot
from minillm_serve.serve.main import bind
from minillm_serve.serve.settings import ServerSettings


class LifecycleServer(LiveServer):
    """Like LiveServer; ``make`` makes the engine, unless it is there from the start. ``said``: what was announced."""

    def __init__(self, config: EngineConfig, make: Callable[[], AsyncEngine] | None = None, **settings: Any):
        chosen = ServerSettings(**settings)
        self._config = config
        if make is None:
            self.engine = AsyncEngine.from_config(config)
        self.slot = EngineSlot(make) if make is not None else EngineSlot.holding(self.engine)
        self.app = create_app(self.slot, ("tiny",), chosen)
        self.lifecycle = self.app.state.lifecycle
        self._socket = bind("127.0.0.1", 0)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.said: list[str] = []
        uvicorn_config = http_config(self.app, chosen, log_level="error")
        self._server = Server(uvicorn_config, self.lifecycle, chosen, self.said.append)
        self._thread = threading.Thread(target=self._run, name="lifecycle-server", daemon=True)
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def signal(self) -> None:
        """What SIGTERM does."""
        self._server.handle_exit(signal.SIGTERM, None)

    def ready(self) -> httpx.Response:
        return httpx.get(f"{self.url}/ready", timeout=PATIENCE_S)

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def exit_code(self) -> int:
        """Waits for the end."""
        wait_until(lambda: self.ended)
        return self._server.exit_code

    def on_loop(self, read: Callable[[], Any]) -> Any:
        """What ``read`` returns on the server's event loop."""

        async def call() -> Any:
            return read()

        return asyncio.run_coroutine_threadsafe(call(), self.engine._loop).result(PATIENCE_S)


class Gated:
    """A loader that waits to be told, so that "loading" is a place, not a moment. calls: how often it was asked."""

    def __init__(self, folder: Path, error: Exception | None = None):
        self._config = EngineConfig(model=str(folder), num_kv_blocks=128, num_threads=1)
        self._error = error
        self.opened = threading.Event()
        self.calls = 0

    def __call__(self) -> AsyncEngine:
        self.calls += 1
        assert self.opened.wait(PATIENCE_S), "nobody opened the gate"
        if self._error is not None:
            raise self._error
        return AsyncEngine.from_config(self._config)

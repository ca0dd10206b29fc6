"""A real uvicorn with the real engine on an ephemeral port, in a thread of the test process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from minillm_serve.config import EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.engine.core import StepStats
from minillm_serve.serve.api import create_app
from minillm_serve.serve.http.config import http_config
from minillm_serve.serve.main import bind
from minillm_serve.serve.settings import ServerSettings

PATIENCE_S = 30.0


class LiveServer:
    """Context manager. ``url`` has no path; ``get``/``post`` are plain HTTP without any client library's manners."""

    def __init__(self, config: EngineConfig, names: tuple[str, ...] = ("tiny", "tiny-alias"), **settings: Any):
        self.engine = AsyncEngine.from_config(config)
        given = ServerSettings(**settings)
        self.app = create_app(self.engine, names, given)
        self._socket = bind("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(http_config(self.app, given, log_level="error"))
        self._thread = threading.Thread(target=self._run, name="live-server", daemon=True)
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> LiveServer:
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started, "the server thread ended at start"
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not end"

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options) if body is not None else self.http.post(path, **options)

    def complete(self, **fields: Any) -> dict[str, Any]:
        """A plain greedy completion that must succeed."""
        body = {"model": "tiny", "prompt": "Once upon", "max_tokens": 4, "temperature": 0} | fields
        response = self.post("/v1/completions", body)
        assert response.status_code == 200, response.text
        return response.json()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples; ``name`` without prefix, with its suffix (``_total``, ``_count``)."""
        return metric_in(self.http.get("/metrics").text, name, **labels)

    def idle(self) -> bool:
        """Nothing runs, nothing waits or is being prepared, every KV block is free."""
        queue = self.app.state.limits.queue
        if self.engine._streams or queue.sequences or queue.preparing:
            return False
        page = self.http.get("/metrics").text
        return not any(
            metric_in(page, name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        )


class Brake:
    """Inside the block the engine takes only the steps it is allowed, so that "midway" is a place, not a moment.

    The outputs of a step that waits for permission are not delivered yet.
    """

    def __init__(self, server: LiveServer, steps: int):
        self._engine = server.engine
        self._permits = threading.Semaphore(steps)
        self._allowed, self._finished = steps, 0  # steps
        self._released = threading.Event()
        self._on_step = server.engine.on_step

    def allow(self, steps: int) -> None:
        self._allowed += steps
        self._permits.release(steps)

    def wait_until_held(self) -> None:
        """Until every allowed step is taken and the one after it waits: from here on commands stay unread."""
        wait_until(lambda: self._finished == self._allowed + 1)

    def allow_when_told(self, things: int, steps: int) -> None:
        """Allow ``steps`` once the engine's requests and its unread commands (an abort is one) are at least so many."""
        engine = self._engine
        wait_until(lambda: len(engine.core._active) + engine._commands.qsize() >= things)
        self.allow(steps)

    def __enter__(self) -> Brake:
        self._engine.on_step = self._wait
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._engine.on_step = self._on_step

    def _wait(self, step: StepStats) -> None:
        self._on_step(step)
        self._finished += 1
        while not self._released.is_set() and not self._permits.acquire(timeout=0.01):
            pass


def metric_in(page: str, name: str, **labels: str) -> float:
    samples = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"minillm:{name}" and labels.items() <= sample.labels.items()
    ]
    assert samples, f"no metric {name} {labels}"
    return sum(samples)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Poll ``condition``; only a broken program runs into the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited state never came"
        time.sleep(0.01)

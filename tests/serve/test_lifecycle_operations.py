"""What experiments need, and only a server that was told so has: the prefix cache emptied between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle_server import LifecycleServer
from live_server import PATIENCE_S, LiveServer

from minillm_serve.config import EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine, EngineDeadError

PROMPT = [70 + number % 100 for number in range(80)]


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)


@pytest.fixture(scope="module")
def dev(config: EngineConfig) -> Iterator[LifecycleServer]:
    with LifecycleServer(config, dev=True) as made:
        yield made


def cached_tokens(server: LiveServer) -> float:
    """Of the prompt, found in the cache."""
    before = server.metric("prefix_cache_hits_total")
    server.complete(prompt=PROMPT)
    return server.metric("prefix_cache_hits_total") - before


def test_a_reset_forgets_every_prefix(dev: LifecycleServer):
    assert cached_tokens(dev) == 0
    assert cached_tokens(dev) == 64
    answer = dev.post("/reset_prefix_cache")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert cached_tokens(dev) == 0
    assert cached_tokens(dev) == 64


def test_without_dev_there_is_no_such_path(server: LiveServer):
    assert server.post("/reset_prefix_cache").status_code == 404
    assert "/reset_prefix_cache" not in server.http.get("/openapi.json").json()["paths"]


def test_what_an_operation_raises_reaches_its_caller_and_the_engine_goes_on(dev: LifecycleServer):
    engine = dev.engine
    loop = engine._loop

    def call(operation: object) -> object:
        return asyncio.run_coroutine_threadsafe(engine.call(operation), loop).result(PATIENCE_S)

    with pytest.raises(ZeroDivisionError):
        call(lambda core: 1 / 0)
    assert call(lambda core: core is engine.core) is True
    assert dev.complete()["usage"]["completion_tokens"] == 4


def test_an_operation_on_a_stopped_engine_fails_at_once(config: EngineConfig):
    async def run() -> None:
        engine = AsyncEngine.from_config(config)
        with pytest.raises(EngineDeadError):
            await engine.call(lambda core: None)
        await engine.start()
        waiting = asyncio.ensure_future(engine.call(lambda core: None))
        await asyncio.sleep(0)  # it has queued its operation
        engine.close()
        with pytest.raises(EngineDeadError):
            await waiting
        await engine.stop()

    asyncio.run(run())


def test_lifecycle_answers_tell_a_proxy_and_a_supervisor_apart(server: LiveServer):
    health, ready = server.http.get("/health"), server.http.get("/ready")
    assert (health.status_code, health.content) == (200, b"")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})

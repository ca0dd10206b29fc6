"""One live server for most tests of this area, and the official client pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from live_server import LiveServer, wait_until

from minillm_serve.config import EngineConfig


@pytest.fixture(scope="session")
def live(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=64, num_threads=1)
    with LiveServer(config, max_body_bytes=200_000) as server:
        yield server


@pytest.fixture
def server(live: LiveServer) -> Iterator[LiveServer]:
    """The shared server; whatever a test did to it, it must answer afterwards and hold nothing back."""
    yield live
    assert live.complete()["usage"]["completion_tokens"] == 4
    wait_until(live.idle)


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-needed", max_retries=0, timeout=60) as made:
        yield made

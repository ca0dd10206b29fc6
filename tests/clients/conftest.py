"""Real client libraries against one live server: what each of them does with our answers is its own affair."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "serve"))

from live_server import LiveServer, wait_until

from minillm_serve.compare.environments import how_to_install, installed_version, python_of
from minillm_serve.config import EngineConfig


@pytest.fixture(scope="session")
def live(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=64, num_threads=1)
    with LiveServer(config, enable_prompt_tokens_details=True) as server:
        yield server


@pytest.fixture
def server(live: LiveServer) -> Iterator[LiveServer]:
    """The shared server; whatever a client did to it, it must answer afterwards and hold nothing back."""
    yield live
    assert live.complete()["usage"]["completion_tokens"] == 4
    wait_until(live.idle)


@pytest.fixture(scope="session")
def run_client() -> Callable[..., Any]:
    """Runs a script of this folder with an environment's interpreter; what it prints is its answer, in JSON."""

    def run(environment: str, script: str, *arguments: str) -> Any:
        if installed_version(environment) is None:
            pytest.skip(f"not installed; install it with: {how_to_install(environment)}")
        command = [str(python_of(environment)), str(Path(__file__).parent / script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run

"""A server whose model is still on its way answers, says so, and gives up clearly when it does not come."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from lifecycle_server import Gated, LifecycleServer
from live_server import wait_until

from minillm_serve.config import ConfigError, EngineConfig

BODY = {"model": "tiny", "prompt": "Hello", "max_tokens": 3, "temperature": 0}


def loading_server(load: Gated, mode: str, **settings: object) -> LifecycleServer:
    return LifecycleServer(EngineConfig(model="unused"), load, load=mode, **settings)


def refused_with_retry(response: httpx.Response) -> bool:
    error = response.json()["error"]
    return response.status_code == error["code"] == 503 and int(response.headers["retry-after"]) > 0


def test_in_the_background_the_port_answers_before_the_model_is_there(tiny_model_dir: Path):
    gate = Gated(tiny_model_dir)
    with loading_server(gate, "background") as server:
        assert server.http.get("/health").status_code == 200
        assert (server.ready().status_code, server.ready().json()["status"]) == (503, "loading")
        for path in ("/version", "/load", "/openapi.json"):
            assert server.http.get(path).status_code == 200
        assert "num_requests_running" in server.http.get("/metrics").text
        assert refused_with_retry(server.post("/v1/completions", BODY))
        assert refused_with_retry(server.http.get("/v1/models"))
        gate.opened.set()
        wait_until(lambda: server.ready().status_code == 200)
        assert server.ready().json() == {"status": "ready"}
        assert server.post("/v1/completions", BODY).json()["usage"]["completion_tokens"] == 3
        wait_until(lambda: server.said == ["loading", "ready"])
    assert gate.calls == 1 and server.exit_code() == 0


def test_lazily_the_first_requests_start_one_loading_and_wait_for_it(tiny_model_dir: Path):
    gate = Gated(tiny_model_dir)
    with loading_server(gate, "lazy") as server, ThreadPoolExecutor(3) as clients:
        assert server.ready().json()["status"] == "not loaded" and gate.calls == 0
        answers = [clients.submit(server.post, "/v1/completions", BODY) for _ in range(3)]
        wait_until(lambda: server.lifecycle.under_way == 3)
        assert server.ready().json()["status"] == "loading"
        gate.opened.set()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
        assert server.ready().status_code == 200 and gate.calls == 1


@pytest.mark.parametrize("error", [ConfigError("no weights in /secret/folder"), RuntimeError("/secret/folder")])
@pytest.mark.parametrize("mode", ["background", "lazy"])
def test_a_model_that_cannot_be_loaded_ends_the_server(tiny_model_dir: Path, mode: str, error: Exception, caplog):
    gate = Gated(tiny_model_dir, error)
    with loading_server(gate, mode) as server, ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(server.post, "/v1/completions", BODY) if mode == "lazy" else None
        wait_until(lambda: gate.calls == 1)
        gate.opened.set()
        if waiting is not None:
            assert waiting.result().status_code == 503 and "secret" not in waiting.result().text
        assert server.exit_code() == 1
    assert "secret" in caplog.text, "the log says why"


def test_it_can_stay_to_say_that_the_model_did_not_come(tiny_model_dir: Path):
    gate = Gated(tiny_model_dir, ConfigError("no weights in /secret/folder"))
    gate.opened.set()
    with loading_server(gate, "background", keep_alive_on_engine_death=True) as server:
        wait_until(lambda: server.ready().json()["status"] == "failed")
        for answer in (server.ready(), server.http.get("/health"), server.post("/v1/completions", BODY)):
            assert answer.status_code == 503 and "secret" not in answer.text
        assert server.http.get("/metrics").status_code == 200


def test_ending_while_loading_does_not_wait_for_the_model(tiny_model_dir: Path):
    gate = Gated(tiny_model_dir)
    with loading_server(gate, "background", shutdown_timeout=3600) as server:
        wait_until(lambda: gate.calls == 1)
        server.signal()
        assert server.exit_code() == 0
    gate.opened.set()


def test_the_command_ends_with_1_and_one_line_that_says_why(tmp_path: Path):
    command = [sys.executable, "-m", "minillm_serve.cli", "serve", str(tmp_path), "--port", "0", "--load", "background"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "listening at" in ended.stdout
    assert "could not be loaded" in ended.stderr and "Traceback" not in ended.stderr

"""Told to end, a server answers what it had accepted, sends later requests away, and is gone in time."""

from __future__ import annotations

import json
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from lifecycle_server import LifecycleServer
from live_server import PATIENCE_S, Brake, wait_until
from serve_process import posix, serving

from minillm_serve.config import EngineConfig

BODY = {"prompt": "Hello", "max_tokens": 20, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def config(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, max_num_seqs=1, num_threads=1)


class Clients:
    """One that reads a stream, one whose request waits behind it for a whole answer."""

    def __init__(self, server: LifecycleServer, threads: ThreadPoolExecutor):
        self.stream = threads.submit(server.post, "/v1/completions", BODY | {"stream": True})
        wait_until(lambda: server.lifecycle.under_way == 1 and server.metric("num_requests_running") == 1)
        self.waiting = threads.submit(server.post, "/v1/completions", BODY)
        wait_until(lambda: server.lifecycle.under_way == 2)

    def stream_events(self) -> list[str]:
        return [event.removeprefix("data: ") for event in self.stream.result().text.strip().split("\n\n")]


def test_what_was_accepted_is_finished_and_what_comes_later_is_sent_away(config: EngineConfig):
    others = set(threading.enumerate())
    with LifecycleServer(config, shutdown_timeout=3600) as server, ThreadPoolExecutor(2) as threads:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as idle, Brake(server, steps=3):
            assert idle.get("/v1/models").status_code == 200  # its connection stays open
            clients = Clients(server, threads)
            server.signal()
            assert (server.ready().status_code, server.ready().json()["status"]) == (503, "draining")
            assert idle.get("/health").status_code == 200
            late = idle.post("/v1/completions", json=BODY)
            assert late.status_code == 503 and late.json()["error"]["code"] == 503
            assert int(late.headers["retry-after"]) > 0 and late.headers["connection"] == "close"
            later = httpx.post(f"{server.url}/v1/chat/completions", json={}, timeout=PATIENCE_S)
            assert later.status_code == 503, "a new connection hears the same"
            assert not server.ended
        events = clients.stream_events()
        assert events[-1] == "[DONE]" and len(events) == BODY["max_tokens"] + 1
        answer = clients.waiting.result()
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == BODY["max_tokens"]
        assert answer.headers["connection"] == "close"
        assert server.exit_code() == 0
    left = set(threading.enumerate()) - others
    assert not [thread.name for thread in left if not thread.name.startswith("ThreadPoolExecutor")]


@pytest.mark.parametrize("signals", [1, 2], ids=["no patience", "a second signal"])
def test_what_cannot_be_finished_ends_with_an_error_even_if_a_step_does_not(config: EngineConfig, signals: int):
    patience = 0 if signals == 1 else 3600
    server = LifecycleServer(config, shutdown_timeout=patience)
    with server, ThreadPoolExecutor(2) as threads, Brake(server, steps=3):  # the fourth outlasts the server
        clients = Clients(server, threads)
        server.signal()
        if signals == 2:
            assert server.ready().json()["status"] == "draining" and not server.ended
            server.signal()
        *_, error, done = clients.stream_events()
        assert json.loads(error)["error"]["code"] == 503 and done == "[DONE]"
        assert clients.waiting.result().status_code == 503
        assert server.exit_code() == 0


def test_a_slow_sender_does_not_hold_up_the_end(config: EngineConfig):
    """Its body never comes: it was let in, and is cut off when the patience is over."""
    with LifecycleServer(config, shutdown_timeout=0) as server, ThreadPoolExecutor(1) as threads:

        def endless() -> object:
            yield b'{"prompt": "'
            wait_until(lambda: server.ended)
            yield b'"}'

        headers = {"Content-Type": "application/json"}
        sending = threads.submit(httpx.post, f"{server.url}/v1/completions", content=endless(), headers=headers)
        wait_until(lambda: server.lifecycle.under_way == 1)
        server.signal()
        assert server.exit_code() == 0
        with suppress(httpx.HTTPError):  # it was still sending when the connection went
            assert sending.result().status_code == 503


@posix
def test_the_process_loses_no_accepted_request_and_writes_its_trace(tiny_model_dir: Path, tmp_path: Path):
    trace, total = tmp_path / "trace.json", 40
    flags = ["--shutdown-timeout", "60", "--max-num-seqs", "4", "--trace-file", str(trace)]
    with serving(str(tiny_model_dir), *flags) as (process, url), ThreadPoolExecutor(total) as threads:
        body = BODY | {"max_tokens": 40}
        with httpx.Client(base_url=url, timeout=60) as client:
            answers = [threads.submit(client.post, "/v1/completions", json=body) for _ in range(total)]

            def queued() -> int:
                page = client.get("/metrics").text
                return sum(map(float, re.findall(r"^minillm:num_requests_\w+ing\{.*\} (\S+)$", page, re.M)))

            wait_until(lambda: queued() + sum(answer.done() for answer in answers) >= total)
            process.send_signal(signal.SIGTERM)
            results = [answer.result() for answer in answers]
        assert process.wait(30) == 0
    assert [result.status_code for result in results] == [200] * total
    assert len(json.loads(trace.read_text())["requests"]) == total

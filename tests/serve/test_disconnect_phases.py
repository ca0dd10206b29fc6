"""A client may leave at any moment, also behind nginx: nothing of its request stays, and the next one is answered."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lifecycle_server import LifecycleServer
from live_server import PATIENCE_S, Brake, wait_until
from nginx_proxy import nginx

from minillm_serve.config import EngineConfig

STREAM = {"model": "tiny", "prompt": "Hello", "max_tokens": 1000, "temperature": 0, "ignore_eos": True, "stream": True}
WHOLE = STREAM | {"stream": False}
CHUNK = 32  # tokens of a prompt that one step reads


@pytest.fixture(scope="module")
def server(tiny_model_dir: Path) -> Iterator[LifecycleServer]:
    config = EngineConfig(
        model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=4, max_num_batched_tokens=CHUNK, num_threads=1
    )
    with LifecycleServer(config) as made:
        yield made


@pytest.fixture(scope="module", params=["directly", "through nginx"])
def door(request: pytest.FixtureRequest, server: LifecycleServer, tmp_path_factory: pytest.TempPathFactory):
    """The port that clients know."""
    if request.param == "directly":
        yield server.port
        return
    changes = {"rate=10r/s": "rate=10000r/s", "keepalive_timeout 60s": "keepalive_timeout 1s"}  # or files stay open
    with nginx(tmp_path_factory.mktemp("nginx"), [server.port], changes) as port:
        yield port


def connect(port: int, body: dict[str, Any]) -> socket.socket:
    content = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def read_until(connection: socket.socket, text: bytes, times: int = 1) -> None:
    received = b""
    while received.count(text) < times:
        data = connection.recv(4096)
        assert data, f"the connection was closed after {received[-300:]!r}"
        received += data


@dataclass
class Held:
    """What a request may hold on the server; ``start``: before it came."""

    server: LifecycleServer
    start: dict[str, int] = field(default_factory=dict)

    def now(self) -> dict[str, int]:
        server, engine = self.server, self.server.engine
        return {
            "requests": server.lifecycle.under_way,
            "streams": len(engine._streams),
            "sequences": len(engine.core._active),
            "blocks": engine.stats().kv_blocks_used,
            "compiling": engine._compiling,
            "tasks": server.on_loop(lambda: len(asyncio.all_tasks())),
            "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        }

    def __enter__(self) -> Held:
        assert self.server.post("/v1/completions", WHOLE | {"max_tokens": 1}).status_code == 200
        wait_until(lambda: self.server.lifecycle.under_way == 0 and self.server.idle())
        self.start = self.now()
        return self

    def __exit__(self, failed: type | None, *_: object) -> None:
        if failed is None:
            wait_until(lambda: all(value <= self.start[name] for name, value in self.now().items()))
            assert self.server.idle()
            answer = self.server.post("/v1/completions", WHOLE | {"max_tokens": 4})
            assert answer.json()["usage"]["completion_tokens"] == 4


@dataclass(frozen=True)
class Phase:
    """``steps``: that the engine may take. ``reached``: the client leaves as soon as this is so."""

    name: str
    body: dict[str, Any]
    steps: int
    reached: Callable[[LifecycleServer, socket.socket], object]


def unfinished(server: LifecycleServer, number: int) -> Callable[[], bool]:
    """So many sequences are with the engine."""
    return lambda: server.metric("num_requests_running") + server.metric("num_requests_waiting") == number


def tokens(server: LifecycleServer) -> float:
    return server.metric("generation_tokens_total")


PHASES = [
    Phase("before the first step", STREAM, 0, lambda server, _: wait_until(unfinished(server, 1))),
    Phase("in its prompt", STREAM | {"prompt": [70] * 200}, 3, lambda server, _: wait_until(unfinished(server, 1))),
    Phase("after the first token", STREAM, 1, lambda _, client: read_until(client, b"data: ")),
    Phase("midway", STREAM, 6, lambda _, client: read_until(client, b"data: ", times=3)),
    Phase("before the last token", STREAM | {"max_tokens": 5}, 4, lambda _, client: read_until(client, b"data: ")),
    Phase("between the last token and the end", STREAM | {"max_tokens": 2}, 99,
          lambda _, client: read_until(client, b'"finish_reason":"length"')),
    Phase("waiting for a whole answer", WHOLE, 5, lambda server, _: wait_until(unfinished(server, 1))),
    Phase("several samples", STREAM | {"n": 3, "temperature": 1}, 4,
          lambda server, client: (wait_until(unfinished(server, 3)), read_until(client, b"data: "))),
    Phase("several prompts", STREAM | {"prompt": ["a", "b", "c"]}, 6,
          lambda server, client: (wait_until(unfinished(server, 3)), read_until(client, b"data: "))),
    Phase("several whole prompts", WHOLE | {"prompt": ["a", "b", "c"]}, 6,
          lambda server, _: wait_until(unfinished(server, 3))),
]  # fmt: skip


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_leaving(server: LifecycleServer, door: int, phase: Phase):
    with Held(server):
        before = tokens(server)
        with Brake(server, phase.steps) as brake:
            with connect(door, phase.body) as client:
                phase.reached(server, client)
            # The engine may go on, a step at a time, until it has heard of it: far from the end of the request.
            for _ in range(200):
                if server.lifecycle.under_way == 0 and not server.engine.core._active:
                    break
                brake.allow(1)
                wait_until(lambda: brake._permits._value == 0 or not server.engine.core._active)
        assert tokens(server) - before < 900


def test_leaving_the_queue(server: LifecycleServer, door: int):
    """Four requests run, the fifth waits, and is gone before any of them ends."""
    with Held(server), Brake(server, 0) as brake, ExitStack() as connections:
        running = [connections.enter_context(connect(door, STREAM)) for _ in range(4)]
        brake.allow_when_told(things=4, steps=8)
        wait_until(lambda: server.metric("num_requests_running") == 4)
        with connect(door, STREAM):
            brake.allow_when_told(things=5, steps=4)
            wait_until(lambda: server.metric("num_requests_waiting") == 1)
        wait_until(lambda: brake.allow(1) or server.metric("num_requests_waiting") == 0)
        assert server.metric("num_requests_running") == len(running)


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
@pytest.mark.parametrize("work", ["tokenising", "compiling"])
def test_leaving_during_the_work_before_the_queue(
    server: LifecycleServer, door: int, work: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    entered, released = threading.Event(), threading.Event()

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*args: Any, **options: Any) -> Any:
            entered.set()
            assert released.wait(PATIENCE_S)
            return function(*args, **options)

        return wait

    with Held(server):
        owner, name = server.engine.tokenizer, "encode_prompt"
        if work == "compiling":
            owner, name = server.engine.core.admission.grammars, "get"
            body = body | {"structured_outputs": {"regex": f"[ab]{{{1000 + door % 1000 + body['stream']}}}"}}
        before = tokens(server)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, held(getattr(owner, name)))
            with connect(door, body):
                wait_until(entered.is_set)
            released.set()
            wait_until(lambda: server.lifecycle.under_way == 0)
        assert tokens(server) - before < 900


@pytest.mark.parametrize("part", ["nothing", "head", "body"])
def test_leaving_while_sending(server: LifecycleServer, door: int, part: str):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sent = {"nothing": b"", "head": head, "body": head + b'Content-Length: 5000\r\n\r\n{"prompt": "'}[part]
    with Held(server), socket.create_connection(("127.0.0.1", door), timeout=PATIENCE_S) as client:
        client.sendall(sent)


def test_a_client_that_closes_its_sending_side_has_left(server: LifecycleServer):
    """HTTP/1.1 lets a client do so and still wait for its answer (RFC 9112, 9.6); like uvicorn and most servers this
    one takes it for leaving, because a client that has gone looks just the same."""
    with Held(server), Brake(server, 3), connect(server.port, WHOLE) as client:
        wait_until(unfinished(server, 1))
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: server.lifecycle.under_way == 0)


def test_requests_sent_without_waiting_are_answered_in_their_order(server: LifecycleServer):
    with Held(server), Brake(server, 0) as brake, connect(server.port, STREAM | {"max_tokens": 2}) as client:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(unfinished(server, 1))
        brake.allow(99)
        received = b"".join(iter(lambda: client.recv(4096), b""))
        stream, version = received.split(b"data: [DONE]")
        assert stream.count(b"data: {") == 2 and b'{"version":' in version


def test_many_leave_at_once(server: LifecycleServer, door: int):
    with Held(server):
        with Brake(server, 10), ExitStack() as connections:
            clients = [connections.enter_context(connect(door, STREAM)) for _ in range(60)]
            wait_until(lambda: server.lifecycle.under_way == len(clients))
        assert server.post("/v1/completions", WHOLE | {"max_tokens": 4}).status_code == 200

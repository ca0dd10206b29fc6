"""The queue is bounded, says so at once, and every place in it is given back however its request ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_server import Brake, LiveServer, wait_until
from test_disconnect import send

from minillm_serve.config import EngineConfig
from minillm_serve.engine.async_engine import AsyncEngine
from minillm_serve.params import SamplingParams
from minillm_serve.serve.api import create_app
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.limits.keys import ApiKey
from minillm_serve.serve.settings import ServerSettings

BODY = {"model": "tiny", "prompt": "Hello", "max_tokens": 300, "temperature": 0, "ignore_eos": True, "stream": True}
SHORT = BODY | {"max_tokens": 4, "stream": False}


def config_of(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=8, num_threads=1)


@pytest.fixture(scope="module")
def small(tiny_model_dir: Path) -> Iterator[LiveServer]:
    """A queue for four."""
    with LiveServer(config_of(tiny_model_dir), max_num_queued_reqs=4) as server:
        yield server


def check_busy(response: Any) -> None:
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["type"] == "ServiceUnavailableError"


def empty(server: LiveServer) -> bool:
    queue = server.app.state.limits.queue
    return (queue.sequences, queue.queued_tokens, queue.preparing) == (0, 0, 0)


def test_one_too_many_is_turned_away_before_it_is_looked_at(small: LiveServer):
    refused = small.metric("admission_rejections_total", reason="max_num_queued_reqs")
    with Brake(small, steps=0) as brake:
        connections = [send(small, BODY) for _ in range(4)]
        brake.allow_when_told(things=4, steps=2)
        check_busy(small.post("/v1/completions", BODY))
        check_busy(small.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}))
        for bad in (b"no json", b"{}", b'{"prompt": 5}'):
            check_busy(small.http.post("/v1/completions", content=bad, headers={"Content-Type": "application/json"}))
        assert small.http.get("/v1/models").status_code == 200
        assert small.post("/tokenize", {"prompt": "hi"}).status_code == 200, "it waits for no step"
        brake.wait_until_held()
        connections.pop().close()
        wait_until(lambda: small.app.state.limits.queue.sequences == 3)
        connections.append(send(small, BODY))
        brake.allow_when_told(things=6, steps=5)  # the four, the abort of the one that left, and the new one
        assert connections[-1].recv(20).startswith(b"HTTP/1.1 200"), "a place that was left is free"
        for connection in connections:
            connection.close()
    wait_until(lambda: empty(small) and small.idle())
    assert small.metric("admission_rejections_total", reason="max_num_queued_reqs") == refused + 5


def test_samples_count_each_and_what_never_fits_is_the_clients_error(small: LiveServer):
    sampled = SHORT | {"temperature": 1}
    assert small.post("/v1/completions", sampled | {"n": 4}).status_code == 200
    for body in (sampled | {"n": 5}, sampled | {"prompt": ["a"] * 5}):
        response = small.post("/v1/completions", body)
        assert response.status_code == 400 and "at most 4" in response.json()["error"]["message"]
    wait_until(lambda: empty(small))


def test_a_body_that_never_ends_holds_no_place(small: LiveServer):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    connections = [socket.create_connection(("127.0.0.1", small.port), timeout=30) for _ in range(8)]
    for connection in connections:
        connection.sendall(head)
    assert small.complete()["usage"]["completion_tokens"] == 4
    for connection in connections:
        connection.close()
    wait_until(lambda: empty(small))


def test_a_burst_gets_answers_or_is_turned_away_and_all_is_counted(small: LiveServer):
    """Two hundred at once for four places: each 200 is complete, each 503 says when to come again."""
    done = small.metric("request_success_total", finished_reason="length")
    refused = small.metric("admission_rejections_total", reason="max_num_queued_reqs")
    tokens = small.metric("generation_tokens_total")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: small.post("/v1/completions", SHORT), range(200)))
    good = [answer for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer.status_code != 200:
            check_busy(answer)
    assert good and all(answer.json()["usage"]["completion_tokens"] == 4 for answer in good)
    wait_until(lambda: empty(small) and small.idle())
    assert small.metric("request_success_total", finished_reason="length") == done + len(good)
    assert small.metric("generation_tokens_total") == tokens + 4 * len(good)
    assert small.metric("admission_rejections_total", reason="max_num_queued_reqs") == refused + 200 - len(good)


def test_prompt_tokens_that_wait_are_bounded(tiny_model_dir: Path):
    """As in vLLM: once so many wait to be read, nobody else comes in until they are."""
    with LiveServer(config_of(tiny_model_dir), max_num_queued_tokens=100) as server:
        queue = server.app.state.limits.queue
        with Brake(server, steps=0) as brake:
            connections = [send(server, BODY)]
            brake.allow_when_told(things=1, steps=1)
            assert connections[0].recv(20).startswith(b"HTTP/1.1 200")  # from now on no step is taken
            for number in (1, 2):
                connections.append(send(server, BODY | {"prompt": [70 + number] * 60}))
                wait_until(lambda waiting=60 * number: queue.queued_tokens == waiting)
            check_busy(server.post("/v1/completions", SHORT))
            assert server.metric("admission_rejections_total", reason="max_num_queued_tokens") == 1
        wait_until(lambda: queue.queued_tokens == 0)
        assert server.complete()["usage"]["completion_tokens"] == 4
        for connection in connections:
            connection.close()
        wait_until(lambda: empty(server))


@pytest.mark.parametrize("stream", [True, False])
def test_whoever_waits_too_long_for_a_first_step_is_sent_away(tiny_model_dir: Path, stream: bool):
    """The first request's step does not end, so the second is never taken up; the first goes on afterwards."""
    with LiveServer(config_of(tiny_model_dir), queue_timeout=0.2) as server:
        with Brake(server, steps=0) as brake:
            first = send(server, BODY)
            brake.allow_when_told(things=1, steps=1)
            assert first.recv(20).startswith(b"HTTP/1.1 200")
            check_busy(server.post("/v1/completions", SHORT | {"stream": stream}))
            assert server.metric("admission_rejections_total", reason="queue_timeout") == 1
        first.close()
        wait_until(lambda: empty(server) and server.idle())
        assert server.metric("request_success_total", finished_reason="error") == 1


class Client:
    """An HTTP client without a network, which can leave at any moment."""

    def __init__(self, app: Any, body: dict[str, Any]):
        self._app = app
        self._body = json.dumps(body).encode()
        self._gone = asyncio.Event()
        self._asked = False
        self.status: int | None = None

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.status = message.get("status", self.status)

    def leave(self) -> None:
        self._gone.set()

    async def ask(self) -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/completions", "raw_path": b"/v1/completions", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"x"), (b"content-type", b"application/json")], "client": ("x", 1),
            "server": ("x", 2), "state": {},
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("how", ["disconnected", "cancelled"])
def test_a_client_that_leaves_after_any_number_of_turns_leaves_nothing(tiny_model_dir: Path, stream: bool, how: str):
    """The request is ended after 0, 1, 2 ... turns of the event loop, so at every await that it has."""
    engine = AsyncEngine.from_config(config_of(tiny_model_dir))
    settings = ServerSettings(tokens_per_minute=100_000, max_num_queued_tokens=10_000)
    app = create_app(engine, "tiny", settings)
    limits = app.state.limits
    body = BODY | {"stream": stream, "prompt": ["a", "b"], "max_tokens": 200}

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.001)

    async def scenario() -> None:
        async with app.router.lifespan_context(app):
            statuses = set()
            for turns in [*range(40), 60, 100, 200, 400, 401]:
                client = Client(app, body)
                asking = asyncio.ensure_future(client.ask())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if stream and turns == 401:  # however slow the machine is, one leaves in the middle of its answer
                    await until(lambda client=client: client.status is not None)
                if how == "disconnected":
                    client.leave()
                else:
                    asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                statuses.add(client.status)
                assert (limits.queue.sequences, limits.queue.queued_tokens, limits.queue.preparing) == (0, 0, 0), turns
                assert not engine._streams, turns
                await until(lambda: not engine.core._active)
            assert {None, 200} <= statuses or not stream, "some left before the first token, some after it"
            used = settings.tokens_per_minute - limits.quotas._tokens["anonymous"].level
            assert used < 44 * 2 * 201 / 2, "what was not generated flowed back"

    asyncio.run(scenario())


def test_a_request_that_nobody_ever_reads_ends_with_its_http_request(tiny_model_dir: Path):
    """Between admission and the first read: no generator has begun, so none can clean up."""
    engine = AsyncEngine.from_config(config_of(tiny_model_dir))
    app = create_app(engine, "tiny", ServerSettings(api_keys=(ApiKey.from_text("k"),)))
    service = next(
        cell.cell_contents
        for route in app.routes if getattr(route, "path", "") == "/v1/completions"
        for cell in route.endpoint.__closure__ if hasattr(cell.cell_contents, "admit")
    )  # fmt: skip
    queue = app.state.limits.queue

    async def scenario() -> None:
        async with app.router.lifespan_context(app):
            caller = Caller("never-read")
            groups = await service.admit([[70, 71]], SamplingParams(max_tokens=5), caller)
            assert queue.sequences == 0, "asking takes nothing"
            streams = service.follow(groups, "label", caller)
            assert queue.sequences == 1
            caller.end()
            assert queue.sequences == 0
            await streams[0].aclose()
            assert queue.sequences == 0 and not engine._streams

    asyncio.run(scenario())

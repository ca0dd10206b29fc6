"""When a client goes away its request ends at once, its blocks are free and others do not notice."""

from __future__ import annotations

import json
import socket

import openai
import pytest
from live_server import Brake, LiveServer, wait_until

BODY = {"model": "tiny", "prompt": "Hello", "max_tokens": 1000, "temperature": 0, "ignore_eos": True}


def send(server: LiveServer, body: dict, headers: dict[str, str] | None = None) -> socket.socket:
    """A completion request on a connection of its own; the caller closes it."""
    content = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head += f"Content-Length: {len(content)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(head.encode() + content)
    return connection


def counts(server: LiveServer) -> tuple[float, float]:
    """Aborted requests and generated tokens so far."""
    return server.metric("request_success_total", finished_reason="abort"), server.metric("generation_tokens_total")


def check_aborted(server: LiveServer, before: tuple[float, float], requests: int = 1) -> None:
    wait_until(server.idle)
    wait_until(lambda: counts(server)[0] == before[0] + requests)
    assert counts(server)[1] < before[1] + requests * 900, "the engine went on to the end"


def test_closing_a_stream_midway_frees_its_blocks(server: LiveServer, client: openai.OpenAI):
    before = counts(server)
    fields = {"model": "tiny", "prompt": "Hello", "max_tokens": 1000, "extra_body": {"ignore_eos": True}}
    with Brake(server, steps=6), client.completions.create(stream=True, **fields) as stream:
        for _ in range(5):
            next(stream)
        assert server.metric("num_requests_running") == 1 and server.metric("kv_cache_usage_perc") > 0
    check_aborted(server, before)


def test_leaving_before_a_whole_answer_frees_its_blocks(server: LiveServer):
    before = counts(server)
    with Brake(server, steps=6), send(server, BODY):
        wait_until(lambda: server.metric("num_requests_running") == 1)
    check_aborted(server, before)


def test_leaving_with_several_prompts_ends_them_all(server: LiveServer):
    before = counts(server)
    body = BODY | {"prompt": ["a", "b", "c"], "stream": True}
    with Brake(server, steps=0) as brake, send(server, body) as connection:
        brake.allow_when_told(things=3, steps=3)
        wait_until(lambda: server.metric("num_requests_running") == 3)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    check_aborted(server, before, requests=3)


def test_leaving_a_waiting_request_takes_it_out_of_the_queue(server: LiveServer):
    """Four requests of 1024 tokens fill the 256 blocks: the fifth has to wait, until its client gives up."""
    before = counts(server)
    bodies = [BODY | {"prompt": [70 + number] * 990, "max_tokens": 34, "stream": True} for number in range(5)]

    def unfinished() -> tuple[float, float]:
        return server.metric("num_requests_running"), server.metric("num_requests_waiting")

    with Brake(server, steps=0) as brake:
        connections = [send(server, body) for body in bodies]
        brake.allow_when_told(things=5, steps=6)
        brake.wait_until_held()
        wait_until(lambda: unfinished() == (4, 1))
        connections.pop().close()
        brake.allow_when_told(things=6, steps=1)
        wait_until(lambda: sum(unfinished()) == 4)
        for connection in connections:
            connection.close()
    wait_until(server.idle)
    wait_until(lambda: counts(server)[0] == before[0] + 5)


@pytest.mark.parametrize("part", ["head", "body"])
def test_leaving_while_the_request_is_being_sent_leaves_no_trace(server: LiveServer, part: str):
    before = server.metric("prompt_tokens_total")
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    rest = b"Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n" + b'{"prompt": "'
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head if part == "head" else head + rest)
    assert server.complete(prompt=[70, 71, 72])["usage"]["prompt_tokens"] == 3
    assert server.metric("prompt_tokens_total") == before + 3


def test_sixty_cancelled_streams_leave_a_quiet_server(server: LiveServer):
    before = counts(server)
    with Brake(server, steps=0) as brake:
        connections = [send(server, BODY | {"stream": True, "max_tokens": 900}) for _ in range(60)]
        brake.allow_when_told(things=60, steps=5)
        for connection in connections:
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
        for connection in connections:
            connection.close()
    wait_until(server.idle)
    wait_until(lambda: counts(server)[0] == before[0] + 60)
    assert not server.engine._streams, "the engine still feeds somebody"

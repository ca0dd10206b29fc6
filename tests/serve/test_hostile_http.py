"""Whatever arrives on a socket, however slowly, the connection ends, the answer is small, and the server goes on.

After each test the shared server must answer a good request and hold nothing back.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import Brake, LiveServer, wait_until
from test_disconnect import send

from minillm_serve.config import EngineConfig
from minillm_serve.serve.http.config import most_connections

SOON = 0.4
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = b'{"prompt": "hi", "max_tokens": 2, "temperature": 0}'


@pytest.fixture(scope="module")
def started(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=16, num_threads=1)
    times = {f"{name}_timeout": SOON for name in ("header", "body", "write", "keep_alive")}
    with LiveServer(config, max_connections=24, max_body_bytes=1_000_000, **times) as server:
        yield server
        server.http.close()
        wait_until(lambda: not connections_of(server))


@pytest.fixture
def hasty(started: LiveServer) -> Iterator[LiveServer]:
    """A server without patience."""
    yield started
    wait_until(lambda: len(connections_of(started)) < 24)
    assert started.post("/v1/completions", json.loads(GOOD)).status_code == 200
    assert started.http.get("/health").status_code == 200
    wait_until(started.idle)


def connections_of(server: LiveServer) -> set[Any]:
    return server._server.server_state.connections


def connect(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def talk(server: LiveServer, request: bytes) -> bytes:
    """All that comes back until the server closes."""
    with connect(server) as connection:
        try:
            connection.sendall(request)
        except (ConnectionResetError, BrokenPipeError):
            return b""
        return everything(connection)


def everything(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def check_refusal(answer: bytes, *statuses: int) -> None:
    """Nothing at all, or one small answer in the one shape, after which the connection ends."""
    if not answer:
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    assert int(lines[0].split()[1]) in statuses, answer[:300]
    assert "connection: close" in lines
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] in statuses
    assert any(line.startswith("x-request-id: ") for line in lines) and len(answer) < 8000
    assert answer.count(b"HTTP/1.1 ") == 1


def drip(connection: socket.socket, data: bytes, every: float = 0.02) -> bytes:
    """Send a byte at a time until the server has had enough; what it says then."""
    for number in range(len(data)):
        if select.select([connection], [], [], every)[0]:
            break
        try:
            connection.sendall(data[number : number + 1])
        except (ConnectionResetError, BrokenPipeError):
            break
    return everything(connection)


MALFORMED = {
    "nothing like http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5 + b"\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /health\r\n\r\n",
    "strange version": b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "space in the path": b"GET /he alth HTTP/1.1\r\nHost: x\r\n\r\n",
    "nul in the path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "utf-8 in the path": "GET /ñ HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "nul in a header": b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    "no colon": b"GET /health HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "space before the colon": b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
    "header without a name": b"GET /health HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}{}{",
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "length in words": HEAD + b"Content-Length: four\r\n\r\n",
    "length with a sign": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "endless length": HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    "other encodings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked spelled wrong": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunk size in words": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfour\r\n{}{}\r\n",
    "negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-4\r\n{}{}\r\n",
    "huge chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n{}\r\n",
    "chunk longer than said": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n",
    "chunk line that never ends": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_not_http_gets_400_and_the_end(hasty: LiveServer, what: str):
    check_refusal(talk(hasty, MALFORMED[what]), 400, 408, 431, 501, 505)


OVERSIZED = {
    "one header of a megabyte": b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 2**20 + b"\r\n\r\n",
    "a thousand headers": b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n",
    "a path of 64 kB": b"GET /" + b"a" * 2**16 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a query of a megabyte": b"GET /health?" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a head of line ends": b"\r\n" * 2**19,
    "a method of a megabyte": b"A" * 2**20,
}


@pytest.mark.parametrize("what", OVERSIZED)
def test_a_head_has_a_size(hasty: LiveServer, what: str):
    check_refusal(talk(hasty, OVERSIZED[what]), 400, 408, 431)


def test_so_many_headers_and_no_more(hasty: LiveServer):
    for extra, expected in ((254, b"200"), (255, b"431")):
        headers = b"".join(b"X-%d: b\r\n" % number for number in range(extra))
        answer = talk(hasty, b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n")
        assert answer.split(b" ", 2)[1] == expected


def test_a_socket_that_says_nothing_is_closed(hasty: LiveServer):
    late = hasty.metric("admission_rejections_total", reason="header_timeout")
    with connect(hasty) as connection:
        assert everything(connection) == b""
    assert hasty.metric("admission_rejections_total", reason="header_timeout") == late + 1


def test_a_head_that_comes_a_byte_at_a_time_is_not_waited_for(hasty: LiveServer):
    """The clock runs from the first byte, and another byte does not wind it up again."""
    with connect(hasty) as connection:
        start = time.monotonic()
        check_refusal(drip(connection, b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 10_000), 408)
        assert time.monotonic() - start >= SOON / 2, "it had some time"
    with connect(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        check_refusal(drip(connection, b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 10_000), 408)


@pytest.mark.parametrize("framing", [b"Content-Length: 10000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_comes_a_byte_at_a_time_is_not_waited_for(hasty: LiveServer, framing: bytes):
    late = hasty.metric("admission_rejections_total", reason="body_timeout")
    with connect(hasty) as connection:
        connection.sendall(HEAD + framing)
        dripped = b"1\r\n{\r\n" * 5000 if b"chunked" in framing else b" " * 5000
        answer = drip(connection, dripped)
    assert answer.startswith(b"HTTP/1.1 408 ")
    check_refusal(answer, 408)
    assert hasty.metric("admission_rejections_total", reason="body_timeout") == late + 1


def test_a_body_that_the_server_lets_wait_is_not_late(hasty: LiveServer, monkeypatch: pytest.MonkeyPatch):
    """Bodies above 64 kB are not read until somebody asks for them: while the model loads that may take minutes."""
    late = hasty.metric("admission_rejections_total", reason="body_timeout")

    def slow_start(scope: Any, receive: Any, send: Any) -> Any:
        async def answer() -> None:
            await asyncio.sleep(2.5 * SOON)
            await app(scope, receive, send)

        return answer()

    app = hasty._server.config.loaded_app
    monkeypatch.setattr(hasty._server.config, "loaded_app", slow_start)
    body = json.loads(GOOD) | {"user": "x" * 900_000}
    with send(hasty, body, headers={"Connection": "close"}) as connection:
        assert everything(connection).startswith(b"HTTP/1.1 200")
    monkeypatch.undo()
    assert hasty.metric("admission_rejections_total", reason="body_timeout") == late


@pytest.mark.parametrize("path", [b"/nothing", b"/health", b"/v1/completions"])
def test_the_rest_of_a_refused_body_is_not_waited_for_either(hasty: LiveServer, path: bytes):
    """The answer (404, 405, 415) goes out at once; the connection does not live on the body's last bytes."""
    with connect(hasty) as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
        assert connection.recv(4096).split(b" ", 2)[1] in (b"404", b"405", b"415")
        drip(connection, b"a" * 5000)
    wait_until(lambda: not connections_of(hasty))


def test_an_unused_connection_is_closed(hasty: LiveServer):
    with connect(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


def test_a_smuggled_request_is_not_answered(hasty: LiveServer):
    """One body, two opinions on where it ends: the second request is a part of the first or of nothing."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    for request in (
        HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(hidden)) + hidden,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden,
        HEAD + b"Content-Length: 0, %d\r\n\r\n" % len(hidden) + hidden,
        HEAD + b"Transfer-Encoding: identity\r\n\r\n" + hidden,
        b"GET /version HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\tTransfer-Encoding: chunked\r\nX: y\nX-B: 3\r\n\r\n",
    ):
        answer = talk(hasty, request)
        assert answer.count(b"HTTP/1.1 ") <= 1 and b"num_requests_running" not in answer


def test_many_requests_in_one_write_are_answered_in_order(hasty: LiveServer):
    one = HEAD + b"X-Request-Id: id-%d\r\nContent-Length: " + str(len(GOOD)).encode() + b"\r\n\r\n" + GOOD
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = talk(hasty, b"".join(one % number for number in range(20)) + last)
    assert answer.count(b"HTTP/1.1 200") == 21
    places = [answer.index(b"x-request-id: id-%d\r\n" % number) for number in range(20)]
    assert places == sorted(places)


def test_one_connection_too_many_hears_so(hasty: LiveServer):
    wait_until(lambda: not connections_of(hasty))
    held = [connect(hasty) for _ in range(24)]
    wait_until(lambda: len(connections_of(hasty)) == 24)
    with connect(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = everything(connection)
        check_refusal(answer, 503)
        assert b"Retry-After: 1\r\n" in answer
    for connection in held:
        connection.close()
    assert hasty.metric("admission_rejections_total", reason="max_connections") >= 1


def test_three_hundred_connections_at_once_are_cut_down_to_some(hasty: LiveServer):
    """Those that are accepted in one turn of the event loop are closed in the next, while their clients hold on."""
    refused = hasty.metric("admission_rejections_total", reason="max_connections")
    held = [connect(hasty) for _ in range(300)]
    wait_until(lambda: len(connections_of(hasty)) <= 24)
    for connection in held:
        connection.close()
    assert hasty.metric("admission_rejections_total", reason="max_connections") > refused


def test_the_open_files_bound_the_connections():
    assert most_connections(10) == 10
    assert 16 <= most_connections(0) <= 2**31 and most_connections(10**9) == most_connections(0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_does_not_read_is_dropped_and_its_request_with_it(hasty: LiveServer, stream: bool):
    """Its answer is longer than what the kernel holds for it; after write_timeout nobody computes for it any more."""
    dropped = hasty.metric("admission_rejections_total", reason="write_timeout")
    prompts = [[70 + number] * 20 for number in range(4 if stream else 40)]
    body = {
        "prompt": prompts,
        "max_tokens": 1000 if stream else 40,
        "ignore_eos": True,
        "stream": stream,
        "logprobs": 5,
    }
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hasty.port))
        content = json.dumps(body).encode()
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        wait_until(lambda: hasty.metric("admission_rejections_total", reason="write_timeout") == dropped + 1)
    wait_until(hasty.idle)


def test_a_slow_but_steady_reader_gets_its_whole_answer(hasty: LiveServer):
    """Some is taken within each write_timeout: it may take many of them."""
    body = {"prompt": [[70]] * 4, "max_tokens": 300, "ignore_eos": True, "stream": True, "temperature": 0}
    with send(hasty, body, headers={"Connection": "close"}) as connection:
        got = 0
        start = time.monotonic()
        parts = []
        while part := connection.recv(16384):
            got += len(part)
            parts.append(part)
            select.select([], [], [], 0.01)
        assert b"".join(parts).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), (got, time.monotonic() - start)


def test_compressed_bodies_are_not_unpacked(hasty: LiveServer):
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 100_000
    for encoding in ("gzip", "deflate", "br", "gzip, identity", "GZIP"):
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        assert hasty.post("/v1/completions", content=bomb, headers=headers).status_code == 415


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_64_mb_is_refused_when_its_limit_is_passed(hasty: LiveServer, chunked: bool):
    """The server answers long before the body is over, whether or not its length was announced."""
    sent = 0
    with connect(hasty) as connection:
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: 67108864\r\n\r\n"
        connection.sendall(HEAD + framing)
        block = b" " * 65536
        while sent < 64 * 2**20 and not select.select([connection], [], [], 0)[0]:
            connection.sendall(b"10000\r\n" + block + b"\r\n" if chunked else block)
            sent += len(block)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert sent < 32 * 2**20


def test_an_upgrade_is_an_ordinary_request(hasty: LiveServer):
    upgrade = (
        b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    )
    answer = talk(hasty, b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + upgrade + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and b"Upgrade" not in answer


def test_a_request_has_a_deadline(tiny_model_dir: Path):
    """Before the first token it is a 504; later, an event at the stream's end. Either way the engine is rid of it."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, num_threads=1)
    body = {"prompt": "Hello", "max_tokens": 900, "ignore_eos": True}
    with LiveServer(config, request_timeout=0.5) as server:
        engine = server.engine
        with Brake(server, steps=5):
            streamed = server.post("/v1/completions", body | {"stream": True})
            assert streamed.status_code == 200
            *chunks, error, done = [line for line in streamed.text.split("\n\n") if line]
            assert chunks and json.loads(error.removeprefix("data: "))["error"]["code"] == 504
            assert done == "data: [DONE]"
            for stream in (False, True):
                late = server.post("/v1/completions", body | {"stream": stream})
                assert late.status_code == 504 and late.json()["error"]["type"] == "DeadlineExceededError"
                assert late.headers["x-should-retry"] == "false"
            assert not engine._streams
        wait_until(server.idle)
        assert server.metric("admission_rejections_total", reason="request_timeout") == 3
        assert server.complete()["usage"]["completion_tokens"] == 4


def test_pages_of_strangers_may_not_call_unless_they_are_named(tiny_model_dir: Path):
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    asking = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
    ask: Callable[[LiveServer, str], Any] = lambda server, origin: server.http.options(  # noqa: E731
        "/v1/completions", headers=asking | {"Origin": origin}
    )
    with LiveServer(config) as server:
        assert "access-control-allow-origin" not in ask(server, "https://good.example").headers
    with LiveServer(config, allowed_origins='["https://good.example"]') as server:
        assert ask(server, "https://good.example").headers["access-control-allow-origin"] == "https://good.example"
        assert "access-control-allow-origin" not in ask(server, "https://bad.example").headers
        answer = server.http.get("/version", headers={"Origin": "https://good.example"})
        assert answer.headers["access-control-allow-origin"] == "https://good.example"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]

"""The repository's nginx configuration, run by a real nginx in front of real servers."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from lifecycle_server import LifecycleServer
from live_server import PATIENCE_S, Brake, wait_until
from nginx_proxy import NGINX_CONF, free_port, need_nginx, nginx

from minillm_serve.config import EngineConfig

BODY = {"model": "tiny", "prompt": "Hello", "max_tokens": 10, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def config(tiny_model_dir: Path) -> EngineConfig:
    return EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)


@pytest.fixture(scope="module")
def server(config: EngineConfig) -> Iterator[LifecycleServer]:
    with LifecycleServer(config, dev=True) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: LifecycleServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        nginx(tmp_path_factory.mktemp("nginx"), [server.port]) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as made,
    ):
        yield made


def test_the_configuration_is_sound_as_it_stands(tmp_path: Path):
    command = [str(need_nginx()), "-t", "-p", str(tmp_path), "-c", str(NGINX_CONF), "-e", "stderr"]
    tested = subprocess.run(command, capture_output=True, text=True)
    assert tested.returncode == 0 and "[warn]" not in tested.stderr.replace('the "user" directive', ""), tested.stderr


def test_each_event_goes_out_as_it_comes(server: LifecycleServer, client: httpx.Client):
    with Brake(server, 1) as brake, client.stream("POST", "/v1/completions", json=BODY | {"stream": True}) as stream:
        lines = (line for line in stream.iter_lines() if line)
        assert next(lines).startswith("data: {"), "while the engine waits to be allowed its second step"
        brake.allow(99)
        assert list(lines)[-1] == "data: [DONE]"


def test_an_answer_keeps_the_clients_request_id(client: httpx.Client):
    answer = client.post("/v1/completions", json=BODY, headers={"X-Request-Id": "mine"})
    assert answer.headers.get_list("x-request-id") == ["mine"] and answer.json()["id"] == "cmpl-mine"
    assert len(client.get("/version").headers["x-request-id"]) == 32, "nginx makes one where there is none"


@pytest.mark.parametrize(
    "path", ["/metrics", "/openapi.json", "/reset_prefix_cache", "//metrics", "/v1/../metrics", "/%6detrics", "/v1/x"]
)
def test_what_clients_have_no_business_with_is_not_there(client: httpx.Client, path: str):
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    assert b" 404 " in head.splitlines()[0] and json.loads(body)["error"]["code"] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("GET", "/ready"), ("GET", "/v1/models"), ("GET", "/v1/models/tiny"), ("POST", "/tokenize"),
     ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("POST", "/v1/rerank"), ("GET", "/tgi/info")],
)  # fmt: skip
def test_what_clients_need_goes_through(server: LifecycleServer, client: httpx.Client, method: str, path: str):
    """Whatever the server says to it: nginx says the same."""
    assert client.request(method, path).status_code == server.http.request(method, path).status_code != 404


def test_a_body_that_is_too_large_is_refused_in_the_servers_own_words(client: httpx.Client):
    answer = client.post("/v1/completions", json=BODY | {"prompt": "x" * 5 * 2**20})
    assert answer.status_code == 413 and answer.json()["error"]["code"] == 413


def test_each_key_has_a_rate_of_its_own(server: LifecycleServer, tmp_path: Path):
    with nginx(tmp_path, [server.port], {"rate=10r/s": "rate=1r/m"}) as port:
        for key in ("a", "b"):
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}
            ) as client:
                answers = [client.get("/version") for _ in range(53)]
            assert [answer.status_code for answer in answers] == [200] * 51 + [429] * 2, "one, and a burst of 50"
            assert answers[-1].json()["error"]["code"] == 429 and answers[-1].headers["retry-after"] == "1"


def test_without_any_server_the_answer_says_to_try_again(tmp_path: Path):
    with nginx(tmp_path, [free_port()]) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=BODY, timeout=PATIENCE_S)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == 503
    assert answer.headers["retry-after"] == "1"


def test_a_server_that_drains_is_passed_over_by_what_may_be_sent_twice(config: EngineConfig, tmp_path: Path):
    with ExitStack() as stack:
        first, second = (stack.enter_context(LifecycleServer(config, shutdown_timeout=3600)) for _ in range(2))
        client = stack.enter_context(httpx.Client(timeout=PATIENCE_S))
        url = f"http://127.0.0.1:{stack.enter_context(nginx(tmp_path, [first.port, second.port]))}/v1/completions"
        brake = stack.enter_context(Brake(first, 2))
        held = stack.enter_context(client.stream("POST", f"{first.url}/v1/completions", json=BODY | {"stream": True}))
        first.signal()
        assert first.ready().status_code == 503
        answers = [client.post(url, json=BODY, headers={"Idempotency-Key": str(n)}).status_code for n in range(4)]
        assert answers == [200] * 4
        brake.allow(99)
        assert held.read().decode().endswith("data: [DONE]\n\n"), "what it had accepted is not lost"
        wait_until(lambda: first.ended)
        assert [client.post(url, json=BODY).status_code for _ in range(4)] == [200] * 4, "nobody listens there now"

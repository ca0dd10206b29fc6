"""No key, no answer: on any path, by any method, however it is written; and no key is ever told to anybody."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer
from starlette.routing import Route

from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.serve.flags import server_settings
from minillm_serve.serve.limits import keys as keys_module
from minillm_serve.serve.limits.keys import ApiKey, KeyRing, keys_from_environment, presented_key, read_key_file
from minillm_serve.serve.limits.limits import Limits
from minillm_serve.serve.main import add_arguments
from minillm_serve.serve.settings import ServerSettings

KEY = "sk-Test.0123456789abcdef"
SECOND = "sk-second"
OPEN = {"/health", "/ready"}
BEARER = {"Authorization": f"Bearer {KEY}"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")


@pytest.fixture(scope="module")
def locked(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    keys = (ApiKey.from_text(KEY), ApiKey("second", keys_module.digest_of(SECOND.encode())))
    with LiveServer(config, api_keys=keys, tgi=True, dev=True) as server:
        yield server


def paths_of(server: LiveServer) -> list[str]:
    found = {route.path.replace("{name:path}", "tiny") for route in server.app.routes if isinstance(route, Route)}
    found |= set(server.app.openapi()["paths"])
    assert {"/v1/completions", "/v1/models", "/metrics", "/generate", "/openapi.json"} <= found
    return sorted(path.replace("{name}", "tiny") for path in found)


def spellings(path: str) -> Iterator[str]:
    """Ways to write a path that a careless check might take for another one."""
    yield path
    yield path + "/"
    yield "/" + path
    yield path.upper()
    yield path.replace("/v1", "/%76%31")
    yield "/%2f" + path.lstrip("/")
    yield "/health/.." + path
    yield path + "?path=/health"
    yield path + ";/health"
    yield path + "/health"


def raw(server: LiveServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def test_every_route_and_every_spelling_of_it_wants_a_key(locked: LiveServer):
    """Raw requests: a client library would tidy the paths up."""
    for path in paths_of(locked):
        for spelling in spellings(path):
            for method in METHODS if spelling == path else ("GET", "POST", "OPTIONS"):
                if spelling.partition("?")[0] in OPEN and method in ("GET", "HEAD"):
                    continue
                request = f"{method} {spelling} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                status = raw(locked, request.encode()).split(b" ", 2)[1]
                assert status == b"401", (method, spelling, status)


def test_what_is_not_there_wants_a_key_too(locked: LiveServer):
    for path in ("/", "/nothing", "/v1", "/docs", "/healthz", "/Health"):
        assert locked.http.get(path).status_code == 401, path


def test_the_open_paths_are_open_to_readers_alone(locked: LiveServer):
    for path in OPEN:
        assert locked.http.get(path).status_code == 200
        assert locked.http.post(path).status_code == 401
        assert locked.http.get(path, headers=BEARER).status_code == 200


@pytest.mark.parametrize(
    "host", ["x/health?", "localhost/health", "127.0.0.1:80/ready?a=", "x#", "health", "[::1]/health", "a@b", "", ".."]
)
def test_the_host_header_opens_nothing(locked: LiveServer, host: str):
    """CVE-2026-48710: a URL pieced together with this host would have /health for its path."""
    for path in paths_of(locked):
        if path not in OPEN:
            answer = raw(locked, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert answer.split(b" ", 2)[1] in (b"400", b"401"), (host, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"BEARER   {KEY}"},
        {"X-Api-Key": KEY},
        {"x-api-key": SECOND},
        {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY},
    ],
    ids=str,
)
def test_a_key_opens(locked: LiveServer, headers: dict[str, str]):
    assert locked.http.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY.lower()}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY} {SECOND}"},
        {"Authorization": f"Bearer {hashlib.sha256(KEY.encode()).hexdigest()}"},
        {"Authorization": f"Bearer {KEY}", "X-Api-Key": "other"},
        {"Authorization": f"Bearer {KEY}", "X-Api-Key": SECOND},
        {"X-Api-Key": ""},
        {"Cookie": f"key={KEY}"},
    ],
    ids=str,
)
def test_anything_else_does_not_and_hears_so_in_the_one_shape(locked: LiveServer, headers: dict[str, str]):
    response = locked.http.get("/v1/models", headers=headers)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "AuthenticationError" and error["code"] == 401
    assert response.headers["x-request-id"] and KEY not in response.text


def test_tgis_paths_hear_it_in_tgis_shape(locked: LiveServer):
    response = locked.post("/generate", {"inputs": "x"})
    assert response.status_code == 401 and set(response.json()) == {"error", "error_type"}


def test_nothing_is_read_of_a_refused_request(locked: LiveServer):
    """A body that would be refused for its size, its type or its JSON is refused for the key."""
    for body in (b"x" * 5_000_000, b"not json", b""):
        assert locked.post("/v1/completions", content=body).status_code == 401


def test_every_key_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch):
    """CVE-2025-59425: how long a comparison takes must not tell how much of a key is right."""
    compared: list[tuple[bytes, bytes]] = []

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    compare = hmac.compare_digest
    monkeypatch.setattr(keys_module.hmac, "compare_digest", counting)
    ring = KeyRing(ApiKey.from_text(f"key {number}") for number in range(5))
    for presented in (b"key 0", b"key 4", b"nobody"):
        compared.clear()
        found = ring.find(presented)
        assert (found is not None) == (presented != b"nobody")
        assert [len(a) for a, _ in compared] == [32] * 5, "digests, all of them, are compared"


def test_keys_are_kept_as_digests():
    key = ApiKey.from_text(KEY)
    assert key.digest == hashlib.sha256(KEY.encode()).digest()
    assert KEY not in repr(key) and key.digest.hex() not in repr(key)


def test_no_key_appears_in_the_log(locked: LiveServer, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        locked.http.get("/v1/models", headers=BEARER)
        locked.http.get("/v1/models", headers={"Authorization": "Bearer sk-wrong-one"})
        locked.post("/v1/completions", {"prompt": 5}, headers=BEARER)
    assert KEY not in caplog.text and "sk-wrong-one" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Basic a")], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")], b"a"),
        ([(b"authorization", b"Bearer \xff\xfe")], b"\xff\xfe"),
        ([(b"x-api-key", b"a b")], b"a b"),
    ],
)
def test_contradicting_keys_are_none(headers: list[tuple[bytes, bytes]], expected: bytes | None):
    assert presented_key(headers) == expected


def test_a_file_names_keys_and_their_quotas(tmp_path: Path):
    digest = hashlib.sha256(b"two").hexdigest()
    entries: list[dict[str, Any]] = [
        {"name": "ana", "key": "one", "requests_per_minute": 6},
        {"name": "luis", "sha256": digest, "tokens_per_minute": 0},
    ]
    lines = f"# clients\nana key=one requests_per_minute=6\n\nluis {digest.upper()} tokens_per_minute=0  # no limit\n"
    wanted = (ApiKey("ana", keys_module.digest_of(b"one"), 6), ApiKey("luis", keys_module.digest_of(b"two"), None, 0))
    for text in (json.dumps(entries), lines):
        (tmp_path / "keys").write_text(text)
        assert read_key_file(tmp_path / "keys") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "ana",
        "ana secret-key",
        "ana key=",
        f"ana key=secret {'0' * 64}",
        "a/b key=secret",
        "ana key=secret requests_per_minute=-1",
        "ana key=secret requests_per_minute=many",
        "ana key=secret shoe_size=44",
        "[",
        "{}",
        '["secret"]',
        '[{"name": "ana", "key": 5}]',
        '[{"name": "ana", "key": "secret", "tokens_per_minute": 1.5}]',
        "\udcff",
    ],
)
def test_a_wrong_key_file_is_refused_without_quoting_it(tmp_path: Path, text: str):
    (tmp_path / "keys").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as refusal:
        read_key_file(tmp_path / "keys")
    assert "secret" not in str(refusal.value)


def test_two_keys_are_two_keys(tmp_path: Path):
    with pytest.raises(ConfigError, match="same name"):
        KeyRing([ApiKey("a", b"1"), ApiKey("a", b"2")])
    with pytest.raises(ConfigError, match="same key"):
        KeyRing([ApiKey("a", b"1"), ApiKey("b", b"1")])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key_file(tmp_path / "absent")


def parsed(*flags: str) -> ServerSettings:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return server_settings(parser.parse_args(["tiny", *flags]))


def test_flags_name_keys_and_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("VLLM_API_KEY", "z")
    (tmp_path / "keys").write_text("ana key=d")

    def names(*flags: str) -> list[str]:
        return [key.name for key in parsed(*flags).keys.keys]

    def name(key: str) -> str:
        return ApiKey.from_text(key).name

    assert names() == [name("z")]
    assert names("--api-key", "a", "b", "--api-key", "c") == [name("a"), name("b"), name("c")]
    assert names("--api-key", "a", "--api-key-file", str(tmp_path / "keys")) == [name("a"), "ana"]
    with pytest.raises(ConfigError, match="same key"):
        parsed("--api-key", "a", "a")
    assert "--api-key" not in repr(parsed("--api-key", KEY)) and KEY not in repr(parsed("--api-key", KEY))


def test_a_server_that_strangers_can_reach_says_when_it_asks_nobody_for_a_key(caplog: pytest.LogCaptureFixture):
    Limits(ServerSettings()).warn_if_open("127.0.0.1")
    Limits(ServerSettings(api_keys=(ApiKey.from_text(KEY),))).warn_if_open("0.0.0.0")
    assert not caplog.text
    Limits(ServerSettings()).warn_if_open("0.0.0.0")
    assert "--api-key" in caplog.text


def test_the_environment_names_a_key():
    assert keys_from_environment({}) == () == keys_from_environment({"VLLM_API_KEY": ""})
    assert keys_from_environment({"VLLM_API_KEY": "a"}) == (ApiKey.from_text("a"),)
    assert keys_from_environment({"VLLM_API_KEY": "a", "MINILLM_API_KEY": "b"}) == (ApiKey.from_text("b"),)

"""Published attacks on servers like this one, as tests: numbers, empty inputs, links, leaks, and replies out of scale.

Each ends with a server that is alive, answers, and has its memory back (survival.py). What stands elsewhere: keys and
the Host header in test_api_keys.py; heads, bodies, smuggling and slow clients in test_hostile_http.py; schemas in
test_advisories_constraints.py; cancellation in test_limits_queue.py and test_disconnect_phases.py; prefix caches in
test_limits_isolation.py; files that a model comes in, in tests/model/test_loader.py.
"""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer
from survival import survives, survives_again

from minillm_serve.config import EngineConfig
from minillm_serve.serve.limits.keys import ApiKey, digest_of

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
COMPLETION = {"prompt": "hi", "max_tokens": 2}
GOOD = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETION}
HOME = re.escape(str(Path.home()))
LEAKS = re.compile(rf"0x[0-9a-f]{{4,}}|Traceback|File \"|site-packages|/home/|{HOME}/|/usr/|/tmp/|\.py\b")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def target(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=32, num_threads=1)
    with LiveServer(config, max_body_bytes=2**20, tgi=True) as server:
        yield server


def post(server: LiveServer, path: str, body: Any) -> Any:
    """NaN, Infinity and integers of any length included, which httpx would not send."""
    return server.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def check_refused(response: Any, *statuses: int) -> None:
    assert response.status_code in (statuses or (400,)), response.text[:500]
    assert len(response.content) <= 8000
    assert not LEAKS.search(response.text), response.text


@pytest.mark.parametrize("path", GOOD)
def test_counts_have_a_cap_before_anything_is_made_of_them(target: LiveServer, path: str):
    """CVE-2026-34756: one request with n = 10^9 would fill the memory before it is looked at."""
    counts = [0, -1, 17, 10**6, 10**12, 2**31, 2**63, 1.5, "2", True, [], {}]
    with survives(target):
        for value in counts:
            check_refused(post(target, path, GOOD[path] | {"n": value}))
        for value in (0, -1, 1.5, "2", True, [], {}):
            check_refused(post(target, path, GOOD[path] | {"max_tokens": value}))
        for value in (10**6, 10**12, -2, 1.5, "2", [], {}):
            name = "top_logprobs" if "chat" in path else "logprobs"
            check_refused(post(target, path, GOOD[path] | {"logprobs": True, name: value}))
        for field, value in {
            "stop": "x" * 5000,
            "stop_token_ids": [1] * 5000,
            "bad_words": ["x"] * 5000,
            "logit_bias": {str(number): 1 for number in range(5000)},
            "cache_salt": "x" * 5000,
        }.items():
            check_refused(post(target, path, GOOD[path] | {field: value}))


def test_lists_have_a_cap(target: LiveServer):
    with survives(target):
        check_refused(post(target, "/v1/completions", COMPLETION | {"prompt": ["x"] * 5000}))
        check_refused(post(target, "/v1/completions", COMPLETION | {"prompt": [[1]] * 5000}))
        check_refused(post(target, "/v1/completions", COMPLETION | {"prompt": ["x"] * 1000, "n": 16, "temperature": 1}))
        check_refused(post(target, "/v1/completions", COMPLETION | {"best_of": 10**9}))
        check_refused(post(target, "/v1/chat/completions", CHAT | {"messages": CHAT["messages"] * 5000}))
        check_refused(post(target, "/v1/embeddings", {"input": ["x"] * 5000}))
        check_refused(post(target, "/v1/rerank", {"query": "x", "documents": ["x"] * 5000}))
        check_refused(post(target, "/generate", {"inputs": "x", "parameters": {"best_of": 10**9}}), 422)


NUMBERS: tuple[Any, ...] = (
    -1, 0, -(2**31) - 1, 2**31, 2**63, -(2**63) - 1, 10**308, 1e308, -1e308, 5e-324, float("nan"), float("inf"),
    -float("inf"), "1", True, None, [], {}, [1],
)  # fmt: skip


def numeric_fields(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a body may hold a number, by the server's own description."""
    for name, field in schema.get("properties", {}).items():
        choices = [field, *field.get("anyOf", ()), *field.get("oneOf", ())]
        if any(choice.get("type") in ("integer", "number") for choice in choices):
            yield (*path, name)
        for choice in choices:
            if choice.get("type") == "object" and len(path) < 3:
                yield from numeric_fields(choice, (*path, name))


def test_every_number_of_every_body_may_be_anything(target: LiveServer):
    """llama.cpp's CVE-2026-21869 was a negative integer where a length was meant."""
    good: dict[str, Any] = GOOD | {
        "/v1/embeddings": {"input": "hi"},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
        "/tokenize": {"prompt": "hi"},
        "/detokenize": {"tokens": [70]},
        "/generate": {"inputs": "hi", "parameters": {"max_new_tokens": 2}},
    }
    tried = 0
    with survives(target):
        for path, described in target.http.get("/openapi.json").json()["paths"].items():
            if path not in good:
                continue
            schema = described["post"]["requestBody"]["content"]["application/json"]["schema"]
            for field in sorted(set(numeric_fields(schema))):
                for value in NUMBERS:
                    body = json.loads(json.dumps(good[path]))
                    inner = body
                    for name in field[:-1]:
                        inner = inner.setdefault(name, {})
                    inner[field[-1]] = value
                    response = post(target, path, body)
                    assert response.status_code in (200, 400, 422), (path, field, value, response.text)
                    if response.status_code != 200:
                        check_refused(response, 400, 422)
                    tried += 1
    assert tried > 300


EMPTY_MESSAGES: list[Any] = [[], None, "", [{}], [{"role": "user"}], [{"role": "", "content": ""}], {}, [[]], [None]]


def test_empty_inputs_are_answered(target: LiveServer):
    """An empty prompt ended vLLM 0.5's engine."""
    with survives(target):
        for prompt in ("", [], [[]], [""], ["", ""], [[], []], None, [None], [[None]]):
            check_refused(post(target, "/v1/completions", COMPLETION | {"prompt": prompt}))
        for prompt in (" ", "\n\t", [[0]], [0], "\x00", "\ufeff", "<|im_start|>"):
            assert post(target, "/v1/completions", COMPLETION | {"prompt": prompt}).status_code == 200, prompt
        for messages in EMPTY_MESSAGES:
            check_refused(post(target, "/v1/chat/completions", CHAT | {"messages": messages}))
        for content in ("", " ", "\x00"):
            body = CHAT | {"messages": [{"role": "user", "content": content}]}
            assert post(target, "/v1/chat/completions", body).status_code == 200


def test_nobody_is_called_for_a_client(target: LiveServer):
    """CVE-2026-24779, CVE-2026-0599: a link in a message must not make the server fetch it."""
    with socket.create_server(("127.0.0.1", 0)) as canary, survives(target):
        canary.settimeout(0.2)
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/canary.png"
        parts = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image_url", "image_url": url},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
            {"type": "audio_url", "audio_url": {"url": url}},
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "file", "file": {"file_url": url}},
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        ]
        for part in parts:
            body = CHAT | {"messages": [{"role": "user", "content": [part]}]}
            response = post(target, "/v1/chat/completions", body)
            check_refused(response)
            assert "root:" not in response.text
        for text in (f"![x]({url})", f"<img src={url}>", url):
            body = CHAT | {"messages": [{"role": "user", "content": text}]}
            assert post(target, "/v1/chat/completions", body).status_code == 200
            assert post(target, "/generate", {"inputs": text, "parameters": {"max_new_tokens": 1}}).status_code == 200
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": url}}}
        extras = ({"response_format": schema}, {"chat_template": url}, {"model": url}, {"documents": [{"text": url}]})
        for extra in extras:
            assert post(target, "/v1/chat/completions", CHAT | extra).status_code in (200, 400, 404)
        with pytest.raises(TimeoutError):
            canary.accept()


LARGE = 100_000
FIELDS = (
    "prompt", "model", "stop", "bad_words", "response_format", "structured_outputs", "user", "logit_bias", "seed",
    "messages", "tools", "tool_choice", "chat_template_kwargs", "allowed_token_ids", "stop_token_ids", "inputs",
)  # fmt: skip


def large_bodies() -> Iterator[tuple[str, bytes]]:
    text, quote = "x" * LARGE, '"' * (LARGE // 2)
    for field in FIELDS:
        for value in (text, quote, [text], {text: text}, [0.5] * (LARGE // 5), {"type": text}):
            yield f"{field} {str(value)[:12]}", json.dumps(COMPLETION | {field: value}).encode()
    yield "many wrong fields", json.dumps({f"field {number}": {} for number in range(20_000)}).encode()
    yield "many wrong messages", json.dumps({"prompt": "x", "stop_token_ids": ["x"] * 100_000}).encode()
    yield "long name", json.dumps(COMPLETION | {text: 1}).encode()
    yield "no json", b"{" * LARGE
    yield "nearly json", b'{"prompt": "' + b"x" * LARGE
    yield "controls", b'{"prompt": "' + b"\x01" * LARGE + b'"}'
    yield "escapes", b'{"model": "' + b"\\u0001" * (LARGE // 6) + b'"}'
    yield "not utf-8", b"\xff" * LARGE


def test_no_reply_is_out_of_scale(target: LiveServer):
    """A 4,475-byte body has produced a reply of 23.6 MB elsewhere: every error repeated its input."""
    headers = {"Content-Type": "application/json"}
    paths = ("/v1/completions", "/v1/chat/completions", "/generate", "/tokenize")

    def round_of_requests(shift: int) -> None:
        for number, (name, body) in enumerate(large_bodies()):
            assert len(body) <= 2**20
            for path in paths[(number + shift) % 2 :: 2]:
                response = target.post(path, content=body, headers=headers)
                assert len(response.content) <= 8000 or response.status_code == 200, (name, path, response.status_code)
                assert sum(len(key) + len(value) for key, value in response.headers.items()) < 8000, (name, path)
                assert response.status_code < 500, (name, path)

    round_of_requests(0)  # what threads and caches keep for the next large request they have by now
    survives_again(target, round_of_requests)


def test_only_json_comes_in(target: LiveServer):
    """No form is parsed, so none can be made of a thousand parts (Starlette's CVE-2024-47874)."""
    form = {"file": ("x", b"a" * 100_000)}
    with survives(target):
        for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize"):
            check_refused(target.http.post(path, files=form), 415)
            check_refused(target.http.post(path, data={"prompt": "x"}), 415)


def test_no_error_and_no_log_line_tells_of_others(tiny_model_dir: Path, caplog: pytest.LogCaptureFixture):
    """CVE-2026-22778, and: what one client sends is nobody else's to read, the server's log included."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    keys = (ApiKey("a", digest_of(b"key-of-a")), ApiKey("b", digest_of(b"key-of-b")))
    bad = [{"prompt": 5}, {"prompt": "x", "n": -1}, {"prompt": "x", "model": "y"}, {"prompt": [10**9]}, {}, {"a": 1}]
    with LiveServer(config, api_keys=keys) as server, caplog.at_level(logging.DEBUG):

        def secret(number: int) -> Any:
            body = {"prompt": f"SECRET-OF-A {number}", "max_tokens": 50, "ignore_eos": True}
            return server.post("/v1/completions", body, headers={"X-Api-Key": "key-of-a"})

        def wrong(number: int) -> Any:
            body = bad[number % len(bad)]
            return server.post("/v1/completions", body, headers={"X-Api-Key": "key-of-b"})

        with ThreadPoolExecutor(8) as pool:
            secrets, errors = pool.map(secret, range(12)), list(pool.map(wrong, range(48)))
            assert all(response.status_code == 200 for response in secrets)
        for response in errors:
            check_refused(response, 400, 404)
            assert "SECRET" not in response.text and "key-of" not in response.text
    for hidden in ("SECRET-OF-A", "key-of-a", "key-of-b"):
        assert hidden not in caplog.text


def test_request_ids_are_labels_and_nothing_else(target: LiveServer, caplog: pytest.LogCaptureFixture):
    hostile = ["x" * 10_000, "ñandú", "a b", "a\tb", '"}{"', "%0d%0aSet-Cookie: x", "\x7f"]
    with survives(target), caplog.at_level(logging.DEBUG):
        for id in hostile:
            headers = {"X-Request-Id": id.encode(), "Content-Type": "application/json"}
            response = target.post("/v1/completions", COMPLETION, headers=headers)
            assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"]), id
            assert response.json()["id"].removeprefix("cmpl-").startswith(response.headers["x-request-id"])
            assert "set-cookie" not in response.headers
    assert not any(id in caplog.text for id in hostile if len(id) > 4)

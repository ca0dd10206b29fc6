"""The load generator against a scripted server: what it sends, what it stamps, how it fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from minillm_serve.bench.client import ChatJob, run_load

SCHEMA = {"type": "object"}


def chunk(request_id: str, **fields: Any) -> dict[str, Any]:
    base = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [],
    }
    return base | fields


def choice(text: str | None, tokens: list[int], finish: str | None = None) -> dict[str, Any]:
    delta = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "token_ids": tokens}]}


def script(request_id: str) -> list[dict[str, Any]]:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return [
        chunk(request_id, **choice("Pa", [1, 2])),
        chunk(request_id, **choice(None, [3])),
        chunk(request_id, **choice("ris", [4], "length")),
        chunk(request_id, usage=usage),
    ]


class ScriptedHandler(BaseHTTPRequestHandler):
    """Answers by the prompt's text: 'bad' with 400, 'cut' by closing mid-stream, 'mute' with no choice at all."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)  # type: ignore[attr-defined]
        prompt, request_id = body["messages"][0]["content"], self.headers["X-Request-Id"]
        if prompt == "bad":
            return self._refuse()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        events = [json.dumps(event) for event in script(request_id)]
        if prompt == "cut":
            events = [
                *events[:1],
                json.dumps({"error": {"message": "the engine died", "type": "internal", "code": 500}}),
            ]
        if prompt == "mute":
            events = events[-1:]
        for event in [*events, "[DONE]"]:
            self.wfile.write(f"data: {event}\n\n".encode())

    def _refuse(self) -> None:
        answer = json.dumps({"error": {"message": "no such thing", "type": "BadRequestError", "code": 400}}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ScriptedHandler) as scripted:
        scripted.bodies = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=scripted.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def job(name: str, prompt: str, **fields: Any) -> ChatJob:
    return ChatJob(name, [{"role": "user", "content": prompt}], 4, **fields)


def test_text_tokens_usage_and_stamps_of_a_stream(server: ThreadingHTTPServer) -> None:
    load = run_load(url(server), "m", [job("x-0", "hello")])
    (seen,) = load.timelines
    assert (seen.text, seen.token_ids, seen.finish_reason) == ("Paris", [1, 2, 3, 4], "length")
    assert (seen.prompt_tokens, seen.completion_tokens, seen.response_id) == (9, 4, "chatcmpl-x-0")
    assert len(seen.chunks) == 3, "the usage chunk has no choice and must not count as a token"
    assert seen.sent < seen.chunks[0] <= seen.chunks[1] <= seen.chunks[2]
    assert load.completion_tokens == 4 and load.wall > 0


def test_results_keep_the_order_of_the_jobs(server: ThreadingHTTPServer) -> None:
    finished: list[str] = []
    jobs = [job(f"r-{i}", f"hello {i}") for i in range(20)]
    load = run_load(url(server), "m", jobs, lambda t: finished.append(t.request_id))
    assert [t.request_id for t in load.timelines] == [j.request_id for j in jobs]
    assert sorted(finished) == sorted(j.request_id for j in jobs)


def test_free_text_asks_for_greedy_tokens_with_eos_ignored(server: ThreadingHTTPServer) -> None:
    run_load(url(server), "m", [job("x", "hello")])
    (body,) = server.bodies  # type: ignore[attr-defined]
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("m", 4, 0, True)
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True and body["return_token_ids"] is True
    assert "response_format" not in body


def test_guided_jobs_send_their_schema_and_let_the_model_end(server: ThreadingHTTPServer) -> None:
    run_load(url(server), "m", [job("x", "hello", schema_name="thing", schema=SCHEMA)])
    (body,) = server.bodies  # type: ignore[attr-defined]
    assert body["response_format"]["json_schema"] == {"name": "thing", "schema": SCHEMA, "strict": True}
    assert "ignore_eos" not in body


@pytest.mark.parametrize(
    ("prompt", "reason"), [("bad", "no such thing"), ("cut", "the engine died"), ("mute", "without a single choice")]
)
def test_a_failed_request_says_why_and_leaves_the_others_alone(
    server: ThreadingHTTPServer, prompt: str, reason: str
) -> None:
    load = run_load(url(server), "m", [job("x", prompt), job("y", "hello")])
    failed, fine = load.timelines
    assert not failed.ok and reason in str(failed.error)
    assert fine.ok and fine.text == "Paris"
    assert load.completion_tokens == 4


def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    load = run_load("http://127.0.0.1:9/v1", "m", [job("x", "hello")])
    assert "Connect" in str(load.timelines[0].error)
    assert load.tokens_per_second == 0.0

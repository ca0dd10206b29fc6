"""What goes wrong on TGI's paths is told as TGI tells it, and leaves nothing behind."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import Brake, LiveServer, wait_until
from tgi_wire import PROMPT, events_of, refused

from minillm_serve.config import EngineConfig
from minillm_serve.engine.async_engine import EngineBusyError, EngineDeadError
from minillm_serve.params import RequestError
from minillm_serve.serve.http.errors import ApiError
from minillm_serve.serve.limits.keys import ApiKey
from minillm_serve.serve.tgi.errors import write_error


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 9.0}, "temperature"),
        ({"top_p": 1.0}, "top_p"),
        ({"top_p": 0.0}, "top_p"),
        ({"typical_p": 1.0}, "typical_p"),
        ({"top_k": 0}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"frequency_penalty": 3.0}, "frequency_penalty"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1024}, "max_new_tokens"),
        ({"stop": list("abcde")}, "stop"),
        ({"truncate": 0}, "truncate"),
        ({"truncate": 1024}, "truncate"),
        ({"top_n_tokens": 6}, "top_n_tokens"),
        ({"watermark": True}, "watermark"),
        ({"adapter_id": "mine"}, "adapter_id"),
        ({"best_of": 3, "do_sample": True}, "best_of"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "seed"),
        ({"grammar": {"type": "regex", "value": "("}}, "grammar"),
        ({"grammar": {"type": "json", "value": "{"}}, "grammar.value"),
        ({"grammar": {"type": "json_schema", "value": {}}}, "grammar.value.schema"),
    ],
)
def test_what_is_out_of_bounds_is_422_and_an_event_in_a_stream(
    server: LiveServer, parameters: dict[str, Any], name: str
):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4} | parameters}
    said = refused(server.post("/tgi/generate", body), 422, "validation")
    assert said.startswith("Input validation error: ") and name in said
    [event] = events_of(server.post("/tgi/generate_stream", body))
    assert event == {"error": said, "error_type": "validation"}


def test_what_a_stream_cannot_have(server: LiveServer):
    for parameters in ({"best_of": 2, "do_sample": True}, {"decoder_input_details": True}):
        [event] = events_of(server.post("/tgi/generate_stream", {"inputs": PROMPT, "parameters": parameters}))
        assert event["error_type"] == "validation" and next(iter(parameters)) in event["error"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "inputs"),
        ({"inputs": ""}, "inputs"),
        ({"inputs": 3}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "x" * 3000}, "inputs"),
        ({"inputs": PROMPT, "parameters": []}, "parameters"),
        ({"inputs": PROMPT, "parameters": {"top_k": "5"}}, "parameters.top_k"),
        ({"inputs": PROMPT, "parameters": {"seed": -1}}, "parameters.seed"),
        ({"inputs": PROMPT, "parameters": {"grammar": {"type": "ebnf", "value": "x"}}}, "parameters.grammar.type"),
    ],
)
def test_a_body_of_another_shape_is_422(server: LiveServer, body: dict[str, Any], name: str):
    assert name in refused(server.post("/tgi/generate", body), 422, "validation")


def test_bodies_that_are_not_read_and_paths_that_are_not_there(server: LiveServer):
    json_type = {"content-type": "application/json"}
    refused(server.http.post("/tgi/generate", content=b"{", headers=json_type), 400, "validation")
    refused(server.http.post("/tgi/generate", content=b"\xff", headers=json_type), 400, "validation")
    refused(server.http.post("/tgi", content=b"x" * 200_001, headers=json_type), 413, "validation")
    refused(server.http.post("/tgi/generate", content=b"{}", headers={"content-type": "text/plain"}), 415, "validation")
    refused(server.http.get("/tgi/nothing"), 404, "not_found")
    refused(server.http.get("/tgi/generate"), 405, "method_not_allowed")
    assert server.http.post("/generate", json={"inputs": "x"}).json()["error"]["code"] == 404, "not TGI's path here"


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (EngineDeadError("the engine has stopped"), 424, "generation"),
        (EngineBusyError("64 constraints wait"), 429, "overloaded"),
        (ApiError(503, "full", reason="max_num_queued_reqs"), 429, "overloaded"),
        (ApiError(503, "the server is shutting down"), 503, "unavailable"),
        (ApiError(429, "quota"), 429, "overloaded"),
        (ApiError(401, "no key"), 401, "unauthorized"),
        (ApiError(504, "too long"), 504, "timeout"),
        (ApiError(400, "never fits"), 422, "validation"),
        (RequestError("is wrong", "inputs"), 422, "validation"),
        (ValueError("/some/path at 0x7f00deadbeef"), 500, "incomplete_generation"),
    ],
)
def test_each_failure_has_tgis_status_and_word(error: Exception, status: int, error_type: str):
    response = write_error(error)
    body = json.loads(bytes(response.body))
    assert (response.status_code, body["error_type"]) == (status, error_type)
    assert "/some/path" not in body["error"] and ("retry-after" in response.headers) == (status in (429, 503))


def test_a_full_queue_is_overloaded_in_a_stream_as_well(tiny_model_dir: Path):
    """It keeps its status, which proxies and clients act upon, where TGI sends an event under 200."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=64, num_threads=1)
    with (
        LiveServer(config, max_num_queued_reqs=1) as narrow,
        Brake(narrow, steps=1) as brake,
        ThreadPoolExecutor(1) as threads,
    ):
        body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4}}
        running = threads.submit(narrow.post, "/tgi/generate", body)
        wait_until(lambda: narrow.engine.stats().running == 1)
        for path in ("/tgi/generate", "/tgi/generate_stream"):
            response = httpx.post(narrow.url + path, json=body, timeout=30)
            refused(response, 429, "overloaded")
            assert response.headers["retry-after"] == "1"
        assert httpx.post(f"{narrow.url}/v1/completions", json={"prompt": "x"}, timeout=30).status_code == 503
        brake.allow(100)
        assert running.result().status_code == 200


def test_keys_are_asked_for_here_too(tiny_model_dir: Path):
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=64, num_threads=1)
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 1}}
    with LiveServer(config, tgi=True, api_keys=(ApiKey.from_text("a-key-of-some-length"),)) as locked:
        for path in ("/", "/generate", "/tgi", "/tgi/generate_stream", "/tgi/v1/completions", "/tgi/nothing"):
            refused(locked.post(path, body), 401, "unauthorized")
        told = locked.post("/generate", body, headers={"Authorization": "Bearer a-key-of-some-length"})
        assert told.status_code == 200


@pytest.mark.parametrize("path", ["/tgi/generate", "/tgi/generate_stream"])
def test_a_client_that_leaves_midway_ends_its_request(server: LiveServer, path: str):
    def aborted() -> float:
        return server.metric("request_success_total", finished_reason="abort")

    before = aborted()
    body = json.dumps({"inputs": PROMPT, "parameters": {"max_new_tokens": 500, "do_sample": True}}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with Brake(server, steps=3), socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: server.engine.stats().running == 1)
    wait_until(lambda: aborted() == before + 1)

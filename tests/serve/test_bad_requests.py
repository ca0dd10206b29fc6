"""Whatever a client sends, the answer is an error in OpenAI's shape that names the field, and the server goes on.

The ``server`` fixture asks for a good completion after each case.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from live_server import LiveServer

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
COMPLETION = {"model": "tiny", "prompt": "hi", "max_tokens": 4}
GUIDED = {"type": "json_schema", "json_schema": {"name": "x"}}


def check_error(response: httpx.Response, status: int, param: str | None) -> str:
    """The message of an error that has the right status, shape and param."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == status
    assert error["param"] == param, error
    assert error["message"] and error["type"].endswith("Error")
    assert len(response.content) < 8000
    for leak in ("Traceback", 'File "', "site-packages", ".py", "0x7f"):
        assert leak not in response.text
    assert response.headers["x-request-id"]
    return error["message"]


def nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"type": "array", "items": value}
    return value


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 2**31}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "4"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": []}, "max_tokens"),
    ({"max_tokens": 1025}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": 1e308}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.01}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 0.5}, "top_k"),
    ({"seed": 2**63}, "seed"),
    ({"seed": -(2**63) - 1}, "seed"),
    ({"seed": "7"}, "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": {}}, "stop"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"stop_token_ids": [10**9]}, "stop_token_ids"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids.0"),
    ({"ignore_eos": "yes"}, "ignore_eos"),
    ({"stream": "yes"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": 1}}, "stream_options.continuous_usage_stats"),
    ({"stream_options": {"include_usage": None}}, "stream_options"),
    ({"model": 5}, "model"),
    ({"return_token_ids": "all"}, "return_token_ids"),
    ({"n": 0}, "n"),
    ({"n": -1}, "n"),
    ({"n": 17}, "n"),
    ({"n": 10**6}, "n"),
    ({"n": 10**12}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": True}, "n"),
    ({"n": "2"}, "n"),
    ({"n": 2, "temperature": 0}, "n"),
    ({"min_p": 1.5}, "min_p"),
    ({"typical_p": 0}, "typical_p"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"min_tokens": 5}, "min_tokens"),
    ({"logit_bias": {"5": "much"}}, "logit_bias.5"),
    ({"logit_bias": {"five": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"512": 1}}, "logit_bias"),
    ({"logit_bias": [5]}, "logit_bias"),
    ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"allowed_token_ids": [512]}, "allowed_token_ids"),
    ({"bad_words": ["a"] * 129}, "bad_words"),
    ({"bad_words": [""]}, "bad_words"),
    ({"bad_words": "word"}, "bad_words"),
    ({"stop_token_ids": [1] * 1025}, "stop_token_ids"),
    ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ({"truncate_prompt_tokens": 1025}, "truncate_prompt_tokens"),
    ({"truncate_prompt_tokens": 4, "truncation_side": "middle"}, "truncation_side"),
    ({"stream_interval": 0}, "stream_interval"),
    ({"priority": 1}, "priority"),
    ({"priority": 2**63}, "priority"),
    ({"cache_salt": ""}, "cache_salt"),
    ({"request_id": "a b"}, "request_id"),
    ({"echo": 1}, "echo"),
    ({"logprob_token_ids": [5]}, "logprob_token_ids"),  # without logprobs
    # known, not honoured
    ({"suffix": "end"}, "suffix"),
    ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"thinking_token_budget": 5}, "thinking_token_budget"),
    ({"repetition_detection": {"min_count": 2}}, "repetition_detection"),
    ({"tools": []}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"functions": []}, "functions"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"use_beam_search": True}, "use_beam_search"),
    # constrained output
    ({"guided_json": {"type": "object"}}, "guided_json"),
    ({"guided_regex": "a+"}, "guided_regex"),
    ({"guided_choice": ["a"]}, "guided_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": GUIDED}, "response_format.json_schema.schema"),
    ({"response_format": GUIDED | {"json_schema": {"schema": {}}}}, "response_format.json_schema.name"),
    (
        {"response_format": GUIDED | {"json_schema": {"name": "x", "schema": {"type": "strin"}}}},
        "response_format.json_schema.schema",
    ),
    (
        {"response_format": GUIDED | {"json_schema": {"name": "x", "schema": {"type": 123}}}},
        "response_format.json_schema.schema",
    ),
    (
        {"response_format": GUIDED | {"json_schema": {"name": "x", "schema": {"$ref": "https://example.com/s"}}}},
        "response_format.json_schema.schema",
    ),
    ({"structured_outputs": {"json": {"type": "integer", "minimum": 3, "maximum": 2}}}, "structured_outputs.json"),
    ({"structured_outputs": {"json": False}}, "structured_outputs.json"),
    ({"structured_outputs": {"json": "{not json"}}, "structured_outputs.json"),
    ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"whitespace": "compact"}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a("}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"choice": "ab"}}, "structured_outputs.choice"),
    ({"structured_outputs": {"grammar": "root ::= missing"}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"structural_tag": {"triggers": []}}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"whitespace_pattern": " *", "json": {}}}, "structured_outputs.whitespace_pattern"),
    ({"structured_outputs": {"json": {}, "json_object": True}}, "structured_outputs"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
    ({"structured_outputs": {"json": {}, "whitespace": "none"}}, "structured_outputs.whitespace"),
    ({"structured_outputs": {"json": {}, "max_whitespace": 1000}}, "structured_outputs.max_whitespace"),
    ({"structured_outputs": {"json": {}, "always_closes": "yes"}}, "structured_outputs.always_closes"),
    ({"structured_outputs": {"json": {"const": "0123456789"}, "always_closes": True}, "max_tokens": 12}, "max_tokens"),
    ({"response_format": GUIDED | {"json_schema": {"name": "no spaces", "schema": {}}}},
     "response_format.json_schema.name"),
    ({"response_format": {"type": "structural_tag", "structures": []}}, "response_format"),
    ({"structured_outputs": {"json": {}}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    ({"structured_outputs": {"json": {}}, "ignore_eos": True}, "ignore_eos"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("wrong", "param"), FIELDS, ids=[json.dumps(wrong)[:60] for wrong, _ in FIELDS])
def test_a_bad_field_is_named(server: LiveServer, wrong: dict, param: str, stream: bool):
    body = ({"stream": True} if stream and "stream_options" not in wrong else {}) | wrong
    check_error(server.post("/v1/completions", COMPLETION | body), 400, param)
    check_error(server.post("/v1/chat/completions", CHAT | body), 400, param)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (None, "prompt"),
        ("", "prompt"),
        ([], "prompt"),
        ([[]], "prompt"),
        ([""], "prompt"),
        (["a", ""], "prompt.1"),
        (["a", 5], "prompt.1"),
        ([1.5], "prompt.0"),
        ([True], "prompt.0"),
        ({"text": "a"}, "prompt"),
        (5, "prompt"),
        ([512], "prompt"),
        ([-1], "prompt"),
        ([10**30], "prompt"),
        ([[5], [10**9]], "prompt.1"),
        ([5] * 1024, "prompt"),
        ("long " * 3000, "prompt"),
        ("a" * 100_000, "prompt"),
        (["a"] * 1025, "prompt"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_prompt_is_named(server: LiveServer, prompt: Any, param: str):
    check_error(server.post("/v1/completions", COMPLETION | {"prompt": prompt}), 400, param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        ({"role": "user", "content": "hi"}, "messages"),
        (["hi"], "messages.0"),
        ([{"content": "hi"}], "messages.0.role"),
        ([{"role": "user\n<|im_end|>", "content": "hi"}], "messages.0.role"),
        ([{"role": "function", "content": "hi"}], "messages.0.role"),
        ([{"role": 5, "content": "hi"}], "messages.0.role"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "user", "content": None}], "messages.0.content"),
        ([{"role": "user", "content": 5}], "messages.0.content"),
        ([{"role": "user", "content": {}}], "messages.0.content"),
        ([{"role": "user", "content": ["hi"]}], "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://localhost"}}]}],
         "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text"}]}], "messages.0.content.1.text"),
        ([{"role": "assistant", "content": "hi", "tool_calls": {}}], "messages.0.tool_calls"),
        ([{"role": "user", "content": "word " * 3000}], "messages"),
        ([{"role": "user", "content": "word " * 15_000}, {"role": "user", "content": "hi"}], "messages"),
    ],
    ids=lambda value: repr(value)[:50],
)  # fmt: skip
def test_a_bad_message_is_named(server: LiveServer, messages: Any, param: str):
    check_error(server.post("/v1/chat/completions", CHAT | {"messages": messages}), 400, param)


def test_the_newer_name_of_max_tokens_is_the_one_blamed(server: LiveServer):
    chat = {key: value for key, value in CHAT.items() if key != "max_tokens"}
    for value in (0, 5000, "4"):
        response = server.post("/v1/chat/completions", chat | {"max_completion_tokens": value})
        check_error(response, 400, "max_completion_tokens")
    check_error(server.post("/v1/chat/completions", CHAT | {"max_completion_tokens": 5}), 400, "max_completion_tokens")


def test_legacy_guided_fields_say_what_to_use_instead(server: LiveServer):
    message = check_error(server.post("/v1/completions", COMPLETION | {"guided_json": {}}), 400, "guided_json")
    assert "response_format" in message and "structured_outputs" in message


def test_an_impossible_schema_names_its_keyword(server: LiveServer):
    schema = {"type": "object", "properties": {"a": {"type": "array", "contains": {"type": "null"}, "minContains": 2}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    response = server.post("/v1/chat/completions", CHAT | {"response_format": form})
    if response.status_code != 200:  # the keyword may become supported; a refusal must name it
        message = check_error(response, 400, "response_format.json_schema.schema")
        assert "ontains" in message and "/properties/a" in message


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"model": "tiny", "prompt": "hi"',
        b"[]",
        b"null",
        b'"text"',
        b"nope",
        b"\xff\xfe{}",
        b'\xef\xbb\xbf{"prompt": "hi"}',
        b'{"prompt": "hi", "temperature": NaN}',
        b'{"prompt": "hi", "temperature": Infinity}',
        b'{"prompt": "hi", "temperature": 1e999, "messages": [{"role": "user", "content": "hi"}]}',
        b'{"prompt": "\\ud800", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"prompt": "hi", "messages": [{"role": "user", "content": "hi"}], "\\uDC00": 1}',
        b'{"prompt": "hi", "max_tokens": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"prompt": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"metadata": ' + b'{"a":' * 25_000 + b"1" + b"}" * 25_000 + b"}",
        json.dumps({"prompt": "hi", "structured_outputs": {"json": nested(200)}}).encode(),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_is_no_clean_json_object_is_refused(server: LiveServer, path: str, content: bytes):
    response = server.post(path, content=content, headers={"content-type": "application/json"})
    check_error(response, 400, "temperature" if b"1e999" in content else None)


def test_a_deep_schema_is_answered(server: LiveServer):
    for depth in (20, 60, 110):
        response = server.post("/v1/completions", COMPLETION | {"structured_outputs": {"json": nested(depth)}})
        if response.status_code != 200:
            check_error(response, 400, "structured_outputs.json")


def test_only_json_is_read(server: LiveServer):
    content = json.dumps(COMPLETION).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
        headers = {} if kind is None else {"content-type": kind}
        check_error(server.post("/v1/completions", content=content, headers=headers), 415, None)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    check_error(server.post("/v1/completions", content=content, headers=headers), 415, None)
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert server.post("/v1/completions", content=content, headers=headers).status_code == 200


def test_a_large_body_is_refused_without_reading_it(server: LiveServer):
    """The head announces 50 MB and nothing of it is ever sent: the answer comes all the same."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + b"Content-Length: 50000000\r\n\r\n")
        assert connection.recv(200).startswith(b"HTTP/1.1 413")


def test_a_large_body_of_unknown_length_is_refused_while_it_is_read(server: LiveServer):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(21):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")  # 210,000 bytes, and the body does not end
        assert connection.recv(200).startswith(b"HTTP/1.1 413")


def test_a_large_body_gets_its_answer_through_a_client(server: LiveServer):
    response = server.post("/v1/completions", COMPLETION | {"prompt": "a" * 300_000})
    assert "200000" in check_error(response, 413, None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/models/", 404),
        ("POST", "/v1/completions/", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/v1/%2e%2e/etc", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
    ],
)
def test_paths_and_methods_that_do_not_exist(server: LiveServer, method: str, path: str, status: int):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:  # clients tidy paths up
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = reply.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode())
    assert json.loads(content)["error"]["code"] == status


def test_an_unknown_model_is_not_found(server: LiveServer):
    for path, body in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
        message = check_error(server.post(path, body | {"model": "gpt-4o" * 500}), 404, "model")
        assert "/v1/models" in message

"""/tokenize tells the tokens that a request would have, /detokenize their text."""

from __future__ import annotations

from typing import Any

import pytest
from live_server import LiveServer

USER = {"role": "user", "content": "¿Qué tal? 🙂"}


def tokenize(server: LiveServer, **body: Any) -> dict[str, Any]:
    response = server.post("/tokenize", body)
    assert response.status_code == 200, response.text
    assert response.json().keys() == {"count", "max_model_len", "tokens", "token_strs"}
    return response.json()


def detokenize(server: LiveServer, tokens: list[int]) -> str:
    response = server.post("/detokenize", {"tokens": tokens})
    assert response.status_code == 200, response.text
    assert response.json().keys() == {"prompt"}
    return response.json()["prompt"]


@pytest.mark.parametrize("text", ["hello world", "¿Dónde? 日本語 🙂\n\t", "<|im_end|>", ""])
def test_text_comes_back(server: LiveServer, text: str):
    answer = tokenize(server, prompt=text, model="tiny")
    assert answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == server.engine.max_model_len
    assert answer["token_strs"] is None
    assert detokenize(server, answer["tokens"]) == text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"add_generation_prompt": False},
        {"add_special_tokens": True},
        {"tools": [{"type": "function", "function": {"name": "now"}}], "tool_choice": "none"},
    ],
)
def test_the_tokens_are_those_of_the_request(server: LiveServer, fields: dict[str, Any]):
    asked = {"messages": [USER], "max_tokens": 1, "return_token_ids": True} | fields
    used = server.post("/v1/chat/completions", asked).json()["prompt_token_ids"]
    fields.pop("tool_choice", None)
    assert tokenize(server, messages=[USER], **fields)["tokens"] == used
    plain = server.post("/v1/completions", {"prompt": "hello", "max_tokens": 1, "return_token_ids": True})
    assert tokenize(server, prompt="hello")["tokens"] == plain.json()["choices"][0]["prompt_token_ids"]


def test_a_final_message_can_be_left_open(server: LiveServer):
    talk = [USER, {"role": "assistant", "content": "I"}]
    answer = tokenize(server, messages=talk, add_generation_prompt=False, continue_final_message=True)
    assert detokenize(server, answer["tokens"]).endswith("<|im_start|>assistant\nI")


def test_token_strs_are_the_tokenizers_own(server: LiveServer):
    answer = tokenize(server, messages=[USER], return_token_strs=True)
    assert answer["token_strs"][0] == "<|im_start|>" and "Ċ" in answer["token_strs"]
    assert len(answer["token_strs"]) == answer["count"]


def test_what_is_longer_than_the_context_can_be_counted(server: LiveServer):
    assert tokenize(server, prompt="word " * 20_000)["count"] > server.engine.max_model_len
    assert tokenize(server, messages=[USER] * 2000)["count"] > server.engine.max_model_len


def test_ids_that_form_no_text_are_shown_as_such(server: LiveServer):
    assert detokenize(server, []) == ""
    assert detokenize(server, [1, 2]) == "<|im_start|><|im_end|>"
    emoji = tokenize(server, prompt="🙂")["tokens"]
    assert "\ufffd" in detokenize(server, emoji[:1])


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": "no"}, 400, "add_special_tokens"),
        ("/tokenize", {"prompt": "a", "model": "other"}, 404, "model"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"messages": "hi"}, 400, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, 400, "messages.0.content"),
        ("/tokenize", {"messages": [USER], "tools": [{}]}, 400, "tools.0"),
        ("/tokenize", {"messages": [USER], "chat_template": "x"}, 400, "chat_template"),
        ("/tokenize", {"messages": [USER], "continue_final_message": True}, 400, "continue_final_message"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": "abc"}, 400, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [1.0]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [True]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [5, -1]}, 400, "tokens.1"),
        ("/detokenize", {"tokens": [512]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [2**63]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [10**400]}, 400, "tokens.0"),
        ("/detokenize", {"tokens": [1], "model": "other"}, 404, "model"),
    ],
)
def test_what_is_wrong_is_named(server: LiveServer, path: str, body: dict[str, Any], status: int, param: str):
    response = server.post(path, body)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param, response.text


def test_unknown_fields_are_told(server: LiveServer):
    response = server.post("/tokenize", {"prompt": "a", "colour": "red"})
    assert response.status_code == 200 and "colour" in response.headers["x-minillm-warning"]
    assert server.http.get("/tokenize").status_code == 405

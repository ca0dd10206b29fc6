"""Constraints over HTTP: every way to ask for one works, and what cannot be kept to is a 400 that says why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import LiveServer, wait_until

from minillm_serve.config import EngineConfig
from minillm_serve.serve.openai.openapi import document_body
from minillm_serve.serve.openai.protocol import ChatCompletionRequest

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}
CHAT = [{"role": "user", "content": "Well?"}]


@pytest.fixture(scope="module")
def closing(tiny_model_dir: Path) -> Iterator[LiveServer]:
    """A server that closes its texts and takes vLLM's former fields."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1, json_always_closes=True)
    with LiveServer(config, accept_legacy_guided=True) as server:
        yield server
        wait_until(server.idle)


def text_of(server: LiveServer, **fields: Any) -> str:
    choice = server.complete(**{"max_tokens": 200, "temperature": 1.0} | fields)["choices"][0]
    assert choice["finish_reason"] == "stop", choice
    return choice["text"]


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_constraint_is_kept_to(server: LiveServer, seed: int):
    def ask(**constraint: Any) -> str:
        return text_of(server, seed=seed, structured_outputs=constraint)

    assert re.fullmatch(r"[a-c]{2,4}-\d{3}", ask(regex=r"[a-c]{2,4}-\d{3}"))
    assert ask(choice=["yes", "no", "sí"]) in ("yes", "no", "sí")
    assert re.fullmatch(r"(ab)+!", ask(grammar='root ::= ("ab")+ "!"', always_closes=True))
    assert set(json.loads(ask(json=SCHEMA))) == {"ok", "n"}
    assert set(json.loads(ask(json=json.dumps(SCHEMA), any_order=True))) == {"ok", "n"}
    assert isinstance(json.loads(ask(json_object=True, always_closes=True)), dict)
    compact = ask(json=SCHEMA, whitespace="compact")
    assert compact == json.dumps(json.loads(compact), separators=(",", ":"))
    assert ask(json=SCHEMA, disable_any_whitespace=True).count(" ") == 0
    tag = {
        "type": "structural_tag",
        "triggers": ["<f>"],
        "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
    }
    assert isinstance(ask(structural_tag=tag, always_closes=True), str)


def test_response_format_takes_every_type(client: openai.OpenAI):
    def ask(form: dict[str, Any], **body: Any) -> str:
        answer = client.chat.completions.create(
            model="tiny", messages=CHAT, seed=1, max_tokens=300, response_format=form, extra_body=body
        )
        return answer.choices[0].message.content

    named = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}}
    assert set(json.loads(ask(named))) == {"ok", "n"}
    spaced = ask(named, structured_outputs={"whitespace": "spaced", "always_closes": True})
    assert spaced == json.dumps(json.loads(spaced))
    assert isinstance(json.loads(ask({"type": "json_object"}, structured_outputs={"always_closes": True})), dict)
    assert isinstance(ask({"type": "text"}), str)
    tag = {"type": "structural_tag", "triggers": ["<"], "structures": [{"begin": "<", "schema": SCHEMA, "end": ">"}]}
    assert isinstance(ask(tag), str)


@pytest.mark.parametrize("max_tokens", [24, 40, 300])
def test_texts_close_within_max_tokens_where_the_server_says_so(closing: LiveServer, max_tokens: int):
    for seed in range(4):
        text = text_of(closing, max_tokens=max_tokens, seed=seed, structured_outputs={"json": SCHEMA})
        assert set(json.loads(text)) == {"ok", "n"}
    cut = closing.complete(max_tokens=3, structured_outputs={"json": SCHEMA, "always_closes": False})
    assert cut["choices"][0]["finish_reason"] == "length"


def test_max_tokens_under_the_shortest_text_is_refused(closing: LiveServer):
    body = {"prompt": "x", "max_tokens": 9, "response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": SCHEMA}}}  # fmt: skip
    response = closing.post("/v1/completions", body)
    assert response.status_code == 400 and response.json()["error"]["param"] == "max_tokens"
    assert "shortest valid text needs" in response.json()["error"]["message"]


def test_former_fields_are_taken_where_the_server_was_told_to(closing: LiveServer):
    assert text_of(closing, guided_choice=["up", "down"]) in ("up", "down")
    assert set(json.loads(text_of(closing, guided_json=SCHEMA, guided_decoding_backend="outlines"))) == {"ok", "n"}
    assert re.fullmatch("x{3}", text_of(closing, guided_regex="x{3}"))
    both = {"prompt": "x", "guided_regex": "x", "guided_json": SCHEMA}
    response = closing.post("/v1/completions", both)
    assert response.status_code == 400 and response.json()["error"]["param"] == "guided_regex"
    pattern = closing.post("/v1/completions", {"prompt": "x", "guided_json": SCHEMA, "guided_whitespace_pattern": " "})
    assert pattern.status_code == 400 and pattern.json()["error"]["param"] == "guided_whitespace_pattern"


def test_a_refusal_names_keyword_and_path_and_lenient_leaves_it_out(server: LiveServer):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^(a|b)\1$"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"prompt": "x", "max_tokens": 60, "response_format": form, "structured_outputs": {"always_closes": True}}
    strict = server.post("/v1/completions", body)
    assert strict.status_code == 400
    error = strict.json()["error"]
    assert error["param"] == "response_format.json_schema.schema"
    assert "'pattern'" in error["message"] and "/properties/a" in error["message"]
    for way in ({"headers": {"x-minillm": "lenient"}}, {}):
        options = {"always_closes": True} if way else {"always_closes": True, "lenient": True}
        answer = server.post("/v1/completions", body | {"structured_outputs": options}, **way)
        assert answer.status_code == 200, answer.text
        assert set(json.loads(answer.json()["choices"][0]["text"])) == {"a"}
        assert "pattern" in answer.headers["x-minillm-warning"]
    unknown = server.post("/v1/completions", body, headers={"x-minillm": "strict"})
    assert unknown.status_code == 400 and "lenient" in unknown.json()["error"]["message"]


def test_the_api_s_description_knows_the_fields():
    [content] = document_body(ChatCompletionRequest)["requestBody"]["content"].values()
    fields = content["schema"]["properties"]["structured_outputs"]["anyOf"][0]["properties"]
    assert {"json", "regex", "choice", "grammar", "json_object", "structural_tag", "always_closes"} <= fields.keys()

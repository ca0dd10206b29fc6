"""Tools over HTTP: a required call is always a valid call, and a stream adds up to the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator
from live_server import LiveServer, wait_until

from minillm_serve.config import EngineConfig
from minillm_serve.params import RequestError, SamplingParams
from minillm_serve.serve.openai.tools import CallWriter, ToolUse, read_tool_use
from minillm_serve.serve.settings import ServerSettings

SCHEMAS: dict[str, Any] = {
    "weather": {
        "type": "object",
        "properties": {"city": {"enum": ["Lima", "Quito"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Rain?", "parameters": SCHEMAS["weather"]}},
    {"type": "function", "function": {"name": "now"}},
]
STRICT = [{"type": "function", "function": TOOLS[0]["function"] | {"strict": True}}, TOOLS[1]]
NAMED = {"type": "function", "function": {"name": "weather"}}
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Lima?"}], "max_tokens": 400}


def chat(server: LiveServer, **fields: Any) -> dict[str, Any]:
    response = server.post("/v1/chat/completions", ASK | {"tools": TOOLS} | fields)
    assert response.status_code == 200, response.text
    return response.json()


def chunks(server: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    response = server.post("/v1/chat/completions", ASK | {"tools": TOOLS, "stream": True} | fields)
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def check_calls(calls: list[dict[str, Any]]) -> None:
    assert calls
    assert len({call["id"] for call in calls}) == len(calls)
    for call in calls:
        assert call["type"] == "function" and call["id"].startswith("chatcmpl-tool-")
        function = call["function"]
        assert Draft202012Validator(SCHEMAS[function["name"]]).is_valid(json.loads(function["arguments"])), function


@pytest.mark.parametrize("seed", range(6))
def test_a_required_call_is_always_valid(server: LiveServer, seed: int):
    [choice] = chat(server, tool_choice="required", parallel_tool_calls=False, seed=seed)["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == ""
    assert len(choice["message"]["tool_calls"]) == 1
    check_calls(choice["message"]["tool_calls"])


def test_a_named_function_is_the_one_that_is_called(server: LiveServer):
    for seed in range(4):
        [choice] = chat(server, tool_choice=NAMED, seed=seed)["choices"]
        assert choice["finish_reason"] == "stop"  # vLLM's and OpenAI's: the caller knew what was to come
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather"]
        check_calls(choice["message"]["tool_calls"])


def test_several_calls_stand_in_one_answer(server: LiveServer):
    found = [
        chat(server, tool_choice="required", seed=seed)["choices"][0]["message"].get("tool_calls", [])
        for seed in range(8)
    ]
    assert max(map(len, found)) > 1
    for calls in filter(None, found):
        check_calls(calls)


def assembled(stream: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices of a stream, put together as its grammar says: one begin for each call, then pieces of arguments."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in stream:
        for part in chunk["choices"]:
            choice = choices.setdefault(part["index"], {"content": "", "calls": [], "finish_reason": None})
            assert choice["finish_reason"] is None, "a choice goes on after its end"
            choice["content"] += part["delta"].get("content") or ""
            for call in part["delta"].get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(choice["calls"]) and call["type"] == "function"
                    choice["calls"].append([call["function"]["name"], ""])
                else:
                    assert call["index"] == len(choice["calls"]) - 1
                    choice["calls"][-1][1] += call["function"]["arguments"]
            choice["finish_reason"] = part["finish_reason"]
    return choices


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": "required", "parallel_tool_calls": False, "n": 3},
        {"tool_choice": NAMED},
        {"tool_choice": NAMED, "tools": STRICT, "logprobs": True, "return_token_ids": True},
        {"tool_choice": "auto", "max_tokens": 12},
        {"tools": STRICT, "max_tokens": 12},
        {"tool_choice": "none", "max_tokens": 12},
    ],
)
def test_a_stream_adds_up_to_the_whole_answer(server: LiveServer, fields: dict[str, Any]):
    whole = chat(server, **fields, seed=5)["choices"]
    parts = assembled(chunks(server, **fields, seed=5))
    assert len(parts) == len(whole) == fields.get("n", 1)
    for choice in whole:
        part = parts[choice["index"]]
        calls = choice["message"].get("tool_calls", [])
        assert part["calls"] == [[call["function"]["name"], call["function"]["arguments"]] for call in calls]
        assert part["content"] == (choice["message"]["content"] or "")
        assert part["finish_reason"] == choice["finish_reason"]


def test_the_official_client_accumulates_calls(client: openai.OpenAI):
    with client.chat.completions.stream(
        **ASK, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    ) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    [call] = message.tool_calls
    answer = [
        *ASK["messages"],
        message.model_dump(exclude={"parsed"}, exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    for item in answer[1]["tool_calls"]:
        item["function"].pop("parsed_arguments", None)
    again = client.chat.completions.create(model="tiny", messages=answer, tools=TOOLS, max_tokens=4, tool_choice="none")
    assert again.choices[0].message.tool_calls is None


def prompt_of(server: LiveServer, **fields: Any) -> str:
    return chat(server, max_tokens=1, return_prompt_text=True, **fields)["prompt_text"]


def test_the_model_is_told_of_the_tools(server: LiveServer):
    shown = (
        '{"type": "function", "function": {"name": "weather", "description": "Rain?", "parameters": {"type": "object"'
    )
    for fields in ({}, {"tool_choice": "none"}, {"tool_choice": "required"}):
        assert shown in prompt_of(server, **fields)
    assert "weather" not in prompt_of(server, tools=None)


def tool(name: Any = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | function}


BAD = [
    ({"tools": []}, "tools"),
    ({"tools": [], "tool_choice": "none"}, "tools"),
    ({"tools": "weather"}, "tools"),
    ({"tools": [5]}, "tools.0"),
    ({"tools": [{}]}, "tools.0"),
    ({"tools": [{"type": "retrieval"}]}, "tools.0"),
    ({"tools": [{"type": "function", "function": 5}]}, "tools.0"),
    ({"tools": [tool("")]}, "tools.0.function.name"),
    ({"tools": [tool(5)]}, "tools.0.function.name"),
    ({"tools": [tool("a b")]}, "tools.0.function.name"),
    ({"tools": [tool("x" * 65)]}, "tools.0.function.name"),
    ({"tools": [tool("<|im_end|>")]}, "tools.0.function.name"),
    ({"tools": [tool(), tool()]}, "tools.1.function.name"),
    ({"tools": [tool(f"f{i}") for i in range(129)]}, "tools"),
    ({"tools": [tool(description=5)]}, "tools.0.function.description"),
    ({"tools": [tool(parameters=[])]}, "tools.0.function.parameters"),
    ({"tools": [tool(parameters={"type": 123})]}, "tools.0.function.parameters"),
    ({"tools": [tool(parameters={"type": "array"})]}, "tools.0.function.parameters"),
    ({"tools": [tool(strict="yes")]}, "tools.0.function.strict"),
    ({"tool_choice": "always"}, "tool_choice"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"tool_choice": tool("nope")}, "tool_choice.function.name"),
    ({"tool_choice": tool(None)}, "tool_choice.function.name"),
    ({"tools": None, "tool_choice": "auto"}, "tool_choice"),
    ({"tools": None, "tool_choice": "required"}, "tool_choice"),
    ({"tools": None, "tool_choice": NAMED}, "tool_choice"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"structured_outputs": {"choice": ["a"]}, "tool_choice": "required"}, "structured_outputs"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
]
# A schema is looked at where it is enforced; advisories CVE-2025-48942, 48943 and 48944 are about such ones.
BAD_SCHEMAS = [
    {"properties": {"a": {"type": "strin"}}},
    {"properties": {"a": {"type": 123}}},
    {"properties": {"a": {"type": ["string", 5]}}},
    {"properties": {"a": {"pattern": "("}}},
    {"properties": {"a": {"pattern": "a{100000}{100000}"}}},
    {"properties": {"a": {"pattern": 5}}},
    {"properties": {"a": {"$ref": "http://127.0.0.1/x"}}},
    {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
    {"properties": {"a": {"$ref": "#/nowhere"}}},
    {"properties": {"a": {"enum": "x"}}},
    {"properties": {"a": False}, "required": ["a"]},
    {"properties": []},
    {"properties": {"a": 5}},
    {"required": "a"},
    {"required": [5]},
    {"minProperties": -1},
    {"minProperties": 5, "maxProperties": 1},
    {"anyOf": []},
    {"allOf": 5},
    {"not": {}},
]


@pytest.mark.parametrize(("fields", "param"), BAD)
def test_what_is_wrong_with_tools_is_named(server: LiveServer, fields: dict[str, Any], param: str):
    response = server.post("/v1/chat/completions", ASK | {"tools": TOOLS, "max_tokens": 4} | fields)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param, response.text


@pytest.mark.parametrize("schema", BAD_SCHEMAS, ids=json.dumps)
@pytest.mark.parametrize("choice", ["required", "strict"])
def test_a_schema_that_cannot_be_enforced_is_its_tools_fault(server: LiveServer, schema: dict[str, Any], choice: str):
    tools = [TOOLS[1], tool("bad", parameters=schema, strict=choice == "strict" or None)]
    asked = {"tools": tools, "tool_choice": "auto" if choice == "strict" else "required", "max_tokens": 4}
    response = server.post("/v1/chat/completions", ASK | asked)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == "tools.1.function.parameters" and "'bad'" in error["message"]


def test_a_hint_leads_from_the_former_names_to_the_present_ones(server: LiveServer):
    for name, now in (("functions", "tools="), ("function_call", "tool_choice=")):
        response = server.post("/v1/chat/completions", ASK | {name: []})
        assert now in response.json()["error"]["message"]


def test_tools_and_no_choice_beside_a_format_are_fine(server: LiveServer):
    fields = {"response_format": {"type": "json_object"}, "tool_choice": "none", "max_tokens": 40, "seed": 1}
    message = chat(server, **fields, structured_outputs={"always_closes": True})["choices"][0]["message"]
    assert isinstance(json.loads(message["content"]), dict)
    chat(server, response_format={"type": "text"}, tool_choice="required", max_tokens=4)


# -- what a server's settings change -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tiny_model_dir: Path) -> Iterator[LiveServer]:
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, num_threads=1)
    settings = {
        "tool_call_parser": "json",
        "enable_auto_tool_choice": False,
        "exclude_tools_when_tool_choice_none": True,
    }
    with LiveServer(config, **settings) as server:
        yield server
        wait_until(server.idle)


def test_calls_may_be_written_as_json(other: LiveServer):
    fields = {"tool_choice": "required", "parallel_tool_calls": False, "seed": 3}
    [choice] = chat(other, **fields)["choices"]
    check_calls(choice["message"]["tool_calls"])
    streamed = assembled(chunks(other, **fields))[0]
    assert streamed["finish_reason"] == choice["finish_reason"] == "tool_calls"
    assert [arguments for _, arguments in streamed["calls"]] == [
        call["function"]["arguments"] for call in choice["message"]["tool_calls"]
    ]
    assert "JSON array" in prompt_of(other, tool_choice="required")


def test_what_a_server_may_refuse_or_hide(other: LiveServer):
    response = other.post("/v1/chat/completions", ASK | {"tools": TOOLS})
    assert response.status_code == 400 and response.json()["error"]["param"] == "tool_choice"
    assert "weather" not in prompt_of(other, tool_choice="none")


# -- answers that a random model would never give ----------------------------------------------------------------------


def written(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


TWO = "Let me see. " + written("now", "{}") + "\n" + written("weather", '{"city": 1}')


@pytest.mark.parametrize(
    ("choice", "text", "reason", "content", "names", "told"),
    [
        ("auto", TWO, "stop", "Let me see. ", ["now", "weather"], "tool_calls"),
        ("auto", written("f", "{}"), "stop", None, ["f"], "tool_calls"),
        ("auto", "Hello", "stop", "Hello", [], "stop"),
        ("auto", "", "stop", "", [], "stop"),
        ("auto", "Hello <tool_call> you", "length", "Hello <tool_call> you", [], "length"),
        ("required", written("f", "{}"), "stop", "", ["f"], "tool_calls"),
        ("required", '<tool_call>\n{"name": "f"', "length", '<tool_call>\n{"name": "f"', [], "length"),
        ("required", '<tool_call>\n{"name": "f"', "stop", '<tool_call>\n{"name": "f"', [], "stop"),  # a stop string
        ("named", written("f", "{}"), "stop", "", ["f"], "stop"),
    ],
)
def test_answers_are_told_as_vllm_tells_them(choice, text, reason, content, names, told):
    fields, finish_reason = ToolUse(choice).message(text, reason)
    assert (fields["content"], finish_reason) == (content, told)
    assert [call["function"]["name"] for call in fields.get("tool_calls", [])] == names
    writer = CallWriter(ToolUse(choice))
    deltas = [writer.delta(character, None)[0] for character in text]
    last, streamed_reason = writer.delta("", reason)
    parts = [delta for delta in [*deltas, last] if delta]
    assert "".join(part.get("content") or "" for part in parts) == (content or "")
    begun = [call for part in parts for call in part.get("tool_calls", []) if "id" in call]
    assert [call["function"]["name"] for call in begun] == names
    assert streamed_reason == told


def test_without_parallel_calls_the_first_one_counts():
    use = ToolUse("auto", single=True)
    assert [call["function"]["name"] for call in use.message(TWO, "stop")[0]["tool_calls"]] == ["now"]
    delta, _ = CallWriter(use).delta(TWO, "stop")
    assert {call["index"] for call in delta["tool_calls"]} == {0}


def test_a_model_that_may_also_write_text_is_constrained_only_where_asked():
    settings = ServerSettings()
    assert read_tool_use(TOOLS, "auto", None, settings).constraint is None
    assert read_tool_use(TOOLS, None, True, settings).constraint is None
    assert read_tool_use(STRICT, None, None, settings).constraint is not None
    assert read_tool_use(TOOLS, "auto", False, settings).constraint is not None
    with pytest.raises(RequestError, match="marks calls"):
        read_tool_use(STRICT, "auto", None, ServerSettings(tool_call_parser="json"))


def test_marks_of_calls_that_are_control_tokens_are_not_left_out_of_the_text():
    params = SamplingParams()
    assert ToolUse("auto").applied(params, {"<|im_end|>"}).skip_special_tokens
    assert not ToolUse("auto").applied(params, {"<|im_end|>", "<tool_call>"}).skip_special_tokens
    assert ToolUse("none").applied(params, {"<tool_call>"}).skip_special_tokens


def test_the_end_of_a_text_stands_in_no_answer(server: LiveServer):
    """Also where control tokens are told: the one that ends an answer is no part of it."""
    for skip in (True, False):
        [choice] = chat(server, tool_choice=NAMED, seed=1, skip_special_tokens=skip)["choices"]
        assert choice["message"]["content"] == "" and len(choice["message"]["tool_calls"]) == 1

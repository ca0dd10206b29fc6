"""Tool calls: what can be generated is a valid call of a known tool, and reading it back gives that call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from guided_tools import byte_level, generate
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from minillm_serve.guided.automaton.matcher import CompiledGrammar
from minillm_serve.guided.constraints import compile_constraint
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.tool_stream import ToolCall, parse_tool_calls
from minillm_serve.guided.tools import tool_constraint
from minillm_serve.params import RequestError

WEATHER = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/name"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string", "maxLength": 20}},
}
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, **({} if parameters is None else {"parameters": parameters}), **more}
    return {"type": "function", "function": function}


TOOLS = [tool("weather", WEATHER, strict=True), tool("now"), tool("note", WEATHER, strict=False)]
SCHEMAS = {"weather": WEATHER, "now": NO_ARGUMENTS, "note": {"type": "object"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def compiled(choice: Any = "auto", format: str = "hermes", parallel: bool = True) -> CompiledGrammar:
    constraint = tool_constraint(TOOLS, choice, parallel_tool_calls=parallel, format=format)
    return compile_constraint(constraint.params, byte_level())


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    matcher = grammar.matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete()


def hermes(name: str, arguments: Any) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


CITY = hermes("weather", {"city": "Aviñón", "days": 2})
NOW = hermes("now", {})


@pytest.mark.parametrize(
    ("choice", "parallel", "text", "expected"),
    [
        ("auto", True, "Hello!", True),
        ("auto", True, f"Let me see. {CITY}\n{NOW}", True),
        ("auto", True, f"{CITY} and done", True),
        ("auto", False, f"{CITY}\n{NOW}", False),
        ("auto", False, f"First: {CITY}", True),
        ("auto", True, "<tool_call> is what I would write", False),
        ("required", True, "Hello!", False),
        ("required", True, f"{CITY}{NOW}", True),
        ("required", True, f"{CITY}\n{NOW}", False),
        ("required", True, "", False),
        ("required", False, f"{CITY}{NOW}", False),
        ("required", False, NOW, True),
        (NAMED, True, CITY, True),
        (NAMED, True, NOW, False),
        (NAMED, True, f"{CITY}{CITY}", False),
    ],
)
def test_hermes_allows(choice, parallel, text, expected):
    assert accepts(compiled(choice, "hermes", parallel), text) == expected


@pytest.mark.parametrize(
    ("choice", "parallel", "text", "expected"),
    [
        ("required", True, '[{"name": "now", "arguments": {}}]', True),
        ("required", True, '[{"name": "now", "arguments": {}}, {"name": "note", "arguments": {"a": [1]}}]', True),
        ("required", True, "[]", False),
        ("required", False, '{"name": "weather", "arguments": {"city": "x"}}', True),
        ("required", False, '{"name": "weather", "arguments": {"city": 1}}', False),
        (NAMED, True, '{"name": "weather", "arguments": {"city": "x"}}', True),
        (NAMED, True, '{"name": "now", "arguments": {}}', False),
    ],
)
def test_json_allows(choice, parallel, text, expected):
    assert accepts(compiled(choice, "json", parallel), text) == expected


@pytest.mark.parametrize("format", ["hermes", "json"])
@pytest.mark.parametrize("parallel", [True, False])
def test_whatever_is_generated_is_a_valid_call(format, parallel):
    grammar = compiled("required", format, parallel)
    for seed in range(12):
        text = generate(grammar, seed)
        content, calls = parse_tool_calls(text, format)
        assert content is None and calls
        assert parallel or len(calls) == 1
        for call in calls:
            assert Draft202012Validator(SCHEMAS[call.name]).is_valid(json.loads(call.arguments)), text


def test_no_tools_or_none_leave_the_text_free():
    assert tool_constraint(TOOLS, "none") is None
    assert tool_constraint([], "auto") is None


def test_strict_decides_whether_the_schema_counts():
    grammar = compiled()
    assert not accepts(grammar, hermes("weather", {"town": 1}))
    assert accepts(grammar, hermes("note", {"town": 1}))
    unsaid = tool_constraint([tool("weather", WEATHER)], "required")
    assert not accepts(compile_constraint(unsaid.params, byte_level()), hermes("weather", {"town": 1}))


@pytest.mark.parametrize(
    ("tools", "choice", "format", "param", "part"),
    [
        ("x", "auto", "hermes", "tools", "list"),
        ([{"type": "retrieval"}], "auto", "hermes", "tools.0", "function"),
        ([tool("now"), tool("a b")], "auto", "hermes", "tools.1.function.name", "'a b'"),
        ([tool("")], "auto", "hermes", "tools.0.function.name", "must match"),
        ([tool("x" * 65)], "auto", "hermes", "tools.0.function.name", "must match"),
        ([tool("now"), tool("now")], "auto", "hermes", "tools.1.function.name", "two tools"),
        ([tool("now", [])], "auto", "hermes", "tools.0.function.parameters", "'now'"),
        ([tool("now", {"type": "array"})], "auto", "hermes", "tools.0.function.parameters", "'now'"),
        ([tool("now", strict="yes")], "auto", "hermes", "tools.0.function.strict", "'now'"),
        ([tool("now")] * 200, "auto", "hermes", "tools", "more than"),
        (TOOLS, "always", "hermes", "tool_choice", "'required'"),
        (TOOLS, {"type": "function", "function": {"name": "nope"}}, "hermes", "tool_choice.function.name", "weather"),
        ([], "required", "hermes", "tools", "at least one"),
        (TOOLS, "auto", "json", "tool_choice", "marks calls"),
        (TOOLS, "auto", "xml", "tools", "hermes"),
    ],
)
def test_what_is_wrong_names_the_field(tools, choice, format, param, part):
    with pytest.raises(RequestError) as caught:
        tool_constraint(tools, choice, format=format)
    assert caught.value.param == param
    assert part in str(caught.value)


@pytest.mark.parametrize("format", ["hermes", "json"])
def test_a_schema_that_cannot_be_enforced_is_blamed_on_its_tool(format):
    broken = {"type": "object", "properties": {"a": {"$ref": "http://x.y/z"}}}
    constraint = tool_constraint([tool("now"), tool("lookup", broken)], "required", format=format)
    with pytest.raises(SchemaError) as caught:
        compile_constraint(constraint.params, byte_level())
    blamed = constraint.blame(caught.value)
    assert blamed.param == "tools.1.function.parameters"
    assert "'lookup'" in str(blamed) and "'$ref'" in str(blamed) and "/properties/a" in str(blamed)


# -- reading calls back ------------------------------------------------------------------------------------------------

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.just("</tool_call>"), st.just("<tool_call>")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
calls = st.lists(
    st.tuples(st.sampled_from(["weather", "now"]), st.dictionaries(st.text(max_size=6), values, max_size=3)), max_size=3
)


@settings(max_examples=150, deadline=None)
@given(calls, st.sampled_from(["", "Let me see. ", "a < b "]), st.booleans(), st.sampled_from([None, 1]))
def test_calls_are_read_back_as_they_were_written(calls, before, ascii_only, indent):
    written = [
        json.dumps({"name": name, "arguments": arguments}, ensure_ascii=ascii_only, indent=indent)
        for name, arguments in calls
    ]
    content, found = parse_tool_calls(before + "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in written))
    assert [(call.name, json.loads(call.arguments)) for call in found] == calls
    assert (content or "") == before
    content, found = parse_tool_calls("[" + ", ".join(written) + "]", "json")
    assert [(call.name, json.loads(call.arguments)) for call in found] == calls
    assert content == (None if calls else "[]")


def test_arguments_keep_their_spelling():
    text = '<tool_call>{"arguments": {"x": 1.0e2, "y":"\\u00e9"}, "name": "f"}</tool_call>'
    assert parse_tool_calls(text) == (None, [ToolCall("f", '{"x": 1.0e2, "y":"\\u00e9"}')])
    assert parse_tool_calls('{"name": "f", "parameters": {}}', "json") == (None, [ToolCall("f", "{}")])


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='<>tool_ca/{}[]":,name \n\\', max_size=60), st.sampled_from(["hermes", "json"]))
def test_no_text_breaks_the_reading(text, format):
    content, found = parse_tool_calls(text, format)
    assert all(isinstance(json.loads(call.arguments), dict) for call in found)
    assert found or content == text


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "f", "arguments": {"x": 1}',
        '<tool_call>{"name": "f"}</tool_call>',
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        "<tool_call></tool_call>",
        "<tool_call>" + '{"a":' * 5_000,
    ],
)
def test_what_is_no_complete_call_stays_text(text):
    assert parse_tool_calls(text) == (text, [])
    with pytest.raises(ValueError, match="one of"):
        parse_tool_calls(text, "xml")

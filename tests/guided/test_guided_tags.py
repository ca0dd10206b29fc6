"""Structural tags: free text stays free up to a trigger, and from there on only what was announced may follow."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from guided_tools import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.guided.automaton.machine import ReferenceMachine
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.guided.budget import Budget, budget
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.free_text import until
from minillm_serve.guided.grammar.tags import build_tag_network
from minillm_serve.guided.options import JsonOptions

POINT = {
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/number"}},
    "required": ["x"],
    "additionalProperties": False,
    "$defs": {"number": {"type": "integer"}},
}
LEGACY = {
    "type": "structural_tag",
    "triggers": ["<f="],
    "structures": [
        {"begin": "<f=point>", "schema": POINT, "end": "</f>"},
        {"begin": "<f=word>", "regex": "[a-z]+", "end": "</f>"},
        {"begin": "<f=sum>", "grammar": 'root ::= [0-9] ("+" root)?', "end": ""},
    ],
}


def machine_of(tag: Any, options: JsonOptions | None = None) -> ReferenceMachine:
    with budget(Budget(seconds=30)):
        network, _ = build_tag_network(tag, options=options)
    return ReferenceMachine(network, vocab_of(byte_level(), None, None))


def of_format(format: dict[str, Any]) -> dict[str, Any]:
    return {"type": "structural_tag", "format": format}


def accepts(machine: ReferenceMachine, text: str) -> bool:
    position = machine.advance(machine.start(), text.encode())
    return position is not None and machine.complete(position)


def is_prefix(machine: ReferenceMachine, text: str) -> bool:
    return machine.advance(machine.start(), text.encode()) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "any text, even é and < and <f",
        'so: <f=point>{"x": 12}</f> and on',
        '<f=point>{"x":1}</f><f=word>abc</f>',
        "<f=sum>1+2+3 is free again",
        "<<f=word>a</f",
    ],
)
def test_text_with_tags_is_accepted(text):
    expected = not text.endswith("</f")
    assert accepts(machine_of(LEGACY), text) == expected
    assert accepts(machine_of(json.dumps(LEGACY)), text) == expected
    assert is_prefix(machine_of(LEGACY), text)


@pytest.mark.parametrize(
    "text", ["<f=", "<f=poi", "<f=point>{}", '<f=point>{"x": 1.5}', "<f=other>", "<f=word>A", "<f=word>a</f"]
)
def test_nothing_else_may_follow_a_trigger(text):
    assert not accepts(machine_of(LEGACY), text)
    assert is_prefix(machine_of(LEGACY), text) == (text in ("<f=", "<f=poi", "<f=word>a</f"))


def test_a_part_can_always_be_closed_at_its_cost():
    machine = machine_of(LEGACY)
    for text in ("", "free", "<f=", '<f=point>{"x', "<f=word>", "<f=sum>1+"):
        position = machine.advance(machine.start(), text.encode())
        while not machine.complete(position):
            before = machine.cost(position)
            options = [machine.step(position, byte) for byte in range(256)]
            position = min((p for p in options if p is not None), key=machine.cost)
            assert machine.cost(position) < before


def test_at_least_one_and_stop_after_first():
    tags = [{"begin": "<a>", "content": {"type": "const_string", "value": "1"}, "end": "</a>"}]
    for at_least_one, only_one in itertools.product((False, True), repeat=2):
        flags = {"at_least_one": at_least_one, "stop_after_first": only_one}
        machine = machine_of(of_format({"type": "triggered_tags", "triggers": ["<a>"], "tags": tags, **flags}))
        assert accepts(machine, "none") == (not at_least_one)
        assert accepts(machine, "x<a>1</a>")
        assert accepts(machine, "x<a>1</a> y") == (not only_one)
        assert accepts(machine, "x<a>1</a><a>1</a>") == (not only_one)
        machine = machine_of(of_format({"type": "tags_with_separator", "separator": ", ", "tags": tags, **flags}))
        assert accepts(machine, "") == (not at_least_one)
        assert accepts(machine, "<a>1</a>")
        assert accepts(machine, "<a>1</a>, <a>1</a>") == (not only_one)
        assert not accepts(machine, "<a>1</a><a>1</a>") and not accepts(machine, "<a>1</a>, ")


def test_formats_in_formats():
    thinking = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": ["</think>", "</t>"]}
    answer = {
        "type": "or",
        "elements": [
            {"type": "json_schema", "json_schema": POINT},
            {"type": "regex", "pattern": "yes|no"},
            {"type": "grammar", "grammar": 'start: "maybe"'},
            {"type": "const_string", "value": "é"},
        ],
    }
    machine = machine_of(of_format({"type": "sequence", "elements": [thinking, answer]}))
    for text in ('<think>hm </thin</think>{"x": 3}', "<think></t>yes", "<think>a</think>maybe", "<think>\n</t>é"):
        assert accepts(machine, text), text
    for text in ("yes", "<think>yes", "<think>a</think>perhaps", "<think>a</t></think>yes", "<think>x</think>yesno"):
        assert not accepts(machine, text), text


def test_any_text_may_have_exclusions():
    machine = machine_of(of_format({"type": "any_text", "excludes": ["bad", "ad hoc"]}))
    assert accepts(machine, "ba d, a dho") and accepts(machine, "")
    assert not is_prefix(machine, "so bad") and not is_prefix(machine, "ad hoc")


def test_json_inside_tags_follows_the_options():
    compact = machine_of(LEGACY, JsonOptions("compact"))
    assert accepts(compact, '<f=point>{"x":1}</f>') and not is_prefix(compact, '<f=point>{"x": 1')
    flexible = machine_of(LEGACY, JsonOptions("flexible"))
    assert accepts(flexible, '<f=point>\n{ "x" :1 }\n</f>')


def test_notes_say_where_they_come_from():
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "no-such-format"}}}
    _, notes = build_tag_network(LEGACY | {"structures": [{"begin": "<f=", "schema": schema, "end": "</f>"}]})
    assert any(keyword == "format" and path.startswith("/structures/0/schema/") for keyword, path, _ in notes)


markers = st.lists(st.text("ab<", min_size=1, max_size=3), min_size=1, max_size=3, unique=True)


@settings(max_examples=120, deadline=None)
@given(markers, st.lists(st.text("ab<", min_size=1, max_size=3), max_size=1), st.booleans())
def test_free_text_ends_with_the_first_marker(markers, excluded, may_end):
    """Against the definition, on all short texts."""
    dfa, meanings = until(markers, may_end, excluded)
    for length in range(6):
        for letters in itertools.product("ab<", repeat=length):
            text = "".join(letters)
            shorter = text[:-1]
            if any(word in shorter for word in (*markers, *excluded)) or any(text.endswith(word) for word in excluded):
                expected = None
            elif found := frozenset(marker for marker in markers if text.endswith(marker)):
                expected = found
            else:
                expected = frozenset() if may_end else None
            tag = dfa.match(text)
            assert (None if tag < 0 else meanings[tag]) == expected, text


@pytest.mark.parametrize(
    ("tag", "path", "part"),
    [
        ("{", "", "not JSON"),
        ([], "", "structural_tag"),
        ({"type": "json_schema"}, "", "structural_tag"),
        ({"type": "structural_tag"}, "/structures", "list of one or more"),
        (LEGACY | {"triggers": []}, "/triggers", "list of one or more"),
        (LEGACY | {"triggers": ["<g="]}, "/structures/0/begin", "none of the triggers"),
        (LEGACY | {"triggers": ["<f=", "<g="]}, "/triggers/1", "nothing begins"),
        (LEGACY | {"triggers": ["<f=p", "f"]}, "/triggers/0", "never complete"),
        (LEGACY | {"structures": ["x"]}, "/structures/0", "expected an object"),
        (LEGACY | {"structures": [{"begin": "<f=", "end": ""}]}, "/structures/0", "exactly one of"),
        (LEGACY | {"structures": [{"begin": "<f=", "schema": 3, "end": ""}]}, "/structures/0/schema", "JSON Schema"),
        (LEGACY | {"structures": [{"begin": "<f=", "regex": "a"}]}, "/structures/0/end", "a string"),
        (LEGACY | {"at_least_one": 1}, "/at_least_one", "true or false"),
        (of_format({"type": "video"}), "/format", "one of const_string"),
        (of_format({"type": "sequence", "elements": [{}]}), "/format/elements/0", "one of const_string"),
        (of_format({"type": "json_schema", "json_schema": {}, "style": "xml"}), "/format/style", "only the style"),
        (of_format({"type": "const_string", "value": "\ud800"}), "/format/value", "surrogate"),
        (of_format({"type": "const_string", "value": ""}), "/format/value", "not empty"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tag, path, part):
    with pytest.raises(SchemaError) as caught:
        machine_of(tag)
    assert (caught.value.keyword, caught.value.path) == ("structural_tag", path)
    assert part in caught.value.problem


@pytest.mark.parametrize(
    ("content", "keyword", "path"),
    [
        ({"schema": {"type": "object", "properties": {"a": {"$ref": "http://x.y/z"}}}}, "$ref", "/schema/properties/a"),
        ({"schema": {"type": "string", "minLength": 3, "maxLength": 2}}, "minLength", "/schema"),
        ({"regex": "(a"}, "regex", "/regex"),
        ({"grammar": 'root ::= "a'}, "grammar", "/grammar, line 1, column 12"),
    ],
)
def test_what_is_wrong_inside_a_part_is_placed_from_the_root(content, keyword, path):
    with pytest.raises(SchemaError) as caught:
        machine_of(LEGACY | {"structures": [{"begin": "<f=", "end": "</f>", **content}]})
    assert caught.value.keyword == keyword
    assert caught.value.path.startswith("/structures/0" + path)


def test_hostile_tags_are_answered():
    deep: dict[str, Any] = {"type": "const_string", "value": "x"}
    for _ in range(500):
        deep = {"type": "sequence", "elements": [deep]}
    many = {"type": "structural_tag", "triggers": ["<"], "structures": [
        {"begin": f"<{i}>", "regex": "a{1,50}", "end": ">"} for i in range(2_000)
    ]}  # fmt: skip
    long = LEGACY | {"triggers": ["<f=" + "x" * 5_000]}
    for tag in (of_format(deep), long, "[" * 100_000):
        with pytest.raises(SchemaError):
            machine_of(tag)
    assert accepts(machine_of(many), "a <7>aaa> b")

"""Lenient requests: what cannot be enforced is left out with a note, so that more is accepted and never less."""

from __future__ import annotations

import json
from typing import Any

import pytest
from guided_nodes import node_accepts
from guided_tools import accepts_text, byte_level
from jsonschema import Draft202012Validator

from minillm_serve.guided import JsonOptions, compile_json_schema
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.normalise import Normaliser

LENIENT = JsonOptions(lenient=True)
REMOTE = {"$ref": "http://example.org/elsewhere"}
# (schema, what is left out)
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "string", **REMOTE}, ["/$ref"]),
    ({"properties": {"a": REMOTE, "b": {"items": REMOTE}}}, ["/properties/a/$ref", "/properties/b/items/$ref"]),
    ({"$defs": {"x": {"maxLength": 2, **REMOTE}}, "items": {"$ref": "#/$defs/x"}}, ["/$defs/x/$ref"]),
    ({"not": {"type": "string", **REMOTE}, "type": ["string", "null"]}, ["/not/$ref"]),
    ({"oneOf": [{"type": "integer"}, {"minimum": 3, **REMOTE}]}, ["/oneOf/1/$ref"]),
    ({"if": REMOTE, "then": {"type": "string"}, "else": {"type": "null"}}, ["/if/$ref"]),
    ({"contains": {"type": "null", **REMOTE}, "maxContains": 1}, ["/contains/$ref"]),
    ({"not": {"type": "array", "uniqueItems": True}}, ["/not"]),
]  # fmt: skip
VALUES: list[Any] = [None, 1, 5, "", "abc", [], [None], [None, None], [1, 1], {}, {"a": "x", "b": [3]}, {"b": 1}]


@pytest.mark.parametrize(("schema", "left_out"), CASES)
def test_what_is_left_out_is_noted_and_nothing_more_is_refused(schema: dict[str, Any], left_out: list[str]) -> None:
    text = json.dumps(schema)
    with pytest.raises(SchemaError):
        Normaliser(text).run()
    normaliser = Normaliser(text, LENIENT)
    root = normaliser.run()
    assert [path for _, path, why in normaliser.notes if why.startswith("left out")] == left_out
    judge = Draft202012Validator(_with_true(schema))
    for value in VALUES:
        if judge.is_valid(value):
            assert node_accepts(root, value, normaliser), value


def _with_true(value: Any) -> Any:
    """The schema as if everything elsewhere were true, the most that a remote reference can mean outside a ``not``."""
    if isinstance(value, dict):
        return {key: _with_true(child) for key, child in value.items() if (key, child) not in REMOTE.items()}
    return [_with_true(child) for child in value] if isinstance(value, list) else value


def test_the_schema_itself_can_ask_for_it() -> None:
    schema = {"x-minillm": {"lenient": True}, "type": "string", "maxLength": 1, "pattern": r"(a)\1"}
    grammar = compile_json_schema(schema, byte_level())
    assert accepts_text(grammar, '"b"') and not accepts_text(grammar, '"bb"')
    assert [(keyword, path) for keyword, path, _ in grammar.notes] == [("pattern", "/pattern")]


def test_later_stages_can_leave_out_too() -> None:
    schema = {"type": "array", "items": {"type": "object"}, "uniqueItems": True, "maxItems": 2}
    grammar = compile_json_schema(schema, byte_level(), options=LENIENT)
    assert accepts_text(grammar, "[{}, {}]") and not accepts_text(grammar, "[{}, {}, {}]")
    assert [path for _, path, _ in grammar.notes] == ["/uniqueItems"]


@pytest.mark.parametrize(
    "schema",
    [{"type": 3}, {"$ref": "#/nowhere"}, {"enum": []}, {"allOf": [{"type": "null"}, {"type": "string"}]}, False],
)
def test_leniency_excuses_neither_malformed_nor_impossible_schemas(schema: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        Normaliser(schema, LENIENT).run()
    assert caught.value.kind in ("malformed", "unsatisfiable")

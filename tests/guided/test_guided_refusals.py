"""What cannot be honoured is refused at once, with the keyword and the place; hostile schemas are refused likewise."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import pytest
from guided_tools import accepts_text, byte_level, compiled

from minillm_serve.guided import SchemaError, compile_json_schema
from minillm_serve.guided.budget import Budget, budget
from minillm_serve.guided.grammar.json_network import build_json_network
from minillm_serve.guided.schema.normalise import Normaliser
from minillm_serve.params import RequestError

UNSUPPORTED: dict[str, Any] = {
    "pattern": {"pattern": r"(a+)b\1"},
    "uniqueItems": {"type": "array", "uniqueItems": True, "items": {"type": "object"}},
    "not": {"not": {"type": "array", "uniqueItems": True}},
    "$ref": {"$ref": "https://example.org/elsewhere"},
    "minLength": {"type": "string", "minLength": 10**9 + 1},
    "minItems": {"type": "array", "minItems": 2**64},
    "minProperties": {"type": "object", "minProperties": 2**31},
}


@pytest.mark.parametrize("keyword", UNSUPPORTED)
def test_an_unsupported_keyword_is_named_with_its_path(keyword: str) -> None:
    schema = {"type": "object", "properties": {"x/y": {"type": "array", "items": UNSUPPORTED[keyword]}}}
    with pytest.raises(SchemaError) as caught:
        compiled(schema)
    assert (caught.value.keyword, caught.value.path) == (keyword, f"/properties/x~1y/items/{keyword}")
    assert caught.value.kind == "unsupported"
    assert isinstance(caught.value, RequestError)
    assert repr(keyword) in str(caught.value) and f"/items/{keyword}" in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("requird", ["typo"]),
        ("nullable", True),
        ("contentEncoding", "base64"),
        ("$recursiveRef", "#"),
        ("format", "byte"),
    ],
)
def test_what_asserts_nothing_is_told(keyword: str, value: Any) -> None:
    schema = {"type": "object", "properties": {"x/y": {"type": "string", keyword: value}}}
    grammar = compiled(schema)
    assert [(name, path) for name, path, _ in grammar.notes] == [(keyword, f"/properties/x~1y/{keyword}")]
    assert accepts_text(grammar, '{"x/y":"anything"}')


def test_annotations_are_not_worth_a_note() -> None:
    assert not compiled({"title": "t", "description": "d", "examples": [1], "$comment": "c", "x-any": 1}).notes


def test_unreferenced_definitions_are_not_judged() -> None:
    compiled({"type": "null", "$defs": {"unused": {"$ref": "http://x"}}, "definitions": {"unused": {"type": 1}}})


MALFORMED: list[tuple[Any, str, str]] = [
    ({"type": 123}, "type", "/type"),
    ({"type": "text"}, "type", "/type"),
    ({"type": ["string", 1]}, "type", "/type"),
    ({"required": "x"}, "required", "/required"),
    ({"required": [1]}, "required", "/required"),
    ({"properties": []}, "properties", "/properties"),
    ({"properties": {"a": 1}}, "a", "/properties/a"),
    ({"additionalProperties": "no"}, "additionalProperties", "/additionalProperties"),
    ({"items": [{}], "prefixItems": [{}]}, "items", "/items"),
    ({"items": 3}, "items", "/items"),
    ({"prefixItems": {}}, "prefixItems", "/prefixItems"),
    ({"minItems": -1}, "minItems", "/minItems"),
    ({"maxLength": "5"}, "maxLength", "/maxLength"),
    ({"minLength": 1.5}, "minLength", "/minLength"),
    ({"minimum": True}, "minimum", "/minimum"),
    ({"exclusiveMinimum": True, "minimum": 1}, "exclusiveMinimum", "/exclusiveMinimum"),
    ({"enum": {}}, "enum", "/enum"),
    ({"anyOf": []}, "anyOf", "/anyOf"),
    ({"anyOf": {}}, "anyOf", "/anyOf"),
    ({"$ref": 7}, "$ref", "/$ref"),
    ({"$ref": "#/nowhere"}, "$ref", "/$ref"),
    ({"$ref": "#anchor"}, "$ref", "/$ref"),
    ({"$ref": "https://example.org/schema"}, "$ref", "/$ref"),
    ({"$ref": "#a", "$anchor": 3}, "$anchor", "/$anchor"),
    ({"$ref": "#a", "$anchor": "a", "not": {"$anchor": "a"}}, "$anchor", "/not/$anchor"),
    ({"$schema": 3}, "$schema", "/$schema"),
    ({"$schema": "http://json-schema.org/draft-03/schema#"}, "$schema", "/$schema"),
    (
        {"$schema": "https://example.org/mine", "$vocabulary": {"https://example.org/units": True}},
        "$vocabulary",
        "/$vocabulary/https:~1~1example.org~1units",
    ),
    ({"pattern": 3}, "pattern", "/pattern"),
    ({"pattern": "("}, "pattern", "/pattern"),
    ({"format": []}, "format", "/format"),
    ({"multipleOf": 0}, "multipleOf", "/multipleOf"),
    ({"multipleOf": -1.5}, "multipleOf", "/multipleOf"),
    ({"uniqueItems": "yes"}, "uniqueItems", "/uniqueItems"),
    ({"patternProperties": []}, "patternProperties", "/patternProperties"),
    ({"patternProperties": {"[": {}}, "additionalProperties": False}, "pattern", "/patternProperties/["),
    ({"propertyNames": 1}, "propertyNames", "/propertyNames"),
    ({"minProperties": -1}, "minProperties", "/minProperties"),
    ({"dependentRequired": {"a": "b"}}, "dependentRequired", "/dependentRequired/a"),
    ({"dependentSchemas": {"a": 3}}, "a", "/dependentSchemas/a"),
    ({"contains": 3}, "contains", "/contains"),
    ({"contains": {}, "maxContains": 1.5}, "maxContains", "/maxContains"),
    ({"not": 3}, "not", "/not"),
    ({"if": 3, "then": {}}, "if", "/if"),
    ({"x-minillm": {"lenient": 1}}, "lenient", "/x-minillm/lenient"),
    ({"x-minillm": {"lenien": True}}, "lenien", "/x-minillm/lenien"),
]
IMPOSSIBLE: list[tuple[Any, str, str]] = [
    (False, "false", ""),
    ({"type": []}, "type", "/type"),
    ({"enum": []}, "enum", "/enum"),
    ({"type": "string", "enum": [1]}, "enum", "/enum"),
    ({"type": "array", "minItems": 2, "maxItems": 1}, "minItems", "/minItems"),
    ({"type": "array", "minItems": 1, "items": False}, "minItems", "/minItems"),
    ({"type": "array", "contains": False}, "contains", "/contains"),
    ({"type": "object", "minProperties": 2, "maxProperties": 1}, "minProperties", "/minProperties"),
    ({"type": "object", "required": ["a"], "propertyNames": {"maxLength": 0}}, "required", "/required"),
    ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "maxProperties", "/maxProperties"),
    ({"type": "string", "not": {}}, "not", "/not"),
    ({"oneOf": [{"type": "null"}, {"type": "null"}]}, "oneOf", "/oneOf"),
    ({"type": "string", "minLength": 2, "maxLength": 1}, "minLength", "/minLength"),
    ({"type": "number", "minimum": 2, "maximum": 1}, "minimum", "/minimum"),
    ({"type": "number", "exclusiveMinimum": 1, "maximum": 1}, "exclusiveMinimum", "/exclusiveMinimum"),
    ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "minimum", "/minimum"),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "required", "/required"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "required", "/required"),
    (
        {"type": "object", "properties": {"a": {"type": "array", "minItems": 2, "maxItems": 1}}, "required": ["a"]},
        "minItems",
        "/properties/a/minItems",
    ),
    ({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}, "schema", "/properties/next"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "allOf", "/allOf"),
    ({"anyOf": [False, {"enum": []}]}, "anyOf", "/anyOf"),
]
HOSTILE: list[tuple[Any, str]] = [
    ("[" * 100_000, "schema"),
    ('{"items":' * 100_000 + "{}" + "}" * 100_000, "schema"),
    ("{", "schema"),
    ("", "schema"),
    ('{"minimum":NaN}', "minimum"),
    ('{"minimum":1e999}', "minimum"),
    ('{"minimum":1' + "0" * 5_000 + "}", "schema"),
    ('{"type":"string","type":"null"}', "type"),
    ('"string"', "schema"),
    ({"minimum": 10**5_000}, "minimum"),
    ({"properties": {"\ud800": {}}}, "properties"),
    ({"enum": ["\udfff"]}, "enum"),
    ({"const": b"bytes"}, "const"),
    ({1: 2}, "1"),
    ({"$ref": "#"}, "$ref"),
    (
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/b"}]}, "b": {"$ref": "#"}}},
        "$ref",
    ),
    ({"$ref": "#/$defs/0", "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(5_000)}}, "$ref"),
    ({"enum": [f"value {i}" for i in range(100_000)]}, "enum"),
    (
        {"allOf": [{"anyOf": [{"minimum": i} for i in range(300)]}, {"anyOf": [{"maxLength": i} for i in range(300)]}]},
        "allOf",
    ),
    (None, "schema"),
    ([], "schema"),
]


def tower(wrap: Any, levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = wrap(schema)
    return schema


NAMES = [f"p{i}" for i in range(40)]
COSTLY: dict[str, Any] = {
    "not in not": tower(lambda inner: {"not": inner}, 128),
    "if in if": tower(lambda inner: {"if": inner, "then": {"minLength": 1}}, 60),
    "oneOf in oneOf": tower(lambda inner: {"oneOf": [inner, {"minLength": 1}]}, 40),
    "anyOf times anyOf": {"allOf": [{"anyOf": [{"required": [a]}, {"required": [a + "x"]}]} for a in NAMES]},
    "dependent schemas": {"dependentSchemas": {a: {"properties": {a + "x": {"type": "integer"}}} for a in NAMES}},
    "patterns": {"patternProperties": {f"^a.*{i}": {"minimum": i} for i in range(40)}, "additionalProperties": False},
    "intersections without end": {
        "$ref": "#/$defs/0",
        "$defs": {
            str(i): {
                "properties": {"a": {"$ref": f"#/$defs/{(i + 1) % 40}"}, "b": {"$ref": f"#/$defs/{i * 7 % 40}"}},
                "allOf": [{"additionalProperties": {"$ref": f"#/$defs/{(i * 3 + 1) % 40}"}}],
            }
            for i in range(40)
        },
    },
    "a branch for each constant": {
        "oneOf": [{"properties": {"k": {"const": i}}, "required": ["k"]} for i in range(600)]
    },
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_multiplies_is_answered_or_refused_within_the_budget(name: str) -> None:
    limit = Budget(steps=200_000, seconds=60.0)
    with budget(limit):
        try:
            normaliser = Normaliser(COSTLY[name])
            build_json_network(normaliser.run(), normaliser)
        except SchemaError as error:
            assert error.kind == "unsupported"
    assert limit.left > -200_000


def test_a_collection_of_the_whole_heap_is_not_counted_as_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.thread_time()
    monkeypatch.setattr(time, "thread_time", lambda: now)

    def slow(phase: str, info: dict[str, Any]) -> None:
        nonlocal now
        now += 5.0 if phase == "stop" and info["generation"] == 2 else 0.0

    limit = Budget(seconds=1.0)
    gc.callbacks.insert(0, slow)  # called before the budget's own
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(slow)
    limit.spend(0, "schema", "")
    now += 2.0
    with pytest.raises(SchemaError, match="more work"):
        limit.spend(0, "schema", "")


@pytest.mark.parametrize(("schema", "keyword", "path"), MALFORMED + IMPOSSIBLE)
def test_malformed_and_impossible_schemas_name_what_is_to_blame(schema: Any, keyword: str, path: str) -> None:
    for form in (schema, json.dumps(schema)):
        with pytest.raises(SchemaError) as caught:
            compile_json_schema(form, byte_level())
        assert (caught.value.keyword, caught.value.path) == (keyword, path)


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_hostile_schemas_are_refused_cleanly(case: int) -> None:
    schema, keyword = HOSTILE[case]
    with pytest.raises(SchemaError) as caught:
        compile_json_schema(schema, byte_level())
    assert caught.value.keyword == keyword
    assert len(str(caught.value)) < 500
    str(caught.value).encode()


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    return schema


def test_nesting_up_to_64_objects_compiles_and_more_is_refused() -> None:
    compiled(nested(64))
    for levels in (65, 200):
        with pytest.raises(SchemaError, match="nested"):
            compiled(nested(levels))


def test_an_impossible_optional_part_is_merely_never_written() -> None:

    grammar = compiled(
        {"type": "object", "properties": {"a": {"enum": []}, "b": {"const": 1}}, "additionalProperties": False}
    )
    assert accepts_text(grammar, '{"b":1}') and accepts_text(grammar, "{}")
    assert not accepts_text(grammar, '{"a"') and not accepts_text(grammar, '{"a":1}')


def test_large_but_honest_schemas_compile() -> None:
    compiled({"properties": {f"p{i}": {"minimum": i} for i in range(1_000)}})
    compiled({"enum": [f"value{i}" for i in range(10_000)]})
    compiled({"type": "array", "items": {"type": "null"}, "minItems": 10**6, "maxItems": 10**6})
    doubling = {str(i): {"type": "array", "prefixItems": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(60)}
    compiled({"$ref": "#/$defs/0", "$defs": doubling | {"60": {}}})

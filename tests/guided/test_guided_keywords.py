"""Each keyword: which JSON texts it lets through and which it does not, over several tokenisations of each text."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from guided_tools import accepts_ids, accepts_text, compiled, dumps_all, sentencepiece_like, tokenisations

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
}
PERSON = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}},
    "required": ["b"],
    "additionalProperties": False,
}
TAGGED = {
    "oneOf": [
        {"type": "object", "properties": {"k": {"const": "n"}, "v": {"type": "integer"}}, "required": ["k", "v"]},
        {"type": "object", "properties": {"k": {"const": "s"}, "v": {"type": "string"}}, "required": ["k", "v"]},
        {"type": "null"},
    ]
}
# name: (schema, values it accepts in every writing, values it accepts in none)
CASES: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "true": (True, [1, "x", None, [], {}, {"a": [1.5, {"b": ""}]}, -1e-7, 1e22], []),
    "empty": ({}, [{"": {}}, [[]], "\u0000\u007f\u2028", "😀é"], []),
    "annotations": (
        {"title": "t", "description": "d", "default": 1, "examples": [2], "$comment": "c", "x-any": 1, "type": "null"},
        [None],
        [1],
    ),
    "type": ({"type": "string"}, ["", "é", "😀", '"\\/\b'], [1, None, True, [], {}]),
    "type list": ({"type": ["integer", "null"]}, [0, -7, None, 3.0], [1.5, "1", True]),
    "boolean": ({"type": "boolean"}, [True, False], [0, 1, "true", None]),
    "integer": ({"type": "integer"}, [0, -1, 10**20, 12.0], [0.5, "1", True, 1e-7]),
    "number": ({"type": "number"}, [0, -0.0, 1.5, 1e-9, -2.5e30, 10**20], ["1", True, None]),
    "minimum": ({"type": "integer", "minimum": -3}, [-3, 0, 99999], [-4, -30, -1000]),
    "maximum": ({"type": "number", "maximum": 1.5}, [1.5, 1, -1e20, 0.25], [1.50001, 2, 15]),
    "exclusive": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        [0.5, 0.999, 0.001, 1e-9],
        [0, 1, -0.5, 0.0, 1.0],
    ),
    "untyped bounds": ({"minimum": 5}, [5, "abc", None, [1]], [4, -5]),
    "enum": ({"enum": ["a", "é\n", 1, None, [1, {"b": 2}]]}, ["a", "é\n", 1, 1.0, None, [1, {"b": 2}]], [True, 2, "b"]),
    "enum and type": ({"enum": [1, "a", None, True], "type": ["integer", "boolean"]}, [1, True], ["a", None]),
    "const": ({"const": {"k": [0, "x"]}}, [{"k": [0, "x"]}], [{}, {"k": [0]}, {"k": [0, "x"], "z": 1}]),
    "const false is not 0": ({"const": False}, [False], [0, 0.0, None]),
    "minLength": ({"type": "string", "minLength": 2}, ["ab", "éñ", "😀😀", "\n\n"], ["", "a", "😀", "\n"]),
    "maxLength": ({"type": "string", "maxLength": 2}, ["", "ab", "😀😀", "\\\\"], ["abc", "😀😀😀", "éñé"]),
    "items": ({"type": "array", "items": {"type": "null"}}, [[], [None], [None] * 9], [[1], [None, 1]]),
    "minItems": ({"type": "array", "minItems": 2}, [[1, "a"], [[], {}, 3]], [[], [1]]),
    "maxItems": ({"type": "array", "maxItems": 2}, [[], [1], [1, 2]], [[1, 2, 3]]),
    "maxItems 0": ({"type": "array", "maxItems": 0}, [[]], [[1]]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
        [[], [1], [1, "a"]],
        [["a"], [1, 2], [1, "a", 3]],
    ),
    "items false": ({"type": "array", "items": False}, [[]], [[1]]),
    "object": (
        PERSON,
        [{"b": ""}, {"a": 1, "b": "x"}, {"b": "x", "c": None}],
        [{}, {"a": 1}, {"b": 1}, {"b": "", "d": 1}],
    ),
    "required beyond properties": (
        {"type": "object", "required": ["z"], "additionalProperties": {"type": "integer"}},
        [{"z": 1}, {"z": 1, "y": 2}],
        [{}, {"y": 1}, {"z": "1"}],
    ),
    "additionalProperties": (
        {"properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "integer"}, "type": "object"},
        [{}, {"a": None}, {"b": 1, "aa": 2}, {"a": None, "é": 3}],
        [{"a": 1}, {"b": None}, {"a": None, "b": "x"}],
    ),
    "forbidden property": (
        {"type": "object", "properties": {"a": False}},
        [{}, {"b": 1}, {"aa": 1}],
        [{"a": 1}, {"b": 2, "a": 1}],
    ),
    "strange names": (
        {
            "type": "object",
            "properties": {'"': True, "\\": True, "é😀\n": True, "": True},
            "additionalProperties": False,
        },
        [{'"': 1}, {"\\": 1}, {"é😀\n": 1}, {"": 1}, {'"': 1, "\\": 2, "é😀\n": 3, "": 4}],
        [{"e": 1}, {"\n": 1}],
    ),
    "one name begins another": (
        {"type": "object", "properties": {"ab": {"const": 1}, "a": {"const": 2}}, "additionalProperties": False},
        [{"ab": 1, "a": 2}, {"a": 2}],
        [{"ab": 2}, {"a": 1}, {"abc": 1}],
    ),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, [1, "a"], ["ab", None, 1.5]),
    "anyOf with siblings": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "additionalProperties": False,
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}],
        [{}, {"c": 1}, {"a": "x"}],
    ),
    "anyOf objects of one beginning": (
        {
            "anyOf": [
                {"type": "object", "properties": {"t": {"const": "x"}, "n": {"type": "null"}}, "required": ["t", "n"]},
                {
                    "type": "object",
                    "properties": {"t": {"const": "y"}, "n": {"type": "integer"}},
                    "required": ["t", "n"],
                },
            ]
        },
        [{"t": "x", "n": None}, {"t": "y", "n": 1}],
        [{"t": "x", "n": 1}, {"t": "y", "n": None}],
    ),
    "oneOf by tag": (
        TAGGED,
        [{"k": "n", "v": 1}, {"k": "s", "v": "1"}, None],
        [{"k": "n", "v": "1"}, {"k": "x", "v": 1}],
    ),
    "oneOf by type": ({"oneOf": [{"type": "string"}, {"type": "null"}]}, ["a", None], [1]),
    "allOf": (
        {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}, {"enum": [1, 4, 5, 6]}]},
        [4, 5],
        [1, 3, 6],
    ),
    "$ref recursive": (
        TREE,
        [{"v": 1}, {"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3}]}],
        [{}, {"v": 1, "kids": [{}]}],
    ),
    "$ref to the root": (
        {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
        [[], [[]], [[[[]]]]],
        [[[], []], [1]],
    ),
    "$ref with siblings": (
        {"$ref": "#/definitions/n", "maximum": 5, "definitions": {"n": {"type": "integer", "minimum": 3}}},
        [3, 5],
        [2, 6, "a"],
    ),
    "$ref escaped pointer": (
        {"$ref": "#/$defs/a~1b~0%25", "$defs": {"a/b~%": {"type": "null"}}},
        [None],
        [1],
    ),
    "pattern": ({"type": "string", "pattern": "^a+b?$"}, ["a", "aab"], ["", "b", "aabb", "xa"]),
    "pattern is searched for": ({"type": "string", "pattern": "b[0-9]"}, ["b1", "abb2c"], ["b", "1b"]),
    "format": ({"format": "date"}, ["2024-02-29", 1, None], ["2023-02-29", "2024-1-1", ""]),
    "pattern, format and length": (
        {"type": "string", "pattern": "^2", "format": "date", "minLength": 10, "maxLength": 10},
        ["2024-02-29"],
        ["1999-01-01", "2"],
    ),
    "enum and pattern": ({"enum": ["ab", "cd", 5], "pattern": "^a"}, ["ab", 5], ["cd"]),
    "multipleOf": ({"type": "number", "multipleOf": 0.25}, [0.5, 1, -2.25, 0], [0.3, 1.1]),
    "multipleOf and bounds": ({"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 21}, [14, 21], [7, 15, 28]),
    "patternProperties": (
        {
            "type": "object",
            "properties": {"x_a": {"minimum": 1}},
            "patternProperties": {"^x_": {"type": "integer"}, "b$": {"maximum": 9}},
            "additionalProperties": {"type": "null"},
        },
        [{}, {"x_a": 2, "x_c": 1}, {"x_b": 9, "y": None}, {"yb": "s"}],
        [{"x_a": 0}, {"x_a": "s"}, {"x_c": None}, {"x_b": 10}, {"y": 1}],
    ),
    "propertyNames": (
        {"type": "object", "propertyNames": {"pattern": "^[a-c]+$", "maxLength": 2}, "properties": {"xy": True}},
        [{}, {"a": 1, "bc": 2}],
        [{"abc": 1}, {"d": 1}, {"xy": 1}],
    ),
    "minProperties": ({"type": "object", "minProperties": 2}, [{"a": 1, "b": 2}], [{}, {"a": 1}]),
    "minProperties that are required": (
        {"type": "object", "properties": {"a": True, "b": True}, "required": ["a"], "minProperties": 1},
        [{"a": 1}, {"a": 1, "b": 2}],
        [{}, {"b": 1}],
    ),
    "maxProperties": (
        {"type": "object", "properties": {"a": True, "b": True}, "maxProperties": 1},
        [{}, {"b": 1}],
        [{"a": 1, "b": 1}],
    ),
    "dependentRequired": (
        {"type": "object", "properties": {"a": True, "b": True, "c": True}, "dependentRequired": {"a": ["c"]}},
        [{}, {"b": 1}, {"a": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}],
        [{"a": 1}, {"a": 1, "b": 1}],
    ),
    "dependentSchemas": (
        {
            "type": "object",
            "properties": {"a": True},
            "dependentSchemas": {"a": {"properties": {"b": {"const": 1}}, "required": ["b"]}},
        },
        [{}, {"b": 2}, {"a": 1, "b": 1}],
        [{"a": 1}, {"a": 1, "b": 2}],
    ),
    "uniqueItems": (
        {"type": "array", "items": {"enum": ["a", "b", 1]}, "uniqueItems": True},
        [[], ["a", 1], ["b", "a", 1]],
        [["a", "a"], [1, "a", 1], [1, 1.0]],
    ),
    "contains": (
        {"type": "array", "items": {"type": ["integer", "null"]}, "contains": {"type": "null"}, "maxContains": 1},
        [[None], [1, None], [None, 2, 3]],
        [[], [1], [None, None]],
    ),
    "not required": (
        {"type": "object", "properties": {"a": True, "b": True}, "not": {"required": ["a", "b"]}},
        [{}, {"a": 1}, {"b": 1}],
        [{"a": 1, "b": 1}],
    ),
    "oneOf that overlaps": (
        {"type": "object", "properties": {"a": True, "b": True}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}],
        [{}, {"a": 1, "b": 1}],
    ),
    "if then else": (
        {
            "type": "object",
            "properties": {"k": {"enum": [1, 2]}, "v": True},
            "required": ["k", "v"],
            "if": {"properties": {"k": {"const": 1}}},
            "then": {"properties": {"v": {"type": "string"}}},
            "else": {"properties": {"v": {"type": "null"}}},
        },
        [{"k": 1, "v": "s"}, {"k": 2, "v": None}],
        [{"k": 1, "v": None}, {"k": 2, "v": "s"}],
    ),
    "unevaluatedProperties": (
        {
            "type": "object",
            "properties": {"a": True},
            "allOf": [{"properties": {"b": True}}],
            "unevaluatedProperties": False,
        },
        [{}, {"a": 1, "b": 1}],
        [{"c": 1}, {"a": 1, "c": 1}],
    ),
    "$ref to a sibling property": (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}},
        [{"a": 1, "b": 2}],
        [{"b": "x"}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_keyword(name: str) -> None:
    schema, good, bad = CASES[name]
    for tokenizer in (None, sentencepiece_like()):
        grammar = compiled(schema, tokenizer)
        for value in good:
            for text in dumps_all(value):
                for ids in tokenisations(grammar, text):
                    assert accepts_ids(grammar, ids), text
        for value in bad:
            for text in dumps_all(value):
                for ids in tokenisations(grammar, text):
                    assert not accepts_ids(grammar, ids), text


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"b":""}', '{"a": 1, "b": ""}', '{"a":1, "b": ""}', '{"a": 1,"b":""}'],
)
def test_one_optional_space_behind_comma_and_colon(text: str) -> None:
    grammar = compiled(PERSON)
    assert all(accepts_ids(grammar, ids) for ids in tokenisations(grammar, text))


@pytest.mark.parametrize(
    "text",
    [
        ' {"b":""}', '{"b":""} ', '{ "b":""}', '{"b" :""}', '{"b":  ""}', '{"b":""\n}', '{"b":"",}', '{"b":"","a":1}',
        '{"b":"","b":""}', '{"b":""', '{"b":""}}', "", '"b"', '```{"b":""}',
    ],
)  # fmt: skip
def test_other_writings_are_not_accepted(text: str) -> None:
    grammar = compiled(PERSON)
    assert not any(accepts_ids(grammar, ids) for ids in tokenisations(grammar, text))


def some(*names: str) -> dict[str, Any]:
    return {"properties": {name: {"type": "integer"} for name in names}}


ORDERS: list[tuple[dict[str, Any], str]] = [
    ({"allOf": [some("a", "b")], **some("c", "d")}, "abcd"),
    ({**some("c", "d"), "allOf": [some("a", "b")]}, "cdab"),
    ({"allOf": [some("b")], **some("a", "b")}, "ba"),
    ({"additionalProperties": True, "anyOf": [some("b")], **some("a", "b")}, "ab"),
    ({"anyOf": [some("b")], **some("a", "b")}, "ba"),
    ({"allOf": [some("a", "b"), some("c", "a")]}, "abc"),
    ({"$ref": "#/$defs/x", **some("b"), "$defs": {"x": some("a")}}, "ab"),
    ({**some("b"), "$ref": "#/$defs/x", "$defs": {"x": some("a")}}, "ba"),
    ({"required": ["z", "y"], **some("a", "b")}, "abzy"),
    ({"required": ["z"], **some("a", "b"), "allOf": [some("c", "z")]}, "abcz"),
]


@pytest.mark.parametrize(("schema", "order"), ORDERS)
def test_properties_come_in_the_order_in_which_the_schema_names_them(schema: dict[str, Any], order: str) -> None:
    """As keywords are written, and within one schema those that are only required come last."""
    grammar = compiled({"type": "object", **schema})
    for names in permutations(order):
        text = json.dumps(dict.fromkeys(names, 1))
        assert accepts_text(grammar, text) == ("".join(names) == order), text


def test_many_optional_properties_in_order() -> None:
    names = [f"property_{i}" for i in range(300)]
    grammar = compiled(
        {"type": "object", "properties": {n: {"const": 0} for n in names}, "additionalProperties": False}
    )
    chosen = dict.fromkeys(names[::7], 0)
    for text in dumps_all(chosen)[2:]:
        assert accepts_ids(grammar, tokenisations(grammar, text)[1])
    assert not accepts_ids(grammar, tokenisations(grammar, '{"property_2":0,"property_1":0}')[1])


def test_large_counts_are_counters_and_not_copies() -> None:
    grammar = compiled({"type": "array", "items": {"type": "null"}, "minItems": 999, "maxItems": 10**6})
    [minimum] = [tokenisations(grammar, str([None] * n).replace("None", "null"))[1] for n in (999,)]
    assert accepts_ids(grammar, minimum)
    assert not accepts_ids(grammar, tokenisations(grammar, str([None] * 998).replace("None", "null"))[1])
    strings = compiled({"type": "string", "minLength": 10**6, "maxLength": 10**7})
    assert not accepts_ids(strings, tokenisations(strings, '"abc"')[1])

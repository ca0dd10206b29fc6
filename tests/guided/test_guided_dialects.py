"""Drafts: keywords mean what the draft named by ``$schema`` says; jsonschema's validator of that draft is the judge."""

from __future__ import annotations

from typing import Any

import pytest
from guided_nodes import node_accepts
from guided_tools import accepts_text, byte_level
from jsonschema import validators

from minillm_serve.guided import compile_json_schema
from minillm_serve.guided.schema.normalise import Normaliser

URIS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}
SCHEMAS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "boolean exclusive bounds": (
        {"minimum": 2, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False},
        (4,),
    ),
    "exclusive bounds": ({"exclusiveMinimum": 2, "exclusiveMaximum": 5}, (6, 7, 2019, 2020)),
    "array of items": ({"items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False}, (4, 6, 7, 2019)),
    "additionalItems": ({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}}, (4, 6, 7, 2019)),
    "additionalItems beside one schema": ({"items": {"type": "integer"}, "additionalItems": False}, (4, 6, 7, 2019)),
    "additionalItems alone": ({"additionalItems": {"type": "integer"}}, (6, 7, 2019, 2020)),
    "prefixItems": ({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}}, tuple(URIS)),
    "dependencies": ({"dependencies": {"a": ["b"], "b": {"minProperties": 2}}}, tuple(URIS)),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, tuple(URIS)),
    "dependentSchemas": ({"dependentSchemas": {"a": {"required": ["b"]}}}, tuple(URIS)),
    "const": ({"const": 3}, tuple(URIS)),
    "contains": ({"contains": {"type": "null"}}, tuple(URIS)),
    "counted contains": ({"contains": {"type": "null"}, "minContains": 2, "maxContains": 2}, tuple(URIS)),
    "minContains 0": ({"contains": {"type": "null"}, "minContains": 0}, (2019, 2020)),
    "propertyNames": ({"propertyNames": {"maxLength": 0}}, tuple(URIS)),
    "if": ({"if": {"type": "integer"}, "then": {"minimum": 4}, "else": {"type": "array"}}, tuple(URIS)),
    "then without if": ({"then": {"type": "null"}, "else": {"type": "null"}}, tuple(URIS)),
    "unevaluatedProperties": ({"properties": {"a": {}}, "unevaluatedProperties": False}, tuple(URIS)),
    "integer": ({"type": "integer"}, tuple(URIS)),
    "multipleOf": ({"multipleOf": 0.5}, tuple(URIS)),
    "booleans": ({"properties": {"a": False, "b": True}}, tuple(URIS)),
    "no schema is empty": ({}, tuple(URIS)),
    "type list": ({"type": ["integer", "string", "null"]}, tuple(URIS)),
    "a part in no known draft": ({"items": {"$schema": "anything", "minimum": 2}}, (4, 2020)),
    "a part in another draft": (
        {"items": {"$schema": URIS[4], "minimum": 2, "exclusiveMinimum": True, "items": {"const": 1}}, "maxItems": 1},
        (7, 2020),
    ),
    "a reference from a part in another draft": (
        {
            "additionalProperties": {"$schema": URIS[4], "items": {"$ref": "#/$defs/x"}},
            "items": {"$ref": "#/$defs/x"},
            "$defs": {"x": {"const": 1}},
        },
        (7, 2020),
    ),
}
VALUES: list[Any] = [
    None, True, 0, 2, 3, 3.25, 4, 4.5, 5, 6, "", "a", [], [1], [None], [1, None], [1, "a"], [1, "a", 2], [None, None],
    ["a"], [None, 1, None, None], {}, {"": 1}, {"a": 1}, {"b": 1}, {"a": 1, "b": 2}, {"a": None, "c": 3},
    {"a": [1]}, {"a": [2]}, [[1]], [3],
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "draft"), [(name, draft) for name, (_, drafts) in SCHEMAS.items() for draft in drafts]
)
def test_keywords_mean_what_the_draft_says(name: str, draft: int) -> None:
    schema = {"$schema": URIS[draft], **SCHEMAS[name][0]}
    normaliser = Normaliser(schema)
    root = normaliser.run()
    validator = validators.validator_for(schema)(schema)
    for value in VALUES:
        assert node_accepts(root, value, normaliser) == validator.is_valid(value), value


@pytest.mark.parametrize(
    ("draft", "keyword", "value"),
    [
        (4, "const", 1),
        (4, "contains", {}),
        (6, "if", {}),
        (7, "prefixItems", []),
        (2019, "dependencies", {}),
        (2020, "additionalItems", False),
        (2020, "$recursiveRef", "#"),
    ],
)
def test_a_keyword_of_another_draft_is_noted(draft: int, keyword: str, value: Any) -> None:
    normaliser = Normaliser({"$schema": URIS[draft], "not": {"required": ["z"], keyword: value}})
    normaliser.run()
    assert [(name, path) for name, path, _ in normaliser.notes] == [(keyword, f"/not/{keyword}")]


def test_up_to_draft_4_an_integer_has_no_point() -> None:
    for schema in ({"enum": [1], "type": "integer"}, {"type": "integer"}, {"not": {"enum": [2]}, "type": "integer"}):
        old, new = (compile_json_schema({"$schema": URIS[draft], **schema}, byte_level()) for draft in (4, 6))
        assert accepts_text(old, "1") and not accepts_text(old, "1.0")
        assert accepts_text(new, "1") and accepts_text(new, "1.0")


def test_without_a_known_dialect_it_is_the_latest() -> None:
    for declared in ({}, {"$schema": "http://json-schema.org/schema#"}, {"$schema": "https://example.org/mine"}):
        assert Normaliser({**declared, "type": "null"}).draft == 2020


def test_an_array_of_items_is_understood_in_the_latest_draft_too() -> None:
    normaliser = Normaliser({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}})
    root = normaliser.run()
    assert node_accepts(root, [1, None], normaliser)
    assert not node_accepts(root, [None], normaliser) and not node_accepts(root, [1, 1], normaliser)

"""References: which subschema each one leads to, and that names outside the document are never followed."""

from __future__ import annotations

from typing import Any

import pytest
from guided_nodes import node_accepts
from jsonschema import validators

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.normalise import Normaliser

VALUES = [None, True, 0, 7, 3.5, "", "text", [], [1], ["a"], [["a"]], {}, {"a": 1}, {"a": {"a": "x"}}, {"b": [None]}]
INSIDE_Q = {"type": "object", "properties": {"q": {"$recursiveRef": "#"}}}
STRING, NUMBER = {"type": "string"}, {"type": "integer"}


def judged(schema: dict[str, Any]) -> list[bool]:
    """What each of VALUES is, by the normalised form; jsonschema must agree."""
    normaliser = Normaliser(schema)
    root = normaliser.run()
    found = [node_accepts(root, value, normaliser) for value in VALUES]
    validator = validators.validator_for(schema)(schema)
    assert found == [validator.is_valid(value) for value in VALUES]
    return found


SAME_AS_STRING: dict[str, dict[str, Any]] = {
    "pointer": {"$ref": "#/$defs/s", "$defs": {"s": STRING}},
    "escapes": {"$ref": "#/$defs/a~1b~0c%25%20d", "$defs": {"a/b~c% d": STRING}},
    "index": {"$ref": "#/anyOf/1", "anyOf": [NUMBER, STRING]},
    "chain": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/s"}]}, "s": STRING},
    },
    "anchor": {"$ref": "#here", "$defs": {"x": {"$anchor": "here", **STRING}}},
    "anchor deep inside": {"$ref": "#here", "$defs": {"x": {"not": {"items": {"$anchor": "here", **STRING}}}}},
    "embedded": {"$ref": "http://a.org/s", "$defs": {"x": {"$id": "http://a.org/s", **STRING}}},
    "relative to the root's name": {
        "$id": "http://a.org/d/root",
        "$ref": "s",
        "$defs": {"x": {"$id": "/d/s", **STRING}},
    },
    "the root by its name": {
        "$id": "http://a.org/root",
        "$ref": "http://a.org/root#/$defs/s",
        "$defs": {"s": STRING},
    },
    "a pointer inside an embedded part": {
        "$ref": "http://a.org/s",
        "$defs": {"s": NUMBER, "x": {"$id": "http://a.org/s", "$ref": "#/$defs/s", "$defs": {"s": STRING}}},
    },
    "an anchor of an embedded part": {
        "$ref": "http://a.org/s#here",
        "$defs": {
            "n": {"$anchor": "here", **NUMBER},
            "x": {"$id": "http://a.org/s", "$defs": {"s": {"$anchor": "here", **STRING}}},
        },
    },
    "urn": {"$ref": "urn:x:s#/$defs/s", "$defs": {"x": {"$id": "urn:x:s", "$defs": {"s": STRING}}}},
    "a constant that looks like a name": {
        "$ref": "http://a.org/s",
        "$defs": {"c": {"const": {"$id": "http://a.org/s", **NUMBER}}, "x": {"$id": "http://a.org/s", **STRING}},
    },
    "draft 7 anchor": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "allOf": [{"$ref": "#here"}],
        "definitions": {"x": {"$id": "#here", **STRING}},
    },
    "draft 4 id": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": "http://a.org/root.json",
        "$ref": "s.json",
        "definitions": {"x": {"id": "s.json", **STRING}},
    },
    "draft 4 has no $id": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "$ref": "#/definitions/s",
        "definitions": {"s": {"$id": 3, **STRING}},
    },
    "dynamic anchor, the only one": {"$dynamicRef": "#d", "$defs": {"x": {"$dynamicAnchor": "d", **STRING}}},
    "dynamic reference to a plain anchor": {"$dynamicRef": "#d", "$defs": {"x": {"$anchor": "d", **STRING}}},
    "recursive reference without recursive anchors": {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$ref": "http://a.org/s",
        "$defs": {
            "x": {"$id": "http://a.org/s", "anyOf": [STRING, {"required": ["q"], **INSIDE_Q}]},
        },
    },
}


@pytest.mark.parametrize("name", SAME_AS_STRING)
def test_a_reference_leads_to_the_string(name: str) -> None:
    assert judged(SAME_AS_STRING[name]) == [isinstance(value, str) for value in VALUES]


def test_siblings_of_a_reference_hold_from_2019_on_and_not_before() -> None:
    body = {"$ref": "#/definitions/s", "maxLength": 2, "definitions": {"s": STRING}}
    assert judged(body)[VALUES.index("text")] is False
    for draft in ("draft-04", "draft-06", "draft-07"):
        old = {"$schema": f"http://json-schema.org/{draft}/schema#", **body}
        assert judged(old)[VALUES.index("text")] is True
        normaliser = Normaliser(old)
        normaliser.run()
        assert [(keyword, path) for keyword, path, _ in normaliser.notes] == [("maxLength", "/maxLength")]


def test_recursion_through_members_items_and_unions() -> None:
    judged({"anyOf": [STRING, {"type": "array", "items": {"$ref": "#"}}]})
    either = {"x": {"anyOf": [{"$ref": "#"}, STRING]}}
    judged({"type": "object", "additionalProperties": {"$ref": "#/$defs/x"}, "$defs": either})
    lists = {"list": {"items": {"$ref": "#/$defs/list"}}}
    judged({"allOf": [{"$ref": "#/$defs/list"}, {"maxItems": 1}], "$defs": lists})


def test_the_intersection_of_recursive_schemas_is_finite() -> None:
    tree = {"properties": {"a": {"$ref": "#/$defs/tree"}}, "type": ["object", "integer"]}
    strings = {"additionalProperties": {"$ref": "#/$defs/strings"}, "type": ["object", "string"]}
    judged(
        {"allOf": [{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/strings"}], "$defs": {"tree": tree, "strings": strings}}
    )


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"$ref": "http://a.org/other"}, "$ref", "/$ref", "unsupported"),
    ({"$ref": "other.json#/a"}, "$ref", "/$ref", "unsupported"),
    ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "$ref", "/$ref", "unsupported"),
    ({"$ref": "#/$defs/none"}, "$ref", "/$ref", "malformed"),
    ({"$ref": "#none"}, "$ref", "/$ref", "malformed"),
    ({"items": {"$ref": "#/items/x/0"}}, "$ref", "/items/$ref", "malformed"),
    ({"$ref": "#/anyOf/01", "anyOf": [{}, {}]}, "$ref", "/$ref", "malformed"),
    ({"$ref": "#/title", "title": "t"}, "title", "/title", "malformed"),
    ({"$ref": "http://[bad"}, "$ref", "/$ref", "unsupported"),
    ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "$ref", "", "malformed"),
]


@pytest.mark.parametrize(("schema", "keyword", "path", "kind"), REFUSED)
def test_what_leads_nowhere_is_refused(schema: dict[str, Any], keyword: str, path: str, kind: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Normaliser(schema).run()
    assert (caught.value.keyword, caught.value.path, caught.value.kind) == (keyword, path, kind)


def test_only_what_is_reached_is_read() -> None:
    schema = {
        "type": "null",
        "$defs": {"bad": {"type": 3, "$ref": "http://a.org"}},
        "properties": {"a": {"pattern": 3}},
    }
    assert judged({**schema, "$defs": {}, "properties": {}})[0]
    Normaliser(schema).run()


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/0", "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(3_000)}},
        {"$ref": "#/$defs/0", "$defs": {str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 9} for i in range(3_000)}},
        {"$ref": "#a" * 10_000},
        {"$ref": "#" + "/x" * 100_000},
        {"$id": "http://a.org/" + "x/" * 10_000, "$ref": "../" * 10_000},
    ],
    ids=["chain", "wide chain", "long name", "long pointer", "long path"],
)
def test_hostile_references_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        Normaliser(schema).run()


def test_a_dynamic_reference_leads_to_the_outermost_anchor_on_the_way() -> None:
    generic = {
        "$id": "http://a.org/list",
        "type": "array",
        "items": {"$dynamicRef": "#item"},
        "$defs": {"any": {"$dynamicAnchor": "item"}},
    }
    texts, nulls = (
        {"$id": f"http://a.org/{kind}", "$ref": "list", "$defs": {"i": {"$dynamicAnchor": "item", "type": kind}}}
        for kind in ("string", "null")
    )
    schema = {
        "$id": "http://a.org/root",
        "properties": {"a": {"$ref": "string"}, "b": {"$ref": "null"}},
        "$defs": {"generic": generic, "texts": texts, "nulls": nulls},
    }
    normaliser = Normaliser(schema)
    root = normaliser.run()
    assert node_accepts(root, {"a": ["x"], "b": [None]}, normaliser)
    assert not node_accepts(root, {"a": [None]}, normaliser) and not node_accepts(root, {"b": ["x"]}, normaliser)

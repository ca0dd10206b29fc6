"""Random object and array schemas, over all keywords about members and items, and random instances for them."""

from __future__ import annotations

import random
from typing import Any

NAMES = ["a", "b", "c", "x1", "x2", "é"]
_VALUES: list[Any] = [
    {"type": "integer", "minimum": 0, "maximum": 3},
    {"type": "boolean"},
    {"enum": ["p", "q", 1]},
    {"type": "string", "maxLength": 2},
    {"type": "array", "items": {"const": 1}, "maxItems": 2},
    {"type": "object", "required": ["a"], "properties": {"a": {"type": "null"}}, "additionalProperties": False},
    True,
]
_NARROW: list[Any] = [{"const": 1}, {"type": "integer"}, {"type": "string"}, {"enum": ["p", True]}, True, False]
_ITEMS: list[Any] = [
    {"enum": ["a", "b", "é", 1, 2.5, None]},
    {"type": "integer", "minimum": 0, "maximum": 3},
    {"type": "string", "maxLength": 1},
    {"type": ["boolean", "null"]},
    {"type": "number"},
    {"type": "string", "pattern": "^[ab]$"},
]


def random_object(rng: random.Random) -> dict[str, Any]:
    """An object schema with a few of the keywords that say which members there may be."""
    names = rng.sample(NAMES, rng.randint(0, 4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: rng.choice(_VALUES) for name in names}}
    if rng.random() < 0.5:
        schema["required"] = rng.sample(NAMES, rng.randint(0, 2))
    if rng.random() < 0.5:
        schema["additionalProperties"] = rng.choice([False, False, {"type": "integer"}, True])
    if rng.random() < 0.3:
        schema["patternProperties"] = {
            pattern: rng.choice(_NARROW) for pattern in rng.sample(["^x", "2$", "^[ab]$", "^x[12]$"], rng.randint(1, 2))
        }
    if rng.random() < 0.25:
        schema["propertyNames"] = rng.choice([{"maxLength": 1}, {"pattern": "^[a-c]$"}, {"enum": ["a", "b", "x1"]}])
    if rng.random() < 0.3:
        schema["minProperties"] = rng.randint(1, 3)
    if rng.random() < 0.3:
        schema["maxProperties"] = rng.randint(1, 3)
    if rng.random() < 0.3:
        keys = rng.sample(NAMES, 2)
        schema["dependentRequired"] = {key: rng.sample(NAMES, rng.randint(1, 2)) for key in keys}
    if rng.random() < 0.25:
        schema["not"] = rng.choice(
            [
                {"required": ["a"]},
                {"required": ["a", "b"]},
                {"properties": {"a": {"const": 1}}},
                {"patternProperties": {"^x": {"type": "integer"}}},
                {"additionalProperties": {"type": "integer"}},
                {"propertyNames": {"maxLength": 1}},
                {"minProperties": 2},
            ]
        )
    return schema


def random_array(rng: random.Random) -> dict[str, Any]:
    """An array schema with a few of the keywords that say which items there may be."""
    schema: dict[str, Any] = {"type": "array", "items": rng.choice(_ITEMS)}
    if rng.random() < 0.3:
        schema["prefixItems"] = [rng.choice([*_ITEMS, True]) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.4:
        schema["minItems"] = rng.randint(0, 3)
    if rng.random() < 0.4:
        schema["maxItems"] = rng.randint(0, 4)
    if rng.random() < 0.4 and "prefixItems" not in schema:
        schema["uniqueItems"] = True
    elif rng.random() < 0.5:
        schema["contains"] = rng.choice([{"const": 1}, {"type": "string"}, {"type": "integer", "maximum": 1}])
        if rng.random() < 0.5:
            schema["minContains"] = rng.randint(0, 2)
        if rng.random() < 0.5:
            schema["maxContains"] = rng.randint(0, 2)
    return schema


def random_schema(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    schema = random_object(rng) if rng.random() < 0.65 else random_array(rng)
    if rng.random() < 0.15:
        return {"anyOf": [schema, random_object(rng)]}
    if rng.random() < 0.15:
        return {"type": "object", "properties": {"in": schema}, "required": ["in"]}
    return schema


def random_instance(rng: random.Random, schema: dict[str, Any]) -> Any:
    """A value that is a likely one for ``schema``."""
    if "anyOf" in schema:
        return random_instance(rng, rng.choice(schema["anyOf"]))
    if schema.get("properties", {}).keys() == {"in"}:
        return {"in": random_instance(rng, schema["properties"]["in"])}
    if schema.get("type") == "array":
        scalars = ["a", "b", "é", 1, 2, 2.5, None, True, 0, "", "zz"]
        return [rng.choice(scalars) for _ in range(rng.randint(0, 4))]
    names = rng.sample([*NAMES, "z"], rng.randint(0, 4))
    likely = [0, 1, 1, 2, True, "p", "q", "long", [1], [1, 1], {"a": None}, {}, None]
    return {name: rng.choice(likely) for name in names}

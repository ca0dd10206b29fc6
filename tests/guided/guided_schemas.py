"""Random schemas over everything that is supported, by seed."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ["a", "ab", "b", "name", "é", '"q"', "x y", "", "😀", "\n", "a/b~", "\\"]
_CONSTANTS = [1, 2.0, "a", "é", 'a"b', None, True, [1, {"a": 2}], {"k": []}, -0.5, "😀", 1e-7, "", 10**20, "\t"]
_EDGES = [0, -5, 3, 0.5, -2.25, 1e-7, 100, -1000, 2**53 + 1, 0.1, -0.3]
_DEFINITIONS = {
    "tree": {
        "type": "object",
        "properties": {
            "v": {"type": "integer"},
            "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
        },
        "required": ["v"],
        "additionalProperties": False,
    },
    "list": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/list"}, "minItems": 1}]},
    "short": {"type": "string", "minLength": 1, "maxLength": 3},
}
_LEAVES = ["string", "integer", "number", "boolean", "null", "enum"]


def random_schema(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    schema = _schema(rng, 0)
    return {**(schema if isinstance(schema, dict) else {}), "$defs": _DEFINITIONS}


def _schema(rng: random.Random, depth: int) -> Any:
    nested = ["object", "object", "array", "anyOf", "any", "$ref", "types", "allOf"]
    kind = rng.choice(_LEAVES + nested if depth < 3 else _LEAVES)
    match kind:
        case "object":
            return _object(rng, depth)
        case "array":
            return _array(rng, depth)
        case "string":
            return {"type": "string"} | _bounds(rng, "minLength", "maxLength", 6)
        case "integer" | "number":
            return {"type": kind} | _interval(rng)
        case "enum":
            return rng.choice([{"enum": rng.sample(_CONSTANTS, rng.randint(1, 5))}, {"const": rng.choice(_CONSTANTS)}])
        case "anyOf":
            return {"anyOf": [_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
        case "allOf":
            return {"allOf": [{"maxLength": 4}, _schema(rng, depth + 1)]}
        case "any":
            return rng.choice([{}, True, {"title": "x"}])
        case "$ref":
            return {"$ref": "#/$defs/" + rng.choice(list(_DEFINITIONS))}
        case "types":
            types = rng.sample(["string", "integer", "null", "boolean", "array", "number"], rng.randint(1, 3))
            return {"type": types, "minimum": rng.randint(-3, 3), "maxLength": rng.randint(0, 5)}
    return {"type": kind}


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_NAMES, rng.randint(0, 4))
    schema: dict[str, Any] = {"type": "object", "properties": {name: _schema(rng, depth + 1) for name in names}}
    schema["required"] = [name for name in names if rng.random() < 0.5]
    choice = rng.random()
    if choice < 0.5:
        schema["additionalProperties"] = False
    elif choice < 0.75:
        schema["additionalProperties"] = _schema(rng, depth + 1)
    return schema


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    schema = {"type": "array", "items": _schema(rng, depth + 1)} | _bounds(rng, "minItems", "maxItems", 3)
    if rng.random() < 0.2:
        schema["prefixItems"] = [_schema(rng, depth + 1) for _ in range(rng.randint(1, 2))]
    return schema


def _bounds(rng: random.Random, least: str, most: str, span: int) -> dict[str, int]:
    low = rng.randint(0, span)
    both = {least: low, most: low + rng.randint(0, span)}
    return {key: value for key, value in both.items() if rng.random() < 0.6}


def _interval(rng: random.Random) -> dict[str, float]:
    low = rng.choice(_EDGES)
    high = low + rng.choice([0, 1, 7, 0.25, 1000, 1e20])
    found: dict[str, float] = {}
    if rng.random() < 0.6:
        found[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.6:
        found[rng.choice(["maximum", "exclusiveMaximum"])] = high
    return found

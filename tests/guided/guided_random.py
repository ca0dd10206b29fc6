"""Random schemas made of every keyword, and random instances that have something to do with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

NAMES = ("a", "b", "ab", "c")
PATTERNS = ("^a", "b$", "^[ab]+$", "c", "^.{2}$", "^(?!b)")
FORMATS = ("date", "uuid")
TEXTS = ("", "a", "b", "ab", "bc", "cab", "2024-02-29", "1.2.3.4", "é", "aaaa")
NUMBERS = (0, 1, 2, 3, 6, -1, 0.5, 1.5, 2.0, 10)
TYPES = ("null", "boolean", "object", "array", "number", "integer", "string")


class SchemaMaker:
    """Draws schemas of at most ``size`` keywords or so; small constants, so that they meet each other often."""

    def __init__(self, seed: int, size: int = 10):
        self.rng = random.Random(seed)
        self.left = size
        self.has_definitions = self.rng.random() < 0.3

    def document(self) -> Any:
        schema = self.schema(4)
        if isinstance(schema, dict) and self.has_definitions:
            schema["$defs"] = {"x": self.schema(2, definitions=True), "y": self.schema(2, definitions=True)}
        return schema

    def schema(self, depth: int, definitions: bool = False) -> Any:
        rng = self.rng
        if depth <= 0 or self.left <= 0:
            return rng.choice((True, True, False, {"type": rng.choice(TYPES)}))
        if rng.random() < 0.06:
            return rng.random() < 0.6
        made: dict[str, Any] = {}
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
            self.left -= 1
            keyword = rng.choice(tuple(KEYWORDS))
            made[keyword] = KEYWORDS[keyword](self, depth - 1)
        if rng.random() < 0.15 and self.has_definitions and not definitions:
            made["$ref"] = rng.choice(("#/$defs/x", "#/$defs/y"))
        if "if" in made and rng.random() < 0.8:
            made["then"] = self.schema(depth - 1)
            if rng.random() < 0.5:
                made["else"] = self.schema(depth - 1)
        if "contains" in made and rng.random() < 0.5:
            made["minContains"], made["maxContains"] = rng.choice(((0, 1), (1, 1), (1, 2), (2, 3), (0, 0)))
        if rng.random() < 0.5:
            order = list(made)
            rng.shuffle(order)
            made = {keyword: made[keyword] for keyword in order}
        return made

    def members(self, depth: int) -> dict[str, Any]:
        return {name: self.schema(depth) for name in self.rng.sample(NAMES, self.rng.choice((1, 1, 2, 3)))}

    def branches(self, depth: int) -> list[Any]:
        return [self.schema(depth) for _ in range(self.rng.choice((1, 2, 2, 3)))]

    def names(self) -> list[str]:
        return self.rng.sample(NAMES, self.rng.choice((1, 1, 2)))

    def value(self, depth: int = 2) -> Any:
        return value(self.rng, depth)


Maker = Callable[[SchemaMaker, int], Any]
KEYWORDS: dict[str, Maker] = {
    "type": lambda m, d: m.rng.choice(TYPES) if m.rng.random() < 0.6 else m.rng.sample(TYPES, m.rng.choice((2, 2, 3))),
    "enum": lambda m, d: [m.value(1) for _ in range(m.rng.choice((1, 2, 3)))],
    "const": lambda m, d: m.value(1),
    "minimum": lambda m, d: m.rng.choice(NUMBERS),
    "maximum": lambda m, d: m.rng.choice(NUMBERS),
    "exclusiveMinimum": lambda m, d: m.rng.choice(NUMBERS),
    "multipleOf": lambda m, d: m.rng.choice((1, 2, 3, 0.5)),
    "minLength": lambda m, d: m.rng.choice((0, 1, 2)),
    "maxLength": lambda m, d: m.rng.choice((0, 1, 2, 3)),
    "pattern": lambda m, d: m.rng.choice(PATTERNS),
    "format": lambda m, d: m.rng.choice(FORMATS),
    "properties": lambda m, d: m.members(d),
    "required": lambda m, d: m.names(),
    "additionalProperties": lambda m, d: m.schema(d),
    "patternProperties": lambda m, d: {pattern: m.schema(d) for pattern in m.rng.sample(PATTERNS, 1)},
    "propertyNames": lambda m, d: m.schema(d),
    "minProperties": lambda m, d: m.rng.choice((0, 1, 2)),
    "maxProperties": lambda m, d: m.rng.choice((0, 1, 2, 3)),
    "dependentRequired": lambda m, d: {m.rng.choice(NAMES): m.names()},
    "dependentSchemas": lambda m, d: {m.rng.choice(NAMES): m.schema(d)},
    "items": lambda m, d: m.schema(d),
    "prefixItems": lambda m, d: m.branches(d),
    "minItems": lambda m, d: m.rng.choice((0, 1, 2)),
    "maxItems": lambda m, d: m.rng.choice((0, 1, 2, 3)),
    "uniqueItems": lambda m, d: m.rng.random() < 0.7,
    "contains": lambda m, d: m.schema(d),
    "allOf": lambda m, d: m.branches(d),
    "anyOf": lambda m, d: m.branches(d),
    "oneOf": lambda m, d: m.branches(d),
    "not": lambda m, d: m.schema(d),
    "if": lambda m, d: m.schema(d),
    "unevaluatedProperties": lambda m, d: m.schema(d) if m.rng.random() < 0.4 else False,
    "unevaluatedItems": lambda m, d: m.schema(d) if m.rng.random() < 0.4 else False,
}


def value(rng: random.Random, depth: int = 3) -> Any:
    """A JSON value of the same small vocabulary."""
    kind = rng.random()
    if depth > 0 and kind < 0.35:
        return {name: value(rng, depth - 1) for name in rng.sample(NAMES, rng.choice((0, 1, 1, 2, 3)))}
    if depth > 0 and kind < 0.55:
        return [value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    if kind < 0.75:
        return rng.choice(TEXTS)
    return rng.choice((*NUMBERS, True, False, None))


def instances(schema: Any, seed: int, count: int) -> list[Any]:
    """Random values, and values and parts of values that stand in the schema."""
    rng = random.Random(seed)
    found = [value(rng) for _ in range(count)]
    stack = [schema]
    while stack and len(found) < 2 * count:
        part = stack.pop()
        if isinstance(part, dict):
            found += [part[key] for key in ("const",) if key in part] + list(part.get("enum", ()))
            stack += part.values()
        elif isinstance(part, list):
            stack += part
    return found

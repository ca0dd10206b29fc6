"""An interpreter of the normalised form, independent of automata and grammars: does a node accept a Python value?"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator

from minillm_serve.guided.schema.graph import Graph
from minillm_serve.guided.schema.nodes import (
    Alternative,
    ArraySchema,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    Pattern,
    StringSchema,
    json_key,
    kind_of,
)

FORMATS = Draft202012Validator.FORMAT_CHECKER


def node_accepts(node: Node, value: Any, graph: Graph) -> bool:
    return any(alternative_accepts(alternative, value, graph) for alternative in graph.resolve(node))


def alternative_accepts(alternative: Alternative, value: Any, graph: Graph) -> bool:
    kind = kind_of(value)
    match alternative:
        case LiteralSchema(values):
            return kind not in ("array", "object") and json_key(value) in map(json_key, values)
        case StringSchema():
            return kind == "string" and string_accepts(alternative, value)
        case NumberSchema():
            return kind == "number" and number_accepts(alternative, value)
        case ArraySchema():
            return kind == "array" and array_accepts(alternative, value, graph)
        case ObjectSchema():
            return kind == "object" and object_accepts(alternative, value, graph)
    raise TypeError(alternative)


def pattern_matches(pattern: Pattern, text: str) -> bool:
    matches = FORMATS.conforms(text, pattern.text) if pattern.is_format else bool(re.search(pattern.text, text))
    return matches != pattern.negated


def string_accepts(schema: StringSchema, text: str) -> bool:
    longest = schema.max_length
    return (
        schema.min_length <= len(text)
        and (longest is None or len(text) <= longest)
        and text not in schema.excluded
        and all(pattern_matches(pattern, text) for pattern in schema.patterns)
    )


def number_accepts(schema: NumberSchema, value: int | float) -> bool:
    whole = value == int(value)
    return (
        schema.interval.contains(value)
        and (whole or not schema.integer)
        and not (whole and schema.fractional)
        and value not in schema.excluded
        and all(_divides(step, value) for step in schema.multiples)
        and not any(_divides(step, value) for step in schema.not_multiples)
    )


def _divides(step: Fraction, value: int | float) -> bool:
    return (value % step.numerator if step.denominator == 1 else (value / float(step)) % 1) == 0


def equal_key(value: Any) -> Any:
    """Equal for values that are the same JSON value."""
    if isinstance(value, dict):
        return "object", frozenset((key, equal_key(child)) for key, child in value.items())
    if isinstance(value, list):
        return "array", tuple(map(equal_key, value))
    return json_key(value)


def array_accepts(schema: ArraySchema, items: list, graph: Graph) -> bool:
    if len(items) < schema.min_items or (schema.max_items is not None and len(items) > schema.max_items):
        return False
    if schema.unique and len({equal_key(item) for item in items}) < len(items):
        return False
    for rule in schema.contains:
        found = sum(node_accepts(rule.node, item, graph) for item in items[rule.start :])
        if found < rule.low or (rule.high is not None and found > rule.high):
            return False
    nodes = [*schema.prefix, *[schema.items] * len(items)]
    return all(node_accepts(node, item, graph) for node, item in zip(nodes, items, strict=False))


def object_accepts(schema: ObjectSchema, members: dict[str, Any], graph: Graph) -> bool:
    if not schema.required <= members.keys():
        return False
    if len(members) < schema.min_properties:
        return False
    if schema.max_properties is not None and len(members) > schema.max_properties:
        return False
    if any(name in members and not others <= members.keys() for name, others in schema.dependents.items()):
        return False
    if schema.names is not None:
        for name in members:
            if not any(alternative_accepts(names, name, graph) for names in schema.names):
                return False
    for witness in schema.witnesses:
        if not any(
            string_accepts(witness.names, name) and node_accepts(witness.node, value, graph)
            for name, value in members.items()
        ):
            return False
    return all(member_accepts(schema, name, value, graph) for name, value in members.items())


def member_accepts(schema: ObjectSchema, name: str, value: Any, graph: Graph) -> bool:
    if name in schema.properties:
        return node_accepts(schema.properties[name], value, graph)
    matched = [node for pattern, node in schema.patterns if pattern_matches(pattern, name)]
    return all(node_accepts(node, value, graph) for node in matched or [schema.extra])

"""Fewer alternatives with the same meaning: without those that accept nothing, or no more than another one does."""

from __future__ import annotations

from collections.abc import Hashable

from minillm_serve.guided.budget import spend
from minillm_serve.guided.schema.algebra import item_at, with_one_literal
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.nodes import (
    ANY,
    Alternative,
    ArraySchema,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    StringSchema,
    json_key,
)
from minillm_serve.guided.text.languages import accepts, may_have_strings, string_is_empty
from minillm_serve.guided.text.number_sets import number_is_empty

MAX_COMPARED = 20  # alternatives; comparing each with each is quadratic
MAX_PAIRS = 64
DEPTH = 3


def simplified(alternatives: Alternatives, graph: Graph, path: str = "") -> Alternatives:
    """A union that accepts the same values. The order of what is left does not change. path: for messages."""
    if alternatives is ANY.alternatives:
        return alternatives
    found: dict[Hashable, Alternative] = {}
    for alternative in with_one_literal(alternatives):
        spend(20, "schema", path)
        key = shape(alternative)
        if key not in found and not plainly_empty(alternative, graph):
            found[key] = alternative
    left = tuple(found.values())
    return _uncovered(left, graph) if 1 < len(left) <= MAX_COMPARED else left


def _uncovered(alternatives: Alternatives, graph: Graph) -> Alternatives:
    kept: list[Alternative] = []
    for index, alternative in enumerate(alternatives):
        others = (*kept, *alternatives[index + 1 :])
        if not any(covers(other, alternative, graph) for other in others):
            kept.append(alternative)
    return tuple(kept)


def shape(alternative: Alternative) -> Hashable:
    """A key that is equal for alternatives made of equal parts (nodes are compared by identity)."""
    match alternative:
        case StringSchema(low, high, patterns, excluded):
            return "string", low, high, frozenset(patterns), excluded
        case NumberSchema() as a:
            multiples = frozenset(a.multiples), frozenset(a.not_multiples)
            return "number", a.interval, a.integer, a.fractional, multiples, a.excluded
        case LiteralSchema(values, doubtful):
            return "literal", frozenset(map(json_key, values)), frozenset(map(json_key, doubtful))
        case ArraySchema() as a:
            return "array", a.prefix, a.items, a.min_items, a.max_items, a.unique, frozenset(a.contains)
        case ObjectSchema() as a:
            names = None if a.names is None else frozenset(map(shape, a.names))
            dependents = frozenset((name, frozenset(others)) for name, others in a.dependents.items())
            witnesses = frozenset((shape(w.names), w.node) for w in a.witnesses)
            properties = tuple(a.properties.items())
            patterns = frozenset(a.patterns)
            counts = a.min_properties, a.max_properties
            return "object", properties, a.required, a.extra, patterns, names, counts, dependents, witnesses
    raise TypeError(type(alternative).__name__)


# -- emptiness ---------------------------------------------------------------------------------------------------------


def plainly_empty(alternative: Alternative, graph: Graph, depth: int = DEPTH) -> bool:
    """True only if it is easily seen that ``alternative`` accepts nothing."""
    match alternative:
        case StringSchema():
            return string_is_empty(alternative) and not may_have_strings(alternative)
        case NumberSchema():
            return number_is_empty(alternative)
        case LiteralSchema(values, doubtful):
            return not values and not doubtful
        case ArraySchema() as a:
            if a.max_items is not None and a.min_items > a.max_items:
                return True
            needed = a.prefix[: a.min_items] + ((a.items,) if a.min_items > len(a.prefix) else ())
            return any(plainly_false(node, graph, depth) for node in dict.fromkeys(needed))
        case ObjectSchema() as a:
            if a.max_properties is not None and max(a.min_properties, len(a.required)) > a.max_properties:
                return True
            return any(plainly_false(a.properties[name], graph, depth) for name in a.required)
    return False


def plainly_false(node: Node, graph: Graph, depth: int = DEPTH) -> bool:
    """True only if it is easily seen that ``node`` accepts nothing."""
    if node.is_false:
        return True
    if depth <= 0 or node is ANY:
        return False
    alternatives = graph.peek(node)
    return alternatives is not None and all(plainly_empty(a, graph, depth - 1) for a in alternatives)


# -- inclusion ---------------------------------------------------------------------------------------------------------


def covers(a: Alternative, b: Alternative, graph: Graph, depth: int = DEPTH) -> bool:
    """True only if it is easily seen that ``a`` accepts everything that ``b`` accepts."""
    if a is b:
        return True
    match a, b:
        case _, LiteralSchema(values, doubtful):
            return all(_accepts(a, value) for value in (*values, *doubtful))
        case StringSchema(), StringSchema():
            shorter = a.max_length is None or (b.max_length is not None and b.max_length <= a.max_length)
            longer = b.min_length >= a.min_length
            return shorter and longer and set(a.patterns) <= set(b.patterns) and a.excluded <= b.excluded
        case NumberSchema(), NumberSchema():
            return (
                a.interval.meet(b.interval) == b.interval
                and (b.integer or not a.integer)
                and (b.fractional or not a.fractional)
                and set(a.multiples) <= set(b.multiples)
                and set(a.not_multiples) <= set(b.not_multiples)
                and all(value in b.excluded or not accepts(b, value) for value in a.excluded)
            )
        case ArraySchema(), ArraySchema():
            return _covers_array(a, b, graph, depth)
        case ObjectSchema(), ObjectSchema():
            return _covers_object(a, b, graph, depth)
    return False


def _accepts(a: Alternative, value: object) -> bool:
    if isinstance(a, LiteralSchema):
        return json_key(value) in set(map(json_key, a.values))
    return isinstance(a, (StringSchema, NumberSchema)) and accepts(a, value)


def node_covers(a: Node, b: Node, graph: Graph, depth: int) -> bool:
    if a is b or a is ANY or b.is_false:
        return True
    if depth <= 0 or a.is_false or b is ANY:
        return False
    wide, narrow = graph.peek(a), graph.peek(b)
    if wide is None or narrow is None or len(wide) * len(narrow) > MAX_PAIRS:
        return False
    return all(any(covers(x, y, graph, depth - 1) for x in wide) for y in narrow)


def _covers_array(a: ArraySchema, b: ArraySchema, graph: Graph, depth: int) -> bool:
    if a.min_items > b.min_items or (a.unique and not b.unique) or not set(a.contains) <= set(b.contains):
        return False
    if a.max_items is not None and (b.max_items is None or b.max_items > a.max_items):
        return False
    length = max(len(a.prefix), len(b.prefix))
    pairs = {(item_at(a, i), item_at(b, i)) for i in range(length + 1)}
    return all(node_covers(x, y, graph, depth - 1) for x, y in pairs)


def _covers_object(a: ObjectSchema, b: ObjectSchema, graph: Graph, depth: int) -> bool:
    if not a.required <= b.required or a.min_properties > max(b.min_properties, len(b.required)):
        return False
    if a.max_properties is not None and (b.max_properties is None or b.max_properties > a.max_properties):
        return False
    witnesses = {(shape(w.names), w.node) for w in b.witnesses}
    if any((shape(w.names), w.node) not in witnesses for w in a.witnesses):
        return False
    if any(not others <= b.dependents.get(name, frozenset()) for name, others in a.dependents.items()):
        return False
    if not _same_rest(a, b):
        return False
    names = a.properties.keys() if _any_rest(a) else a.properties.keys() | b.properties.keys()
    return all(_covers_value(a, b, name, graph, depth) for name in names)


def _covers_value(a: ObjectSchema, b: ObjectSchema, name: str, graph: Graph, depth: int) -> bool:
    wide = a.properties.get(name, ANY if _any_rest(a) else None if a.patterns else a.extra)
    narrow = b.properties.get(name, None if b.patterns else b.extra)
    if wide is ANY:
        return True
    return wide is not None and narrow is not None and node_covers(wide, narrow, graph, depth - 1)


def _any_rest(schema: ObjectSchema) -> bool:
    return schema.extra is ANY and all(node is ANY for _, node in schema.patterns)


def _same_rest(a: ObjectSchema, b: ObjectSchema) -> bool:
    """Is what ``a`` says about further members no more than what ``b`` says?"""
    names = None if a.names is None else set(map(shape, a.names))
    if names is not None and (b.names is None or set(map(shape, b.names)) != names):
        return False
    if _any_rest(a):
        return True
    if b.extra.is_false and not b.patterns:
        return True
    return a.extra is b.extra and set(a.patterns) == set(b.patterns)

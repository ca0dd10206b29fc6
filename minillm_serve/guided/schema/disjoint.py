"""Can two nodes accept the same value? Proofs that they cannot, to a bounded depth."""

from __future__ import annotations

from itertools import product

from minillm_serve.guided.budget import spend
from minillm_serve.guided.schema.algebra import item_at
from minillm_serve.guided.schema.graph import Graph
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
from minillm_serve.guided.schema.simplify import plainly_false
from minillm_serve.guided.text.languages import may_accept, strings_disjoint
from minillm_serve.guided.text.number_sets import numbers_disjoint

MAX_PAIRS = 4_000
DEPTH = 4


def disjoint(a: Node, b: Node, graph: Graph, depth: int = DEPTH) -> bool:
    """True only when it is proven that no value satisfies both nodes."""
    if a.is_false or b.is_false:
        return True
    if a is b or a is ANY or b is ANY:
        return depth > 0 and plainly_false(b if a is ANY else a, graph, 1)
    if a.opposite is b:
        return True
    if depth <= 0:
        return False
    left, right = graph.peek(a), graph.peek(b)
    if left is None or right is None or len(left) * len(right) > MAX_PAIRS:
        return False
    return all(apart(x, y, graph, depth) for x, y in product(left, right))


def apart(a: Alternative, b: Alternative, graph: Graph, depth: int = DEPTH) -> bool:
    """True only when it is proven that no value satisfies both alternatives."""
    spend(5, "oneOf")
    match a, b:
        case LiteralSchema(), LiteralSchema():
            return set(map(json_key, a.possible)).isdisjoint(map(json_key, b.possible))
        case LiteralSchema(), _:
            return not any(may_accept(b, value) for value in a.possible)
        case _, LiteralSchema():
            return not any(may_accept(a, value) for value in b.possible)
        case StringSchema(), StringSchema():
            return strings_disjoint(a, b)
        case NumberSchema(), NumberSchema():
            return numbers_disjoint(a, b)
        case ArraySchema(), ArraySchema():
            return _arrays(a, b, graph, depth)
        case ObjectSchema(), ObjectSchema():
            return _objects(a, b, graph, depth)
    return type(a) is not type(b)


def _arrays(a: ArraySchema, b: ArraySchema, graph: Graph, depth: int) -> bool:
    if (a.max_items is not None and a.max_items < b.min_items) or (
        b.max_items is not None and b.max_items < a.min_items
    ):
        return True
    shared = min(max(a.min_items, b.min_items), max(len(a.prefix), len(b.prefix)) + 1)
    return any(disjoint(item_at(a, i), item_at(b, i), graph, depth - 1) for i in range(shared))


def _objects(a: ObjectSchema, b: ObjectSchema, graph: Graph, depth: int) -> bool:
    for x, y in ((a, b), (b, a)):
        if y.max_properties is not None and y.max_properties < max(x.min_properties, len(x.required)):
            return True
    needed = sorted(a.required | b.required, key=lambda name: name not in a.required or name not in b.required)
    for name in needed:
        left, right = _value(a, name), _value(b, name)
        if left is not None and right is not None and disjoint(left, right, graph, depth - 1):
            return True
    return False


def _value(schema: ObjectSchema, name: str) -> Node | None:
    """The node for the member ``name``; None where it would have to be worked out from patterns."""
    if name in schema.properties:
        return schema.properties[name]
    return None if schema.patterns or schema.names is not None else schema.extra

"""Complements and differences of nodes.

By De Morgan's laws, what a union of alternatives refuses is the intersection of what each refuses. It is worked out as
a difference: from everything, one alternative after the other is taken away. A part that has nothing in common with
the alternative stays as it is, one that lies inside it goes, and of another one the intersections with the ways to
violate the alternative are left. Children are complemented lazily and once, which keeps recursive schemas finite.
"""

from __future__ import annotations

from dataclasses import replace

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.disjoint import apart
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.nodes import (
    ANY,
    NEVER,
    Alternative,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    StringSchema,
    json_key,
    kind_of,
)
from minillm_serve.guided.schema.simplify import covers, node_covers, plainly_empty, simplified
from minillm_serve.guided.schema.violations import violations
from minillm_serve.guided.text.languages import accepts, may_accept

MAX_LEFT = 3_000


def complement(node: Node, graph: Graph) -> Node:
    """The node for what ``node`` refuses; the complement of that is ``node`` itself.

    Its alternatives are worked out when needed. That raises :class:`SchemaError` for ``not`` where a complement
    cannot be expressed (of uniqueItems) or expands to too many alternatives.
    """
    if node is ANY:
        return NEVER
    if node.is_false:
        return ANY
    if node.opposite is None:
        node.opposite = graph.add(node.path, lambda: _refused(node, graph))
        node.opposite.opposite = node
    return node.opposite


def _refused(node: Node, graph: Graph) -> Alternatives:
    return without(ANY.alternatives, graph.resolve(node), graph, "not", node.path)  # type: ignore[arg-type]


def without(left: Alternatives, others: Alternatives, graph: Graph, keyword: str, path: str) -> Alternatives:
    """What ``left`` accepts and none of ``others`` does. Properties keep the order of ``left``.

    Raises :class:`SchemaError` for ``keyword`` at ``path`` if that cannot be expressed or takes too many alternatives.
    """
    for other in others:
        if not left:
            break
        changed = [part for x in left for part in _minus(x, other, graph, keyword, path)]
        if len(changed) > MAX_LEFT:
            raise SchemaError(keyword, path, "its complement expands to too many alternatives")
        if any(a is not b for a, b in zip(changed, left, strict=False)) or len(changed) != len(left):
            left = simplified(tuple(changed), graph, path)
    return left


def _minus(x: Alternative, other: Alternative, graph: Graph, keyword: str, path: str) -> Alternatives:
    """The parts of ``x`` that ``other`` refuses; ``x`` itself if they have nothing in common."""
    spend(10, keyword, path)
    if isinstance(x, LiteralSchema):
        return _constants_without(x, other)
    if isinstance(other, LiteralSchema):
        return (_excluding(x, other),)
    if apart(x, other, graph):
        return (x,)
    if covers(other, x, graph):
        return ()
    found: list[Alternative] = []
    told = _told_apart(x, other, graph) if isinstance(x, ObjectSchema) and isinstance(other, ObjectSchema) else None
    for way in violations(other, lambda node: complement(node, graph), graph, keyword, path):
        spend(20, keyword, path)
        if told is not None and told[0] not in way.properties:  # type: ignore[union-attr]
            way = _with_constant(way, *told)  # type: ignore[arg-type]
        found.extend(met for met in graph.meet((x,), (way,), keyword, path) if not plainly_empty(met, graph))
    return tuple(found)


def _constants_without(x: LiteralSchema, other: Alternative) -> Alternatives:
    if isinstance(other, LiteralSchema):
        sure, may = (set(map(json_key, values)) for values in (other.values, other.possible))
        kept = tuple(value for value in x.values if json_key(value) not in may)
        doubtful = tuple(value for value in x.possible if json_key(value) not in sure)
    else:
        kept = tuple(value for value in x.values if not may_accept(other, value))
        doubtful = tuple(value for value in x.possible if not accepts(other, value))
    if len(kept) == len(x.values) and len(doubtful) == len(x.possible):
        return (x,)
    keys = set(map(json_key, kept))
    doubtful = tuple(value for value in doubtful if json_key(value) not in keys)
    return (LiteralSchema(kept, doubtful),) if kept or doubtful else ()


def _excluding(x: Alternative, other: LiteralSchema) -> Alternative:
    if isinstance(x, (StringSchema, NumberSchema)):
        kind = "string" if isinstance(x, StringSchema) else "number"
        values = frozenset(value for value in other.possible if kind_of(value) == kind and may_accept(x, value))
        return replace(x, excluded=x.excluded | values) if values - x.excluded else x
    return x


def _told_apart(x: ObjectSchema, other: ObjectSchema, graph: Graph) -> tuple[str, Node] | None:
    """(name, node) of a member by whose constant value ``other`` is told from its siblings.

    Other violations are only looked for where that member is right, so that the parts of a difference do not overlap
    and what is taken away next finds only one of them.
    """
    for name in other.required:
        node = other.properties[name]
        constants = graph.peek(node)
        if constants and all(isinstance(a, LiteralSchema) for a in constants):
            mine = x.properties.get(name)
            known = mine is not None and name in x.required and node_covers(node, mine, graph, 2)
            return None if known else (name, node)
    return None


def _with_constant(way: ObjectSchema, name: str, node: Node) -> ObjectSchema:
    return replace(
        way,
        properties={**way.properties, name: node},
        required=way.required | {name},
        undeclared=way.undeclared | {name},
    )

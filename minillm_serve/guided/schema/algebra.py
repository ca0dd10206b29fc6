"""What two alternatives both accept: the intersection on which ``allOf``, ``$ref`` and every other combination rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from minillm_serve.guided.budget import spend
from minillm_serve.guided.schema.nodes import (
    ANY,
    Alternative,
    ArraySchema,
    Contains,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    StringSchema,
    json_key,
    kind_of,
)
from minillm_serve.guided.schema.object_algebra import meet_objects
from minillm_serve.guided.text.languages import accepted_texts, accepts, doubtful_values, may_accept

Both = Callable[[Node, Node], Node]  # the node for what two nodes both accept, made lazily
T = TypeVar("T")


def meet_all(left: tuple[Alternative, ...], right: tuple[Alternative, ...], both: Both) -> tuple[Alternative, ...]:
    """Everything accepted by one of ``left`` and by one of ``right``; properties keep the order of ``left``."""
    if left is ANY.alternatives:
        return right
    if right is ANY.alternatives:
        return left
    partners: dict[type, list[Alternative]] = {}
    for kind in {type(a) for a in left}:
        partners[kind] = [b for b in right if type(b) in _PARTNERS[kind]]
    found: list[Alternative] = []
    for a in left:
        spend(20 * len(partners[type(a)]), "allOf")
        met = (meet(a, b, both) for b in partners[type(a)])
        found.extend(alternative for alternative in met if alternative is not None)
    return tuple(found)


_PARTNERS: dict[type, tuple[type, ...]] = {
    ObjectSchema: (ObjectSchema,),
    ArraySchema: (ArraySchema,),
    StringSchema: (StringSchema, LiteralSchema),
    NumberSchema: (NumberSchema, LiteralSchema),
    LiteralSchema: (LiteralSchema, StringSchema, NumberSchema),
}


def meet(a: Alternative, b: Alternative, both: Both) -> Alternative | None:
    """What ``a`` and ``b`` both accept; None when that is plainly nothing."""
    if isinstance(a, ObjectSchema) and isinstance(b, ObjectSchema):
        return meet_objects(a, b, both, meet_all)
    match a, b:
        case LiteralSchema(), _:
            return _literal(a, b)
        case _, LiteralSchema():
            return _literal(b, a)
        case StringSchema(), StringSchema():
            return _strings(a, b)
        case NumberSchema(), NumberSchema():
            return _numbers(a, b)
        case ArraySchema(), ArraySchema():
            return _arrays(a, b, both)
    return None


def _literal(literal: LiteralSchema, other: Alternative) -> LiteralSchema | None:
    if isinstance(other, LiteralSchema):
        kept, doubtful = _constants_of_both(literal, other)
    elif isinstance(other, StringSchema):
        texts = [value for value in literal.values if isinstance(value, str)]
        kept = accepted_texts(other, texts)
        sure = set(kept)
        doubtful = doubtful_values(other, [text for text in texts if text not in sure])
    else:
        numbers = [value for value in literal.values if kind_of(value) == "number"]
        kept = tuple(value for value in numbers if accepts(other, value))
        sure = set(kept)
        doubtful = doubtful_values(other, [value for value in numbers if value not in sure])
    if literal.doubtful and not isinstance(other, LiteralSchema):
        doubtful += tuple(value for value in literal.doubtful if may_accept(other, value))
    return LiteralSchema(kept, doubtful) if kept or doubtful else None


def _constants_of_both(a: LiteralSchema, b: LiteralSchema) -> tuple[tuple, tuple]:
    """(values, doubtful) of the intersection."""
    sure = set(map(json_key, b.values))
    kept = tuple(value for value in a.values if json_key(value) in sure)
    if not a.doubtful and not b.doubtful:
        return kept, ()
    keys, may = set(map(json_key, kept)), set(map(json_key, b.possible))
    return kept, tuple(v for v in a.possible if json_key(v) in may and json_key(v) not in keys)


def _strings(a: StringSchema, b: StringSchema) -> StringSchema | None:
    low, high = max(a.min_length, b.min_length), smaller(a.max_length, b.max_length)
    if high is not None and low > high:
        return None
    patterns = merged(a.patterns, b.patterns)
    if len(patterns) > 1:
        asked = {(p.text, p.is_format, p.negated) for p in patterns}
        if any((text, is_format, not negated) in asked for text, is_format, negated in asked):
            return None
    return StringSchema(low, high, patterns, a.excluded | b.excluded)


def _numbers(a: NumberSchema, b: NumberSchema) -> NumberSchema | None:
    interval = a.interval.meet(b.interval)
    integer, fractional = a.integer or b.integer, a.fractional or b.fractional
    if interval.empty or (integer and fractional):
        return None
    multiples = merged(a.multiples, b.multiples)
    not_multiples = merged(a.not_multiples, b.not_multiples)
    if not set(multiples).isdisjoint(not_multiples):
        return None
    return NumberSchema(interval, integer, fractional, multiples, not_multiples, a.excluded | b.excluded)


def _arrays(a: ArraySchema, b: ArraySchema, both: Both) -> ArraySchema | None:
    length = max(len(a.prefix), len(b.prefix))
    prefix = tuple(both(item_at(a, i), item_at(b, i)) for i in range(length))
    low, high = max(a.min_items, b.min_items), smaller(a.max_items, b.max_items)
    contains = merge_contains((*a.contains, *b.contains))
    if contains is None:
        return None
    return array_of(prefix, both(a.items, b.items), low, high, a.unique or b.unique, contains)


def array_of(
    prefix: tuple[Node, ...],
    items: Node,
    low: int,
    high: int | None,
    unique: bool = False,
    contains: tuple[Contains, ...] = (),
) -> ArraySchema | None:
    """An array schema whose length is bounded by the first item that nothing satisfies; None if no length is left."""
    if any(node.is_false for node in prefix):
        high = smaller(high, next(i for i, node in enumerate(prefix) if node.is_false))
    elif items.is_false:
        high = smaller(high, len(prefix))
    if any(rule.low > 0 and rule.node.is_false for rule in contains):
        return None
    if high is not None:
        if low > high or any(rule.low > max(0, high - rule.start) for rule in contains):
            return None
        prefix, unique = prefix[:high], unique and high > 1
    return ArraySchema(prefix, items, low, high, unique, contains)


def merge_contains(rules: tuple[Contains, ...]) -> tuple[Contains, ...] | None:
    """Rules about the same items as one; None when they contradict each other."""
    found: dict[tuple[Node, int], Contains] = {}
    for rule in rules:
        same = found.get((rule.node, rule.start))
        if same is not None:
            rule = Contains(rule.node, max(rule.low, same.low), smaller(rule.high, same.high), rule.start)
        if rule.high is not None and rule.low > rule.high:
            return None
        found[rule.node, rule.start] = rule
    return tuple(found.values())


def with_one_literal(alternatives: tuple[Alternative, ...]) -> tuple[Alternative, ...]:
    """The same union with all constants in one alternative, at the place of the first of them."""
    literals = [alternative for alternative in alternatives if isinstance(alternative, LiteralSchema)]
    if len(literals) < 2:
        return alternatives
    values: dict = {}
    for literal in literals:
        for value in literal.values:
            values.setdefault(json_key(value), value)
    doubtful = {json_key(value): value for literal in literals for value in literal.doubtful}
    one = LiteralSchema(tuple(values.values()), tuple(v for key, v in doubtful.items() if key not in values))
    return tuple(
        one if alternative is literals[0] else alternative
        for alternative in alternatives
        if alternative is literals[0] or not isinstance(alternative, LiteralSchema)
    )


def merged(a: tuple[T, ...], b: tuple[T, ...]) -> tuple[T, ...]:
    """Both, each element once."""
    return a if not b else b if not a else tuple(dict.fromkeys((*a, *b)))


def smaller(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def item_at(array: ArraySchema, index: int) -> Node:
    return array.prefix[index] if index < len(array.prefix) else array.items

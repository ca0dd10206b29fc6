"""Set algebra on alternatives: what both accept (``meet``), and whether two can be told apart (``disjoint``)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, product

from minillm_serve.guided.schema.nodes import (
    ANY,
    NEVER,
    Alternative,
    ArraySchema,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    StringSchema,
    allows_scalar,
    json_key,
)

Both = Callable[[Node, Node], Node]  # the node for what two nodes both accept, made lazily
Resolve = Callable[[Node], tuple[Alternative, ...]]


def meet_all(left: tuple[Alternative, ...], right: tuple[Alternative, ...], both: Both) -> tuple[Alternative, ...]:
    """Everything accepted by one of ``left`` and by one of ``right``."""
    if left is ANY.alternatives:
        return right
    if right is ANY.alternatives:
        return left
    met = (meet(a, b, both) for a, b in product(left, right))
    return tuple(alternative for alternative in met if alternative is not None)


def meet(a: Alternative, b: Alternative, both: Both) -> Alternative | None:
    """What ``a`` and ``b`` both accept; None when that is plainly nothing."""
    match a, b:
        case LiteralSchema(values), _:
            return _literal(values, b)
        case _, LiteralSchema(values):
            return _literal(values, a)
        case StringSchema(), StringSchema():
            string = StringSchema(max(a.min_length, b.min_length), _smaller(a.max_length, b.max_length))
            return None if string.max_length is not None and string.min_length > string.max_length else string
        case NumberSchema(), NumberSchema():
            interval = a.interval.meet(b.interval)
            return None if interval.empty else NumberSchema(interval, a.integer or b.integer)
        case ArraySchema(), ArraySchema():
            length = max(len(a.prefix), len(b.prefix))
            prefix = tuple(both(item_at(a, i), item_at(b, i)) for i in range(length))
            array = ArraySchema(
                prefix,
                both(a.items, b.items),
                max(a.min_items, b.min_items),
                _smaller(a.max_items, b.max_items),
            )
            return None if array.max_items is not None and array.min_items > array.max_items else array
        case ObjectSchema(), ObjectSchema():
            names = dict.fromkeys(chain(a.properties, b.properties))
            properties = {name: both(value_at(a, name), value_at(b, name)) for name in names}
            return ObjectSchema(properties, a.required | b.required, both(a.extra, b.extra))
    return None


def _literal(values: tuple, other: Alternative) -> LiteralSchema | None:
    if isinstance(other, LiteralSchema):
        keys = {json_key(value) for value in other.values}
        kept = tuple(value for value in values if json_key(value) in keys)
    else:
        kept = tuple(value for value in values if allows_scalar(other, value))
    return LiteralSchema(kept) if kept else None


def _smaller(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def item_at(array: ArraySchema, index: int) -> Node:
    return array.prefix[index] if index < len(array.prefix) else array.items


def value_at(schema: ObjectSchema, name: str) -> Node:
    return schema.properties.get(name, schema.extra)


def disjoint(a: Node, b: Node, resolve: Resolve, depth: int = 3) -> bool:
    """True only when it is proven that no value satisfies both nodes."""
    if NEVER in (a, b):
        return True
    if a is b or depth == 0 or a.busy or b.busy:
        return False
    return all(_disjoint(x, y, resolve, depth) for x, y in product(resolve(a), resolve(b)))


def _disjoint(a: Alternative, b: Alternative, resolve: Resolve, depth: int) -> bool:
    match a, b:
        case ArraySchema(), ArraySchema():
            if _apart(a.min_items, a.max_items, b.min_items, b.max_items):
                return True
            shared = min(a.min_items, b.min_items, max(len(a.prefix), len(b.prefix)) + 1)
            return any(disjoint(item_at(a, i), item_at(b, i), resolve, depth - 1) for i in range(shared))
        case ObjectSchema(), ObjectSchema():
            return any(
                disjoint(value_at(a, name), value_at(b, name), resolve, depth - 1) for name in a.required & b.required
            ) or any(
                not value_at(y, name).busy and not resolve(value_at(y, name))
                for x, y in ((a, b), (b, a))
                for name in x.required
            )
    return meet(a, b, lambda x, y: x) is None


def _apart(min_a: int, max_a: int | None, min_b: int, max_b: int | None) -> bool:
    return (max_a is not None and max_a < min_b) or (max_b is not None and max_b < min_a)

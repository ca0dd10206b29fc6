"""Normalised schemas, networks and leaves as lines for people; nothing here decides anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from minillm_serve.guided.grammar.network import RETURN, Arc, Bytes, Call, Leaf, Literals, Network, Read
from minillm_serve.guided.schema.nodes import (
    Alternative,
    ArraySchema,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    Pattern,
    StringSchema,
)

MAX_SHOWN = 8  # of a list: enum values, properties, targets
MAX_CHARS = 60  # of one text

Name = Callable[[Node], str]


def show_alternative(schema: Alternative, name: Name) -> str:
    """One line for an alternative of a node; ``name`` gives the other nodes their names."""
    match schema:
        case LiteralSchema(values):
            return "one of " + listed(map(show_text, values))
        case StringSchema():
            return _joined("string", _string(schema))
        case NumberSchema():
            return _joined("integer" if schema.integer else "number", _number(schema))
        case ArraySchema():
            return _joined("array", _array(schema, name))
        case ObjectSchema():
            return _joined("object", _object(schema, name))
    raise TypeError(f"no alternative of a node: {schema!r}")


def children(schema: Alternative) -> list[Node]:
    """The nodes that an alternative speaks of."""
    if isinstance(schema, ArraySchema):
        return [*schema.prefix, schema.items, *(part.node for part in schema.contains)]
    if isinstance(schema, ObjectSchema):
        patterns = [node for _, node in schema.patterns]
        return [*schema.properties.values(), *patterns, schema.extra, *(part.node for part in schema.witnesses)]
    return []


def show_leaf(leaf: Leaf) -> str:
    """One line for what a leaf reads."""
    if isinstance(leaf, Literals):
        tags = f", {len(set(leaf.tags))} tags" if len(set(leaf.tags)) > 1 else ""
        return f"one of {len(leaf.texts)} literals{tags}: " + listed(
            repr(_cut(text.decode(errors="backslashreplace"))) for text in leaf.texts
        )
    if isinstance(leaf, Bytes):
        return f"byte automaton of {len(leaf.dfa.edges)} states"
    parts = [] if leaf.dfa is None else [f"automaton of {len(leaf.dfa.tags)} states"]
    parts += _length(leaf.min_length, leaf.max_length)
    if leaf.excluded:
        parts.append("none of " + listed(map(show_text, leaf.excluded)))
    return _joined("JSON string" if leaf.quoted else "bare text", parts)


def show_arc(network: Network, arc: Arc) -> str:
    """One line for an arc: what it reads or calls, and where it leads."""
    height = f" (needs {arc.height} levels)" if arc.height else ""
    if isinstance(arc, Read):
        targets = listed(map(show_state, dict.fromkeys(arc.targets)))
        unique = "new " if arc.unique else ""
        return f"read {unique}leaf {arc.leaf} -> {targets}{height}"
    if isinstance(arc, Call):
        return f"call {show_state(arc.entry)}, then {show_state(arc.then)}{height}"
    return f"go to {show_state(arc.target)}{height}"


def show_state(state: int) -> str:
    return "end" if state == RETURN else str(state)


def listed(parts: Iterable[str]) -> str:
    """The first few, and how many there are if that is not all."""
    found = list(parts)
    rest = len(found) - MAX_SHOWN
    return ", ".join(found if rest <= 0 else [*found[:MAX_SHOWN], f"... ({rest} more)"])


def show_text(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False))


def _string(schema: StringSchema) -> list[str]:
    excluded = ["none of " + listed(map(show_text, sorted(schema.excluded)))] if schema.excluded else []
    return [*_length(schema.min_length, schema.max_length), *map(_pattern, schema.patterns), *excluded]


def _number(schema: NumberSchema) -> list[str]:
    interval, parts = schema.interval, ["not an integer"] if schema.fractional else []
    if interval.low is not None:
        parts.append(f"{'>' if interval.low_open else '>='} {interval.low}")
    if interval.high is not None:
        parts.append(f"{'<' if interval.high_open else '<='} {interval.high}")
    parts += [f"multiple of {divisor}" for divisor in schema.multiples]
    parts += [f"no multiple of {divisor}" for divisor in schema.not_multiples]
    return [*parts, "none of " + listed(map(str, sorted(schema.excluded)))] if schema.excluded else parts


def _array(schema: ArraySchema, name: Name) -> list[str]:
    parts = [f"first {listed(map(name, schema.prefix))}"] if schema.prefix else []
    parts.append("no further items" if schema.items.is_false else f"items {name(schema.items)}")
    parts += _range(schema.min_items, schema.max_items, "items")
    parts += ["all different"] if schema.unique else []
    for part in schema.contains:
        parts.append(f"{' '.join(_range(part.low, part.high, 'of them'))} {name(part.node)}")
    return parts


def _object(schema: ObjectSchema, name: Name) -> list[str]:
    parts = []
    if schema.properties:
        shown = (
            f"{show_text(key)}{'' if key in schema.required else '?'}: {name(node)}"
            for key, node in schema.properties.items()
        )
        parts.append("{" + listed(shown) + "}")
    parts += [f"names with {_pattern(pattern)}: {name(node)}" for pattern, node in schema.patterns]
    parts.append("no further names" if schema.extra.is_false else f"further names: {name(schema.extra)}")
    if schema.names is not None:
        parts.append("each name a " + (" or a ".join(show_alternative(part, name) for part in schema.names) or "never"))
    parts += _range(schema.min_properties, schema.max_properties, "members")
    parts += [
        f"{show_text(key)} needs {listed(map(show_text, sorted(names)))}" for key, names in schema.dependents.items()
    ]
    parts += [
        f"some name that is a {show_alternative(part.names, name)}: {name(part.node)}" for part in schema.witnesses
    ]
    return parts


def _pattern(pattern: Pattern) -> str:
    kind = "format" if pattern.is_format else "pattern"
    return f"{'not ' if pattern.negated else ''}{kind} {_cut(pattern.text)}"


def _length(low: int, high: int | None) -> list[str]:
    return _range(low, high, "characters")


def _range(low: int, high: int | None, what: str) -> list[str]:
    if high is None:
        return [f"at least {low} {what}"] if low else []
    return [f"exactly {low} {what}" if low == high else f"{low} to {high} {what}"]


def _joined(kind: str, parts: list[str]) -> str:
    return f"{kind}: {'; '.join(parts)}" if parts else kind


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 3] + "..."

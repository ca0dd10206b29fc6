"""Normalised schema -> the symbols of a grammar in which every alternative begins with a leaf automaton.

A symbol expands to alternatives, each a tuple of symbols; the first one of each is (after further expansion) a leaf.
Objects and arrays are right-recursive: ``Members`` and ``Items`` stand for what may still come in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.nodes import (
    ArraySchema,
    Interval,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    StringSchema,
)
from minillm_serve.guided.text.dfa import Dfa, literal
from minillm_serve.guided.text.numeric import number_dfa
from minillm_serve.guided.text.spelling import QUOTE, add_string, is_spellable, literals
from minillm_serve.guided.text.strings import CharTable, KeyLeaf, StringLeaf

MAX_NESTING = 64  # objects and arrays one inside the other in a generated text
IMPOSSIBLE = 10**9
MAX_LITERAL_CHARS = 200_000
MAX_NUMBER_STATES = 25_000  # a few hundred states for each different interval
_NEEDED_BYTES = {ObjectSchema: b'{}",:', ArraySchema: b"[],", StringSchema: b'"'}

OPEN_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = literal(b"{"), literal(b"["), literal(b"]")
COMMA, COLON = literal(b",", b", "), literal(b":", b": ")


@dataclass(eq=False)
class Value:
    """A place for a JSON value. ``height``: the nesting its shortest text needs; alternatives: (height, symbols)."""

    height: int = IMPOSSIBLE
    alternatives: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)
    container = False

    def expand(self, depth: int) -> list[tuple[Any, ...]]:
        return [symbols for height, symbols in self.alternatives if depth + height <= MAX_NESTING]


@dataclass(eq=False)
class ObjectRule:
    """An object: its properties in order, which of them are required, and the value of further names (or None)."""

    names: list[str]
    values: list[Value]
    required: list[bool]
    extra: Value
    alphabet: frozenset[int]
    declared: frozenset[str] = frozenset()
    _windows: dict[tuple[int, int], Dfa | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.declared = frozenset(self.names)

    def window(self, start: int, budget: int) -> Dfa | None:
        """The closing brace or the next property from ``start`` on, up to the first that is required.

        ``budget`` is the nesting still available for a value. The leaf's ends carry what follows each name.
        """
        budget = min(budget, max((v.height for v in self.values if v.height < IMPOSSIBLE), default=0))
        if (start, budget) not in self._windows:
            self._windows[start, budget] = self._make_window(start, budget)
        return self._windows[start, budget]

    def _make_window(self, start: int, budget: int) -> Dfa | None:
        dfa, char_states = Dfa(), {}
        inside = -1
        for place in range(start, len(self.names)):
            if self.values[place].height <= budget:
                if inside < 0:
                    inside = self._separator(dfa, first=start == 0)
                end = add_string(dfa, inside, self.names[place], char_states)
                colon = dfa.add_path(end, [QUOTE, b":"])
                space = dfa.add_path(colon, [b" "])
                dfa.finals[colon] = dfa.finals[space] = (self.values[place], Members(self, place + 1))
            if self.required[place]:
                break
        else:
            dfa.finals[dfa.add_path(dfa.start, [b"}"])] = ()
        return dfa.trimmed(self.alphabet)

    def _separator(self, dfa: Dfa, first: bool) -> int:
        inside = dfa.add_path(dfa.start, [QUOTE] if first else [b",", QUOTE])
        if not first:
            dfa.add_path(dfa.start, [b",", b" ", QUOTE], end=inside)
        return inside

    def is_complete_from(self, start: int) -> bool:
        return not any(self.required[start:])


@dataclass(frozen=True)
class Members:
    """What may still come in an object: properties from ``place`` on, then names not ``taken`` and not declared."""

    rule: ObjectRule
    place: int
    taken: frozenset[str] = frozenset()
    container = True

    def expand(self, depth: int, chars: CharTable) -> list[tuple[Any, ...]]:
        budget = MAX_NESTING - depth - 1
        found: list[tuple[Any, ...]] = []
        first = self.place == 0 and not self.taken
        window = self.rule.window(self.place, budget) if not self.taken else CLOSE_OBJECT
        if window is not None:
            found.append((window,))
        if self.rule.extra.height <= budget and self.rule.is_complete_from(self.place):
            key = KeyLeaf(chars, self)
            found.append((key,) if first else (COMMA, key))
        return found

    def is_taken(self, name: str) -> bool:
        return name in self.taken or name in self.rule.declared

    def taken_starting_with(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for names in (self.rule.declared, self.taken) for name in names)

    def after_key(self, name: str) -> tuple[Any, ...]:
        return (COLON, self.rule.extra, Members(self.rule, len(self.rule.names), self.taken | {name}))


CLOSE_OBJECT = literal(b"}")


@dataclass(eq=False)
class ArrayRule:
    prefix: list[Value]
    items: Value
    min_items: int
    max_items: int | None

    def item(self, place: int) -> Value:
        return self.prefix[place] if place < len(self.prefix) else self.items

    def after(self, place: int) -> Items:
        """One more item is there; without an upper bound, counts beyond every bound are one state."""
        last = max(self.min_items, len(self.prefix), 1)
        return Items(self, place + 1 if self.max_items is not None else min(place + 1, last))


@dataclass(frozen=True)
class Items:
    """What may still come in an array that has ``count`` items."""

    rule: ArrayRule
    count: int
    container = True

    def expand(self, depth: int) -> list[tuple[Any, ...]]:
        rule, found = self.rule, []
        if self.count >= rule.min_items:
            found.append((CLOSE_ARRAY,))
        item = rule.item(self.count)
        if (rule.max_items is None or self.count < rule.max_items) and item.height <= MAX_NESTING - depth - 1:
            rest = (item, rule.after(self.count))
            found.append((COMMA, *rest) if self.count else rest)
        return found


class Builder:
    """Makes the grammar of a node graph for one alphabet of single-byte tokens."""

    def __init__(self, alphabet: frozenset[int], point_zero: bool = True):
        self.alphabet, self.point_zero = alphabet, point_zero
        self.chars = CharTable.over(alphabet)
        self._literal_chars = 0
        self._numbers: dict[tuple[Interval, bool], Dfa | None] = {}

    def build(self, root: Node) -> Value:
        """The start symbol. Raises :class:`SchemaError` when no text satisfies the schema."""
        nodes = _reachable(root)
        values = {node: Value() for node in nodes}
        for node in nodes:
            values[node].alternatives = [(IMPOSSIBLE, self._symbols(alt, values)) for alt in node.alternatives]
        for _ in range(MAX_NESTING + 2):  # round r settles every height up to r
            changed = False
            for node in reversed(nodes):
                changed |= _settle(values[node])
            if not changed:
                break
        for value in values.values():
            value.alternatives = [(height, symbols) for height, symbols in value.alternatives if height <= MAX_NESTING]
        if values[root].height > MAX_NESTING:
            raise SchemaError(*_blame(root, values))
        return values[root]

    def _symbols(self, schema: Any, values: dict[Node, Value]) -> tuple[Any, ...] | None:
        """An alternative as symbols; None when the tokenizer's alphabet (or arithmetic) leaves no text for it."""
        if any(byte not in self.alphabet for byte in _NEEDED_BYTES.get(type(schema), b"")):
            return None
        match schema:
            case StringSchema(low, high):
                leaf = StringLeaf(self.chars, low, high)
            case NumberSchema(interval, integer):
                leaf = self._number(interval, integer)
            case LiteralSchema(constants):
                self._literal_chars += sum(len(c) if isinstance(c, str) else 8 for c in constants)
                if self._literal_chars > MAX_LITERAL_CHARS:
                    raise SchemaError("enum", "", f"the constants hold more than {MAX_LITERAL_CHARS} characters in all")
                leaf = literals(constants).trimmed(self.alphabet)
            case ArraySchema(prefix, items, low, high):
                rule = ArrayRule([values[node] for node in prefix], values[items], low, high)
                return (OPEN_ARRAY, Items(rule, 0))
            case ObjectSchema(properties, required, extra):
                rule = ObjectRule(
                    names=list(properties),
                    values=[
                        values[node] if is_spellable(name, self.alphabet) else Value()
                        for name, node in properties.items()
                    ],
                    required=[name in required for name in properties],
                    extra=values[extra],
                    alphabet=self.alphabet,
                )
                return (OPEN_OBJECT, Members(rule, 0))
        return None if leaf is None else (leaf,)

    def _number(self, interval: Interval, integer: bool) -> Dfa | None:
        if (interval, integer) not in self._numbers:
            leaf = number_dfa(interval, integer, self.point_zero, self.alphabet)
            self._numbers[interval, integer] = leaf
            if sum(len(dfa.edges) for dfa in self._numbers.values() if dfa) > MAX_NUMBER_STATES:
                problem = f"{len(self._numbers)} different intervals of numbers are too many for one schema"
                raise SchemaError("minimum" if interval.low is not None else "maximum", "", problem)
        return self._numbers[interval, integer]


def _reachable(root: Node) -> list[Node]:
    found, queue = {root: None}, deque([root])
    while queue:
        for schema in queue.popleft().alternatives:
            match schema:
                case ArraySchema(prefix, items):
                    children = (*prefix, items)
                case ObjectSchema(properties, _, extra):
                    children = (*properties.values(), extra)
                case _:
                    continue
            for child in children:
                if child not in found:
                    found[child] = None
                    queue.append(child)
    return list(found)


def _settle(value: Value) -> bool:
    """Recompute the heights of a value's alternatives from those of its children; True when one has changed."""
    heights = [_height(symbols) for _, symbols in value.alternatives]
    changed = heights != [height for height, _ in value.alternatives]
    value.alternatives = [(height, symbols) for height, (_, symbols) in zip(heights, value.alternatives, strict=True)]
    value.height = min(heights, default=IMPOSSIBLE)
    return changed


def _height(symbols: tuple[Any, ...] | None) -> int:
    if symbols is None:
        return IMPOSSIBLE
    match symbols[-1]:
        case Members(rule):
            needed = [v.height for v, required in zip(rule.values, rule.required, strict=True) if required]
        case Items(rule):
            needed = [v.height for v in rule.prefix[: rule.min_items]]
            if rule.min_items > len(rule.prefix):
                needed.append(rule.items.height)
        case _:
            return 0
    return min(1 + max(needed, default=0), IMPOSSIBLE)


def _blame(root: Node, values: dict[Node, Value]) -> tuple[str, str, str]:
    """(keyword, path, problem) of the first thing that makes the root unsatisfiable."""
    node, seen = root, set()
    while node not in seen and node.reason is None:
        seen.add(node)
        for name, child in _needed(node):
            if values[child].height > MAX_NESTING:
                if child.is_false and name is not None:
                    problem = f"{name!r} is required, but no value is allowed for it ({child.path or 'false'})"
                    return "required", pointer(node.path, "required"), problem
                node = child
                break
    if node.reason is not None:
        return node.reason
    for schema in node.alternatives:
        if isinstance(schema, NumberSchema):
            keyword = "maximum" if schema.interval.low is None else "minimum"
            return keyword, pointer(node.path, keyword), "no number of a reasonable length lies within the bounds"
    return "schema", node.path, f"no text of at most {MAX_NESTING} nested levels can satisfy it"


def _needed(node: Node) -> Iterator[tuple[str | None, Node]]:
    """The children without which the node's alternatives cannot be, with their names if they are properties."""
    for schema in node.alternatives:
        if isinstance(schema, ObjectSchema):
            yield from ((name, schema.properties[name]) for name in schema.properties if name in schema.required)
        elif isinstance(schema, ArraySchema):
            yield from ((None, child) for child in [*schema.prefix, schema.items][: schema.min_items])

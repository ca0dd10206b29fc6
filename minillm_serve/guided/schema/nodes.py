"""The normalised schema: a graph of nodes, each a union of alternatives of one JSON type.

``$ref`` is an edge of the graph, ``anyOf`` a longer list of alternatives, ``allOf`` already merged: what is left
says directly which JSON texts are meant. A node without alternatives accepts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(eq=False)
class Node:
    """One place where a JSON value may stand. ``alternatives`` is None until :meth:`resolve` has run ``rule``."""

    path: str
    rule: Callable[[], tuple[Alternative, ...]] | None = None
    alternatives: tuple[Alternative, ...] | None = None
    busy: bool = False
    reason: tuple[str, str, str] | None = None  # (keyword, path, problem): why nothing can satisfy this node
    opposite: Node | None = None  # the node that accepts just what this one refuses, once it was asked for

    @classmethod
    def false(cls, path: str = "") -> Node:
        """The boolean schema ``false``, written at ``path``."""
        return cls(path, alternatives=(), reason=("false", path, "the schema false accepts no value"))

    @property
    def is_false(self) -> bool:
        return self.reason is not None and self.reason[0] == "false"


@dataclass(frozen=True)
class Interval:
    """Numbers between ``low`` and ``high`` (None: unbounded); an open end excludes its bound."""

    low: int | float | None = None
    low_open: bool = False
    high: int | float | None = None
    high_open: bool = False

    def meet(self, other: Interval) -> Interval:
        low, low_open = self.low, self.low_open
        if other.low is not None and (low is None or (other.low, other.low_open) > (low, low_open)):
            low, low_open = other.low, other.low_open
        high, high_open = self.high, self.high_open
        if other.high is not None and (high is None or (other.high, not other.high_open) < (high, not high_open)):
            high, high_open = other.high, other.high_open
        return Interval(low, low_open, high, high_open)

    @property
    def empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def contains(self, value: int | float) -> bool:
        return not self.meet(Interval(low=value, high=value)).empty


@dataclass(frozen=True)
class Pattern:
    """A regular expression (ECMA 262, searched for, not anchored) or a ``format`` that a string must match.

    negated: it must not match. path: where it stands in the schema, for messages.
    """

    text: str
    is_format: bool = False
    negated: bool = False
    path: str = field(default="", compare=False)


@dataclass(eq=False, frozen=True)
class StringSchema:
    """Strings of ``min_length`` to ``max_length`` code points (None: any number) that match all ``patterns``.

    excluded: strings that are not allowed, whatever else holds.
    """

    min_length: int = 0
    max_length: int | None = None
    patterns: tuple[Pattern, ...] = ()
    excluded: frozenset[str] = frozenset()


@dataclass(eq=False, frozen=True)
class NumberSchema:
    """Numbers inside an interval. ``integer``: only those without a fractional part; ``fractional``: only the others.

    multiples: each of them (exact, as written in the schema) divides the number; not_multiples: none of them does.
    excluded: numbers that are not allowed, whatever else holds.
    """

    interval: Interval = Interval()
    integer: bool = False
    fractional: bool = False
    multiples: tuple[Fraction, ...] = ()
    not_multiples: tuple[Fraction, ...] = ()
    excluded: frozenset[int | float] = frozenset()


@dataclass(eq=False, frozen=True)
class LiteralSchema:
    """A choice of scalar values: strings, numbers, booleans, null.

    doubtful: values about which validators differ (they read a pattern or a format in different ways). They are
    written neither here nor by the complement.
    """

    values: tuple[Any, ...]
    doubtful: tuple[Any, ...] = ()

    @property
    def possible(self) -> tuple[Any, ...]:
        """What some validator accepts."""
        return (*self.values, *self.doubtful) if self.doubtful else self.values


@dataclass(eq=False, frozen=True)
class Contains:
    """Between ``low`` and ``high`` (None: any number) of the items from index ``start`` on satisfy ``node``."""

    node: Node
    low: int = 1
    high: int | None = None
    start: int = 0


@dataclass(eq=False, frozen=True)
class ArraySchema:
    """``prefix`` nodes first, then ``items``; between ``min_items`` and ``max_items`` (None: any number) of them.

    unique: no two items are equal. contains: each of these holds too.
    """

    prefix: tuple[Node, ...]
    items: Node
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False
    contains: tuple[Contains, ...] = ()


@dataclass(eq=False, frozen=True)
class Witness:
    """Some member whose name satisfies ``names`` has a value that satisfies ``node``.

    The member may be a named property or a further one: what the name is decides, not where it stands, so that a
    witness means the same after its object was met with another one. This is what the complement of
    patternProperties, additionalProperties and propertyNames asks for.
    """

    names: StringSchema
    node: Node


@dataclass(eq=False, frozen=True)
class ObjectSchema:
    """Named properties in the order in which they are written, then further ones.

    Every required name and every name in ``dependents`` is in ``properties``. A property whose node accepts nothing is
    forbidden. The value of a property in ``properties`` satisfies just its node: what patterns say about that name is
    already met into it. The value of a further one satisfies the nodes of all ``patterns`` that its name matches, or
    ``extra`` if none does. names: what every name must be, as alternatives' strings (None: anything); it too is
    already applied to ``properties``. dependents: where the key is present, the names are too. witnesses: see
    :class:`Witness`. undeclared: names that are in ``properties`` only because something requires or forbids them;
    they come last.
    """

    properties: dict[str, Node] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    extra: Node = None  # type: ignore[assignment]  # set by every caller; a Node, NEVER when no further names
    patterns: tuple[tuple[Pattern, Node], ...] = ()
    names: tuple[StringSchema | LiteralSchema, ...] | None = None
    min_properties: int = 0
    max_properties: int | None = None
    dependents: dict[str, frozenset[str]] = field(default_factory=dict)
    witnesses: tuple[Witness, ...] = ()
    undeclared: frozenset[str] = frozenset()


Alternative = StringSchema | NumberSchema | LiteralSchema | ArraySchema | ObjectSchema

NEVER = Node.false()
ANY = Node("")
ANY.alternatives = (
    ObjectSchema({}, frozenset(), ANY),
    ArraySchema((), ANY),
    StringSchema(),
    NumberSchema(),
    LiteralSchema((True, False, None)),
)

KINDS = ("object", "array", "string", "number", "boolean", "null")


_KIND_OF_TYPE = {
    type(None): "null", bool: "boolean", int: "number", float: "number",
    str: "string", dict: "object", list: "array", tuple: "array",
}  # fmt: skip


def kind_of(value: Any) -> str:
    """The JSON type of a Python value (an integer is a "number")."""
    kind = _KIND_OF_TYPE.get(type(value))
    if kind is None:  # a subclass of one of them
        kind = next((kind for known, kind in _KIND_OF_TYPE.items() if isinstance(value, known)), "array")
    return kind


def json_key(value: Any) -> tuple[str, Any]:
    """A hashable key under which two scalars are the same JSON value: 1 and 1.0 are, 1 and true are not."""
    return kind_of(value), value

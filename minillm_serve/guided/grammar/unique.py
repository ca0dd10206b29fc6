"""uniqueItems: items whose text alone says whether two are equal, so that the automaton can compare them.

Strings are compared as decoded. Numbers are written in one way only (1, never 1.0 or 1e0), so that different texts are
different numbers. Arrays and objects have no such text, and are refused.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.grammar.further import ALL, MANY, names_language
from minillm_serve.guided.grammar.network import UNBOUNDED_COST, Arc, Literals, Read
from minillm_serve.guided.grammar.shortest import free_text, longest_bytes
from minillm_serve.guided.grammar.values import Value
from minillm_serve.guided.schema.nodes import LiteralSchema, NumberSchema, StringSchema, kind_of
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.languages import accepts, count_strings, count_texts
from minillm_serve.guided.text.numeric import count_numbers, number_dfa

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.arrays import ArrayRule


class _Kinds(NamedTuple):
    """A value's alternatives, sorted; constants are not strings."""

    strings: list[StringSchema | LiteralSchema]
    numbers: list[NumberSchema]
    constants: list[Any]


class UniqueItems:
    """What is special about the items of one array with uniqueItems."""

    def __init__(self, rule: ArrayRule, path: str):
        self.rule, self.path = rule, pointer(path, "uniqueItems")
        self.make = rule.build.scalars
        self._leaves: dict[tuple[StringSchema | LiteralSchema, ...], int] = {}

    # -- are there enough different values? ----------------------------------------------------------------------

    @cached_property
    def room(self) -> int | None:
        """How many different items there can be; None: more than any text has room for.

        Raises :class:`SchemaError` where that cannot be told or the items cannot be compared.
        """
        last = len(self.rule.options) - 1
        for place, options in enumerate(self.rule.options):
            for option in options:
                number = self._number_of(option.value)
                if number is None or (place == last and len(options) == 1):
                    continue
                if len(options) > 1 or (number <= place and not self._is_apart(place)):
                    problem = "some items allow too few values to keep all items different from each other"
                    raise SchemaError("uniqueItems", self.path, problem)
        if not self.rule.options[last]:
            return last  # nothing may follow the prefix
        number = None if len(self.rule.options[last]) > 1 else self._number_of(self.rule.options[last][0].value)
        return None if number is None else max(last, number)  # each item of the prefix may take up one value

    def has_room(self, items: int) -> bool:
        return self.room is None or items <= self.room

    def _is_apart(self, place: int) -> bool:
        """Is the item at ``place`` different from all earlier ones, or are enough values left in any case?"""
        own = self._keys(self.rule.options[place][0].value)
        if own is None:
            return False
        rivals = 0
        for options in self.rule.options[:place]:
            keys = self._keys(options[0].value)
            rivals += keys is None or not own.isdisjoint(keys)
        return rivals < len(own)

    def _keys(self, value: Value) -> set[tuple[str, Any]] | None:
        """The constants that ``value`` is one of; None if it is not a choice of constants."""
        if not all(isinstance(a, LiteralSchema) for a in value.scalars):
            return None
        return {(kind_of(v), v) for a in value.scalars for v in a.values}  # type: ignore[union-attr]

    def _number_of(self, value: Value) -> int | None:
        """How many different scalars ``value`` accepts (or fewer); None: more than any text has room for."""
        if value.containers:
            problem = "arrays and objects cannot be compared while they are written; restrict items to scalars"
            raise SchemaError("uniqueItems", self.path, problem)
        kinds = _sorted(value)
        found = self._strings(kinds.strings) + len(kinds.constants)
        for schema in kinds.numbers:
            apart = sum(kind_of(v) != "number" or not accepts(schema, v) for v in kinds.constants)
            found = max(found, self._strings(kinds.strings) + apart + count_numbers(schema, MANY))
        return None if found >= MANY else found

    def _strings(self, strings: list[StringSchema | LiteralSchema]) -> int:
        if not strings:
            return 0
        if len(strings) == 1 and isinstance(strings[0], StringSchema) and self.make.alphabet.characters is None:
            return count_strings(strings[0], MANY)
        return count_texts(self._language(strings), 0, None, MANY)

    def _language(self, strings: list[StringSchema | LiteralSchema]) -> CharDfa:
        return self.make.writable(names_language(strings)) or ALL

    # -- reading them --------------------------------------------------------------------------------------------

    def arcs(self, value: Value, then: int) -> list[Arc]:
        """The ways to read a ``value`` that is not there yet, and go on in ``then``."""
        kinds = _sorted(value)
        found = [self._string_leaf(kinds.strings)] if kinds.strings else []
        if kinds.constants:
            texts = tuple(dict.fromkeys(canonical_text(constant) for constant in kinds.constants))
            found.append(self.make.shared(("canonical", texts), lambda: Literals(texts, (0,) * len(texts))))
        for schema in kinds.numbers:
            leaf = self.make.number(schema, canonical=True)
            if leaf is not None:
                found.append(leaf)
        return [Read(leaf, (then,), unique=True) for leaf in found]

    def _string_leaf(self, strings: list[StringSchema | LiteralSchema]) -> int:
        if len(strings) == 1 and isinstance(strings[0], StringSchema):
            return self.make.string(strings[0])
        key = tuple(strings)
        if key not in self._leaves:
            self._leaves[key] = self.make.text(self._language(strings))
        return self._leaves[key]

    def cost_of(self, value: Value) -> int:
        """Bytes that are enough for an item, whichever others are there."""
        kinds = _sorted(value)
        bounds = [len(canonical_text(constant)) for constant in kinds.constants]
        for schema in kinds.numbers:
            dfa = number_dfa(schema, self.make.point_zero, self.make.alphabet.symbols, canonical=True)
            bounds.append(UNBOUNDED_COST if dfa is None else longest_bytes(dfa))
        if kinds.strings:
            number = self._strings(kinds.strings)
            bounds.append(free_text(self._language(kinds.strings), 0, None, number - 1 if number < MANY else MANY))
        return max(bounds, default=UNBOUNDED_COST)


def _sorted(value: Value) -> _Kinds:
    found = _Kinds([], [], [])
    for alternative in value.scalars:
        if isinstance(alternative, StringSchema):
            found.strings.append(alternative)
        elif isinstance(alternative, NumberSchema):
            found.numbers.append(alternative)
        elif isinstance(alternative, LiteralSchema):
            words = tuple(v for v in alternative.values if isinstance(v, str))
            if words:
                found.strings.append(alternative if len(words) == len(alternative.values) else LiteralSchema(words))
            found.constants.extend(v for v in alternative.values if not isinstance(v, str))
    return found


def canonical_text(value: Any) -> bytes:
    """The one way to write a constant that is no string."""
    if value is None or isinstance(value, bool):
        return {None: b"null", True: b"true", False: b"false"}[value]
    if value == int(value):
        return str(int(value)).encode()
    return format(Decimal(repr(value)), "f").encode()

"""Strings, numbers and constants as leaves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from minillm_serve.guided.automaton.text_states import TextLeaf
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import UNBOUNDED_COST, Bytes, Leaf, Literals, Network, Text
from minillm_serve.guided.grammar.shortest import shortest_bytes, shortest_text
from minillm_serve.guided.schema.nodes import Alternative, LiteralSchema, NumberSchema, StringSchema
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import intersect
from minillm_serve.guided.text.languages import language, longest, string_is_empty
from minillm_serve.guided.text.numeric import SYMBOLS, number_dfa, number_is_possible
from minillm_serve.guided.text.spelling import scalar_texts, string_texts

MIN_COUNTED = 1_000  # up to here, whatever the pattern, counting is cheap enough
_ESCAPE = frozenset(b'"\\u0123456789abcdef')
_PRINTABLE = frozenset(range(0x20, 0x7F))


@dataclass(frozen=True)
class Alphabet:
    """The bytes that are tokens of their own, and what can be written with them alone.

    point_zero: may an integer be written 1.0? Where it may not, that would be a number of another type.
    """

    symbols: frozenset[int]
    point_zero: bool = True

    @cached_property
    def is_whole(self) -> bool:
        """Can every string be written, if need be with escapes?"""
        return self.symbols >= _PRINTABLE

    @cached_property
    def characters(self) -> CharDfa | None:
        """The strings that can be written; None: all."""
        if self.symbols >= _ESCAPE:
            return None
        allowed = [
            code < 0x80 and chr(code).isprintable() and self.spells(string_texts(chr(code))[0]) for code in range(0x80)
        ]
        starts = [code for code in range(0x80) if code == 0 or allowed[code] != allowed[code - 1]]
        bounds = (*starts, 0x80)
        classes = tuple(int(code < 0x80 and allowed[code]) for code in bounds)
        return CharDfa(bounds, classes, ((-1, 0),), (0,))

    def spells(self, text: bytes) -> bool:
        return self.symbols.issuperset(text)

    def spellings(self, value: Any) -> list[bytes]:
        """The texts of a constant that can be written."""
        texts = string_texts(value) if isinstance(value, str) else scalar_texts(value, self.point_zero)
        return list(texts) if self.is_whole else [text for text in texts if self.spells(text)]


class Scalars:
    """Makes the leaves of one network for one alphabet; equal ones are made once."""

    def __init__(self, network: Network, alphabet: Alphabet, point_zero: bool):
        self.network, self.alphabet, self.point_zero = network, alphabet, point_zero

    def possible(self, alternative: Alternative) -> bool:
        """Is there a text for this alternative? Raises :class:`SchemaError` where it cannot be made a leaf."""
        match alternative:
            case LiteralSchema(values):
                return bool(values) and (
                    self.alphabet.is_whole or any(self.alphabet.spellings(value) for value in values)
                )
            case StringSchema():
                return self._string_is_possible(alternative)
            case NumberSchema():
                return number_is_possible(alternative) and (
                    self.alphabet.symbols >= SYMBOLS or self._number(alternative) is not None
                )
        raise TypeError(type(alternative).__name__)

    def _string_is_possible(self, schema: StringSchema) -> bool:
        if ord('"') not in self.alphabet.symbols or string_is_empty(schema):
            return False
        self._check_work(schema)
        if self.alphabet.characters is None:
            return True
        dfa = self._characters(schema)
        return dfa is not None and (not schema.min_length or any(target >= 0 for row in dfa.rows for target in row))

    def _check_work(self, schema: StringSchema) -> None:
        """Refuse a language whose long texts a machine cannot count, before any text is begun."""
        if schema.min_length < MIN_COUNTED or not schema.patterns:
            return
        try:
            TextLeaf(Text(self._characters(schema), schema.min_length, longest(schema)), self.alphabet.symbols)
        except SchemaError:
            problem = f"to count {schema.min_length} characters (minLength) takes more memory than is allowed"
            raise SchemaError("pattern", schema.patterns[0].path, problem) from None

    def _characters(self, schema: StringSchema) -> CharDfa | None:
        """The language of a string leaf; None for any text."""
        return self.writable(language(schema))

    def writable(self, dfa: CharDfa | None) -> CharDfa | None:
        """The texts of ``dfa`` that can be written."""
        characters = self.alphabet.characters
        return dfa if characters is None else characters if dfa is None else intersect(dfa, characters)

    def literals(self, values: Iterable[Any]) -> int:
        """The leaf for these constants. Raises ValueError if none can be written."""
        texts = tuple(dict.fromkeys(text for value in values for text in self.alphabet.spellings(value)))
        if not texts:
            raise ValueError("no constant can be written")
        return self.shared(("literals", texts), lambda: Literals(texts, (0,) * len(texts)))

    def string(self, schema: StringSchema) -> int:
        return self.text(self._characters(schema), schema.min_length, longest(schema), schema.excluded)

    def text(self, dfa: CharDfa | None, low: int = 0, high: int | None = None, excluded: Iterable[str] = ()) -> int:
        """A JSON string; words of ``excluded`` that the rest rules out anyway are left away."""
        left = tuple(
            word
            for word in excluded
            if low <= len(word) and (high is None or len(word) <= high) and (dfa is None or dfa.match(word) >= 0)
        )
        return self.shared(("text", dfa, low, high, frozenset(left)), lambda: Text(dfa, low, high, left))

    def number(self, schema: NumberSchema, canonical: bool = False) -> int | None:
        """Numbers; ``canonical``: each in one spelling only. None when there are none."""
        key = ("number", canonical, _number_key(schema), self.point_zero)
        found = self.network.has_leaf(key)
        if found is None:
            dfa = self._number(schema, canonical)
            found = None if dfa is None else self.network.leaf(Bytes(dfa), key)
        return found

    def _number(self, schema: NumberSchema, canonical: bool = False) -> Any:
        return number_dfa(schema, self.point_zero, self.alphabet.symbols, canonical=canonical)

    def shared(self, key: Hashable, make: Callable[[], Leaf]) -> int:
        """The leaf under ``key``, made when there is none."""
        found = self.network.has_leaf(key)
        return self.network.leaf(make(), key) if found is None else found

    def cost(self, alternative: Alternative) -> int:
        """Bytes of the shortest text (or a few more); UNBOUNDED_COST if that is too much to find out."""
        match alternative:
            case LiteralSchema(values):
                return min(
                    (
                        len(text)
                        for value in values
                        for text in self.alphabet.spellings(value)
                        if self.alphabet.spells(text)
                    ),
                    default=UNBOUNDED_COST,
                )
            case StringSchema(low, high, _, excluded):
                return shortest_text(self._characters(alternative), low, high, excluded)
            case NumberSchema():
                dfa = self._number(alternative)
                return UNBOUNDED_COST if dfa is None else shortest_bytes(dfa, self.alphabet.symbols)
        raise TypeError(type(alternative).__name__)


def _number_key(schema: NumberSchema) -> Hashable:
    return (
        schema.interval,
        schema.integer,
        schema.fractional,
        frozenset(schema.multiples),
        frozenset(schema.not_multiples),
        schema.excluded,
    )

"""The trusted mask: which characters may come, by derivatives of a regular expression (Brzozowski 1964).

It shares no idea with the reference solution of the notebook, so that a mistake in one shows up against the other.
Terms are interned and known by number, so that equal states are the same state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

NOTHING, DONE = 0, 1
CLASSES = {
    "text": lambda c: c >= " " and c not in '"\\',
    "digit": lambda c: c in "0123456789",
    "1-9": lambda c: c in "123456789",
}
FIXED = {"boolean": (True, False), "null": (None,)}


def published(value: Any) -> str:
    """The only text of ``value`` that the course's masks permit."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Language:
    """All the documents of a schema of the published dialect. ``start``: the state before the first character."""

    def __init__(self, schema: dict[str, Any]):
        self._terms: list[tuple] = [("nothing",), ("done",)]
        self._numbers: dict[tuple, int] = {}
        self._derived: dict[tuple[int, str], int] = {}
        self._definitions = schema.get("$defs", {})
        self.start = self._value(schema)

    def advance(self, state: int, text: str) -> int:
        """The state after ``text``; ``NOTHING`` when no document goes on that way."""
        for character in text:
            state = self._derive(state, character)
        return state

    def complete(self, state: int) -> bool:
        kind, *parts = self._terms[state]
        if kind in ("both", "either"):
            return (all if kind == "both" else any)(self.complete(p) for p in parts)
        return kind == "done" or (kind == "times" and parts[1] == 0)

    def longest(self, state: int | None = None) -> int:
        """Characters of the longest document."""
        kind, *parts = self._terms[self.start if state is None else state]
        if kind == "times":
            return parts[2] * self.longest(parts[0])
        if kind in ("both", "either"):
            return (sum if kind == "both" else max)(self.longest(p) for p in parts)
        return {"literal": len(parts[0]) if parts else 0, "one": 1}.get(kind, 0)

    def _term(self, *term: Any) -> int:
        if term not in self._numbers:
            self._numbers[term] = len(self._terms)
            self._terms.append(term)
        return self._numbers[term]

    def _literal(self, text: str) -> int:
        return self._term("literal", text) if text else DONE

    def _both(self, first: int, then: int) -> int:
        if NOTHING in (first, then):
            return NOTHING
        if first == DONE:
            return then
        return first if then == DONE else self._term("both", first, then)

    def _either(self, terms: Sequence[int]) -> int:
        flat: set[int] = set()
        for term in terms:
            flat.update(self._terms[term][1:] if self._terms[term][0] == "either" else {term})
        flat.discard(NOTHING)
        if len(flat) < 2:
            return flat.pop() if flat else NOTHING
        return self._term("either", *sorted(flat))

    def _times(self, term: int, least: int, most: int) -> int:
        return self._term("times", term, least, most) if most else DONE

    def _derive(self, state: int, character: str) -> int:
        key = (state, character)
        if key not in self._derived:
            self._derived[key] = self._derivative(self._terms[state], character)
        return self._derived[key]

    def _derivative(self, term: tuple, character: str) -> int:
        kind, *parts = term
        if kind == "literal":
            return self._literal(parts[0][1:]) if parts[0][0] == character else NOTHING
        if kind == "one":
            return DONE if CLASSES[parts[0]](character) else NOTHING
        if kind == "both":
            ways = [self._both(self._derive(parts[0], character), parts[1])]
            if self.complete(parts[0]):
                ways.append(self._derive(parts[1], character))
            return self._either(ways)
        if kind == "either":
            return self._either([self._derive(p, character) for p in parts])
        if kind == "times":
            unit, least, most = parts
            return self._both(self._derive(unit, character), self._times(unit, max(least - 1, 0), most - 1))
        return NOTHING

    def _value(self, schema: dict[str, Any]) -> int:
        if "$ref" in schema:
            return self._value(self._definitions[schema["$ref"].removeprefix("#/$defs/")])
        if "anyOf" in schema:
            return self._either([self._value(s) for s in schema["anyOf"]])
        if "const" in schema:
            return self._literal(published(schema["const"]))
        values = schema.get("enum") or FIXED.get(schema["type"])
        if values:
            return self._either([self._literal(published(v)) for v in values])
        build = {"string": self._string, "integer": self._integer, "array": self._array, "object": self._object}
        return build[schema["type"]](schema)

    def _string(self, schema: dict[str, Any]) -> int:
        inside = self._times(self._term("one", "text"), schema.get("minLength", 0), schema["maxLength"])
        return self._both(self._literal('"'), self._both(inside, self._literal('"')))

    def _integer(self, schema: dict[str, Any]) -> int:
        digits = len(str(schema["maximum"]))
        more = self._times(self._term("one", "digit"), 0, digits - 1)
        return self._either([self._literal("0"), self._both(self._term("one", "1-9"), more)])

    def _array(self, schema: dict[str, Any]) -> int:
        item, least, most = self._value(schema["items"]), schema.get("minItems", 0), schema["maxItems"]
        rest = self._times(self._both(self._literal(","), item), max(least - 1, 0), max(most - 1, 0))
        ways = [self._both(item, rest)] if most else []
        if least == 0:
            ways.append(DONE)
        return self._both(self._literal("["), self._both(self._either(ways), self._literal("]")))

    def _object(self, schema: dict[str, Any]) -> int:
        required = schema.get("required", ())
        first = other = DONE
        for name, content in reversed(schema["properties"].items()):
            written = self._both(self._literal(published(name) + ":"), self._both(self._value(content), other))
            comma = self._both(self._literal(","), written)
            optional = name not in required
            first = self._either([written, first]) if optional else written
            other = self._either([comma, other]) if optional else comma
        return self._both(self._literal("{"), self._both(first, self._literal("}")))


class TrustedMask:
    """The exact set of ids for each text: ``mask(text) -> frozenset``, empty where the text leads nowhere."""

    def __init__(self, language: Language, vocabulary: Sequence[str], end: int):
        self._language, self._end = language, end
        self._sets: dict[int, frozenset[int]] = {}
        self._beginning: dict[str, list[tuple[int, str]]] = {}
        for i, text in enumerate(vocabulary):
            if text:
                self._beginning.setdefault(text[0], []).append((i, text[1:]))

    def __call__(self, text: str) -> frozenset[int]:
        state = self._language.advance(self._language.start, text)
        if state not in self._sets:
            self._sets[state] = frozenset(self._compute(state))
        return self._sets[state]

    def _compute(self, state: int) -> Iterator[int]:
        for character, tokens in self._beginning.items():
            if after := self._language.advance(state, character):
                yield from (i for i, rest in tokens if self._language.advance(after, rest))
        if self._language.complete(state):
            yield self._end

"""What the patterns, formats and lengths of a string schema mean together.

Some patterns are read differently by ECMA 262 and by Python, and some formats are only written in a safe subset. So a
schema has an inner language, of strings that every judge accepts, and an outer one, of those that some judge accepts.
What is generated is in the inner one; what excludes others must exclude the outer one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.nodes import Alternative, NumberSchema, Pattern, StringSchema, kind_of
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import NOTHING, class_ranges, complement, intersect
from minillm_serve.guided.text.dfa_cache import DfaCache
from minillm_serve.guided.text.formats import format_dfa, format_max_length
from minillm_serve.guided.text.number_sets import may_accept_number
from minillm_serve.guided.text.numeric import number_accepts
from minillm_serve.guided.text.regex import compile_pattern


def language(schema: StringSchema) -> CharDfa | None:
    """The strings that satisfy every pattern (the inner language); None if any string does.

    Lengths and ``excluded`` are not part of it. Raises :class:`SchemaError` for patterns that are not supported.
    """
    return _together(schema.patterns, False)


def outer_language(schema: StringSchema) -> CharDfa | None:
    """The strings that may satisfy every pattern."""
    return _together(schema.patterns, True)


def _together(patterns: Iterable[Pattern], outer: bool) -> CharDfa | None:
    found = [dfa for pattern in dict.fromkeys(patterns) if (dfa := _of_pattern(pattern, outer)) is not None]
    if len(found) < 2:
        return found[0] if found else None
    return _kept(("all", frozenset(patterns), outer), lambda: intersect(*found))


def _of_pattern(pattern: Pattern, outer: bool) -> CharDfa | None:
    """The inner or outer language of one pattern; that outer one is what the other side's inner one leaves."""
    if outer:
        other = _of_pattern(Pattern(pattern.text, pattern.is_format, not pattern.negated, pattern.path), False)
        return NOTHING if other is None else _kept(("outer", pattern), lambda: complement(other))
    side = "reject" if pattern.negated else "accept"
    if not pattern.is_format:
        return compile_pattern(pattern.text, keyword="pattern", path=pattern.path, side=side)
    found = format_dfa(pattern.text, side=side)
    return NOTHING if found is None and pattern.negated else found  # an unknown format is never violated


_cache = DfaCache()


def _kept(key: Hashable, make: Callable[[], CharDfa]) -> CharDfa:
    found = _cache.get(key)
    if found is None:
        found = make()
        _cache.put(key, found)
    return found


# -- strings -----------------------------------------------------------------------------------------------------------


def longest(schema: StringSchema) -> int | None:
    """Code points of the longest string to write: max_length, or less where a format has a bound of its own."""
    bounds = [schema.max_length, *(format_max_length(p.text) for p in schema.patterns if p.is_format and not p.negated)]
    return min((bound for bound in bounds if bound is not None), default=None)


def fits(schema: StringSchema, text: str) -> bool:
    """Is ``text`` of a length that is written, and not excluded?"""
    high = longest(schema)
    return schema.min_length <= len(text) and (high is None or len(text) <= high) and text not in schema.excluded


def accepts_text(schema: StringSchema, text: str) -> bool:
    """Is ``text`` in the inner language, of an allowed length and not excluded?"""
    if not fits(schema, text):
        return False
    dfa = language(schema)
    return dfa is None or dfa.match(text) >= 0


def accepted_texts(schema: StringSchema, texts: Sequence[str]) -> tuple[str, ...]:
    """Those of ``texts`` that :func:`accepts_text` accepts."""
    low, high = schema.min_length, longest(schema)
    found = [t for t in texts if low <= len(t) and (high is None or len(t) <= high) and t not in schema.excluded]
    dfa = language(schema) if found and schema.patterns else None
    return tuple(found) if dfa is None else tuple(text for text in found if dfa.match(text) >= 0)


def doubtful_values(schema: Alternative, values: Iterable[Any]) -> tuple[Any, ...]:
    """Those of ``values``, none of which is accepted for sure, that some judge accepts."""
    if isinstance(schema, StringSchema):
        if not schema.patterns:
            return ()
        values = (value for value in values if isinstance(value, str) and not _is_plain(schema, value))
    return tuple(value for value in values if may_accept(schema, value))


def _is_plain(schema: StringSchema, text: str) -> bool:
    """Do all judges agree about ``text``? Dialects of regular expressions do about printable ASCII."""
    return text.isascii() and text.isprintable() and not any(pattern.is_format for pattern in schema.patterns)


def string_is_empty(schema: StringSchema) -> bool:
    """Is there no string of the inner language with an allowed length that is not excluded?"""
    low, high = schema.min_length, longest(schema)
    if high is not None and low > high:
        return True
    dfa = language(schema) if schema.patterns else None
    if dfa is None:
        return high == 0 and "" in schema.excluded
    if dfa.tags[0] < 0 and not any(target >= 0 for target in dfa.rows[0]):
        return True
    if not schema.excluded:
        return not has_length(dfa, low, high)
    return count_strings(schema, 1) == 0


def may_have_strings(schema: StringSchema) -> bool:
    """May some judge say that ``schema`` accepts a string? False only when it is proven that none does."""
    low, high = schema.min_length, schema.max_length
    if high is not None and low > high:
        return False
    dfa = outer_language(schema)
    if dfa is None:
        return high != 0 or "" not in schema.excluded
    return _count(dfa, schema, high, 1) > 0 if schema.excluded else has_length(dfa, low, high)


def count_strings(schema: StringSchema, limit: int) -> int:
    """How many strings ``schema`` accepts, counted no further than ``limit``."""
    high, dfa = longest(schema), language(schema)
    if dfa is None:
        return min(limit, int("" not in schema.excluded)) if high == 0 else limit
    return _count(dfa, schema, high, limit)


def _count(dfa: CharDfa, schema: StringSchema, high: int | None, limit: int) -> int:
    """How many texts of ``dfa`` of an allowed length are not excluded, up to ``limit``."""
    low = schema.min_length
    words = [word for word in schema.excluded if low <= len(word) and (high is None or len(word) <= high)]
    barred = sum(dfa.match(word) >= 0 for word in words)
    return max(0, count_texts(dfa, low, high, limit + barred) - barred)


def has_length(dfa: CharDfa, low: int, high: int | None) -> bool:
    """Does ``dfa`` accept some text of ``low`` to ``high`` code points (None: any number)?"""
    if low == 0 and high is None:
        return any(tag >= 0 for tag in dfa.tags)
    after = _successors(dfa)
    states, seen, length = frozenset([0]), {}, 0
    while length < low and states:
        if states in seen:  # the sets go round from here on: skip whole rounds
            period = length - seen[states]
            length += (low - length) // period * period
            seen = {}
            continue
        seen[states] = length
        spend(len(states) + 1, "pattern")
        states = frozenset(target for state in states for target in after[state])
        length += 1
    return bool(states) and _distance(dfa, after, states) <= (len(after) if high is None else high - low)


def _successors(dfa: CharDfa) -> list[tuple[int, ...]]:
    used = _usable_classes(dfa)
    return [tuple({row[c] for c in used if row[c] >= 0}) for row in dfa.rows]


def _usable_classes(dfa: CharDfa) -> tuple[int, ...]:
    return tuple(dict.fromkeys(dfa.classes))


def _distance(dfa: CharDfa, after: list[tuple[int, ...]], states: frozenset[int]) -> int:
    """Code points of the shortest way from one of ``states`` to an end; more than there are states if there is none."""
    queue, seen = deque((state, 0) for state in states), set(states)
    while queue:
        state, steps = queue.popleft()
        if dfa.tags[state] >= 0:
            return steps
        for target in after[state]:
            if target not in seen:
                seen.add(target)
                queue.append((target, steps + 1))
    return len(after) + 1


def count_texts(dfa: CharDfa, low: int, high: int | None, limit: int) -> int:
    """How many texts of ``low`` to ``high`` code points ``dfa`` accepts, counted no further than ``limit``."""
    if high is None and _loops(dfa):
        return limit
    sizes = [sum(last - first + 1 for first, last in ranges) for ranges in class_ranges(dfa)]
    ways, found = {0: 1}, 0
    for length in range((len(dfa.rows) if high is None else high) + 1):
        if length >= low:
            found += sum(number for state, number in ways.items() if dfa.tags[state] >= 0)
        if found >= limit or not ways:
            break
        spend(len(ways) * 4 + 1, "pattern")
        further: dict[int, int] = {}
        for state, number in ways.items():
            for kind, target in enumerate(dfa.rows[state]):
                if target >= 0 and sizes[kind]:
                    further[target] = min(limit, further.get(target, 0) + number * sizes[kind])
        ways = further
    return min(found, limit)


def _loops(dfa: CharDfa) -> bool:
    """Does ``dfa`` (trimmed) accept infinitely many texts?"""
    after, sources = _successors(dfa), [0] * len(dfa.rows)
    for targets in after:
        for target in targets:
            sources[target] += 1
    free = [state for state, number in enumerate(sources) if number == 0]
    for state in free:
        for target in after[state]:
            sources[target] -= 1
            if sources[target] == 0:
                free.append(target)
    return len(free) < len(dfa.rows)


def strings_disjoint(a: StringSchema, b: StringSchema) -> bool:
    """True only when it is proven that neither schema writes a string which some judge takes for one of the other."""
    low = max(a.min_length, b.min_length)
    highs = [high for high in (a.max_length, b.max_length) if high is not None]
    if highs and low > min(highs):
        return True
    if not a.patterns and not b.patterns:
        return False
    patterns = {pattern: None for pattern in (*a.patterns, *b.patterns)}
    if any(Pattern(p.text, p.is_format, not p.negated) in patterns for p in patterns):
        return True
    return _excludes(a, b, low, min(highs, default=None)) and _excludes(b, a, low, min(highs, default=None))


def _excludes(inner: StringSchema, outer: StringSchema, low: int, high: int | None) -> bool:
    try:
        found = [dfa for dfa in (language(inner), outer_language(outer)) if dfa is not None]
        return bool(found) and not has_length(intersect(*found) if len(found) > 1 else found[0], low, high)
    except SchemaError:
        return False  # not proven; what cannot be compiled is refused where it is needed


# -- either ------------------------------------------------------------------------------------------------------------


def accepts(alternative: Alternative, value: Any) -> bool:
    """Does this string or number schema accept the scalar ``value``, whoever judges?"""
    kind = kind_of(value)
    if isinstance(alternative, StringSchema):
        return kind == "string" and accepts_text(alternative, value)
    return isinstance(alternative, NumberSchema) and kind == "number" and number_accepts(alternative, value)


def may_accept(alternative: Alternative, value: Any) -> bool:
    """May some judge say that this string or number schema accepts the scalar ``value``?"""
    kind = kind_of(value)
    if isinstance(alternative, StringSchema) and kind == "string":
        high = alternative.max_length
        if len(value) < alternative.min_length or (high is not None and len(value) > high):
            return False
        if value in alternative.excluded:
            return False
        if _is_plain(alternative, value):
            return accepts_text(alternative, value)
        try:
            dfa = outer_language(alternative)
        except SchemaError:
            return True
        return dfa is None or dfa.match(value) >= 0
    return isinstance(alternative, NumberSchema) and kind == "number" and may_accept_number(alternative, value)

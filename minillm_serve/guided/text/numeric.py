"""JSON numbers of a normalised schema as a finite automaton over their decimal digits.

A number is judged by what a JSON parser makes of it: an integer text is exact, a text with a fraction or an exponent
becomes the nearest double. Rounding is monotone, so a decimal text that lies between two doubles stays between them;
hence every bound for such texts is first moved to the nearest double inside the interval (an open bound to the next
one), and from there on the comparison of digits is exact for parsers of either kind. (Integers beyond 2^53 are told
apart as Python's parser does, exactly.)
"""

from __future__ import annotations

from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, inf, isinf, lcm, nextafter
from threading import Lock

from minillm_serve.guided.schema.nodes import NumberSchema
from minillm_serve.guided.text.bytes_algebra import count_texts, explore, intersection
from minillm_serve.guided.text.decimals import DIGITS, MAX_EXACT_DIGITS, SYMBOLS, Real, Whole, ranges_dfa
from minillm_serve.guided.text.dfa import Dfa
from minillm_serve.guided.text.multiples import exact, is_multiple, is_no_multiple, multiples_dfa, others_dfa

MAX_CACHED_STATES = 50_000
_MINUS, _POINT, _NOUGHT = b"-.0"


def number_dfa(schema: NumberSchema, point_zero: bool, alphabet: frozenset[int], canonical: bool = False) -> Dfa | None:
    """The numbers of ``schema``; None when no text qualifies. Ends have tag 0, every state leads to an end.

    point_zero: an integer n may be written n.0, also where ``schema`` wants integers. alphabet: bytes that have a
    token of their own. canonical: one text for each number (no exponent, no -0, no trailing zeros; a fraction has at
    most 15 digits in all). Zero has a sign only where numbers below it are wanted too. Raises :class:`SchemaError`
    where that takes too large an automaton.
    """
    dfa = _cached(schema, point_zero, canonical)
    if dfa is None or alphabet >= SYMBOLS:
        return dfa
    twin = Dfa()
    twin.edges, twin.finals = [dict(row) for row in dfa.edges], dict(dfa.finals)
    return twin.trimmed(alphabet)


def number_is_possible(schema: NumberSchema) -> bool:
    """Is there any number like this (of a length that is ever written)?"""
    low, high = schema.interval.low, schema.interval.high
    near = all(end is None or abs(end) < 10**MAX_EXACT_DIGITS for end in (low, high))
    plain = not (schema.fractional or schema.multiples or schema.not_multiples or schema.excluded)
    if near and plain and (low is None or high is None):
        return True
    return _cached(schema, True, False) is not None


def number_accepts(schema: NumberSchema, value: int | float) -> bool:
    """Is this number (as Python's JSON parser reads it) one of them, for exact arithmetic and for doubles alike?"""
    if isinstance(value, float) and (value != value or isinf(value)):
        return False
    whole = value == int(value)
    return (
        schema.interval.contains(value)
        and whole >= schema.integer
        and whole + schema.fractional < 2
        and value not in schema.excluded
        and all(is_multiple(value, divisor) for divisor in schema.multiples)
        and all(is_no_multiple(value, divisor) for divisor in schema.not_multiples)
    )


def count_numbers(schema: NumberSchema, limit: int) -> int:
    """How many different numbers there are that ``canonical`` texts can write, at most ``limit``."""
    dfa = _cached(schema, True, True)
    return 0 if dfa is None else count_texts(dfa, limit)


_cache: OrderedDict[tuple, Dfa | None] = OrderedDict()
_cache_lock = Lock()


def _cached(schema: NumberSchema, point_zero: bool, canonical: bool) -> Dfa | None:
    """The automaton over all bytes; those of recent schemas are kept, up to MAX_CACHED_STATES states in all."""
    key = (
        *(schema.interval, schema.integer, schema.fractional, schema.multiples, schema.not_multiples),
        *(schema.excluded, point_zero, canonical),
    )
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    dfa = _build(schema, point_zero, canonical)
    with _cache_lock:
        _cache[key] = dfa
        while sum(len(kept.edges) if kept else 1 for kept in _cache.values()) > MAX_CACHED_STATES:
            _cache.popitem(last=False)
    return dfa


def _build(schema: NumberSchema, point_zero: bool, canonical: bool) -> Dfa | None:
    low, high = schema.interval.low, schema.interval.high
    whole = schema.integer or any(divisor.denominator == 1 for divisor in schema.multiples)
    if schema.fractional and whole:
        return None
    reals = [] if whole else _reals(schema)
    zero = whole and not canonical and (point_zero or not schema.integer)
    dfa = ranges_dfa(_wholes(schema), reals, zero, keyword="not" if schema.excluded else "type")
    wanted: list[tuple] = [(others_dfa, "not", (divisor,)) for divisor in schema.not_multiples]
    wanted += [(multiples_dfa, "multipleOf", (divisor, low, high)) for divisor in _joined(schema.multiples)]
    for make, keyword, arguments in wanted:
        other = None if dfa is None else make(*arguments)
        dfa = None if other is None else intersection(dfa, other, keyword)
    if dfa is not None and schema.fractional:
        dfa = intersection(dfa, _fractional(), "not")
    return intersection(dfa, _canonical(), "uniqueItems") if dfa is not None and canonical else dfa


def _joined(divisors: tuple[Fraction, ...]) -> list[Fraction]:
    """The whole divisors as one, their least common multiple; what is no integer is judged by itself."""
    whole = [divisor.numerator for divisor in divisors if divisor.denominator == 1]
    parts = [divisor for divisor in divisors if divisor.denominator != 1]
    return [Fraction(lcm(*whole)), *parts] if whole else parts


# -- bounds ------------------------------------------------------------------------------------------------------------


def _wholes(schema: NumberSchema) -> list[Whole]:
    """The integers of the interval without the excluded ones."""
    interval = schema.interval
    low = high = None
    if interval.low is not None:
        low = max(_above(bound, interval.low_open) for bound in (interval.low, exact(interval.low)))
    if interval.high is not None:
        high = -max(_above(-bound, interval.high_open) for bound in (interval.high, exact(interval.high)))
    ranges: list[Whole] = []
    for value in sorted(int(value) for value in schema.excluded if value == int(value)):
        if (low is None or low <= value) and (high is None or value <= high):
            ranges.append((low, value - 1))
            low = value + 1
    ranges.append((low, high))
    return [(a, b) for a, b in ranges if a is None or b is None or a <= b]


def _above(bound: int | float | Fraction, is_open: bool) -> int:
    return floor(bound) + 1 if is_open else ceil(bound)


def _reals(schema: NumberSchema) -> list[Real]:
    """The interval with doubles for bounds, without what might be read as one of the excluded numbers."""
    interval = schema.interval
    low = -inf if interval.low is None else _double(interval.low, interval.low_open, inf)
    high = inf if interval.high is None else _double(interval.high, interval.high_open, -inf)
    ranges: list[tuple[float, float]] = []
    for value in sorted(_nearest(value) for value in schema.excluded):
        if low <= value <= high:
            ranges.append((low, nextafter(value, -inf)))
            low = nextafter(value, inf)
    ranges.append((low, high))
    return [
        (None if a == -inf else Decimal(repr(a)), None if b == inf else Decimal(repr(b)))
        for a, b in ranges
        if a <= b and a != inf and b != -inf
    ]


def _nearest(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _double(value: int | float, is_open: bool, inward: float) -> float:
    """The double nearest to ``value`` on the side of ``inward`` (strictly, when the bound is open)."""
    found = _nearest(value)
    if isinf(found) and found != inward:
        return found
    while (found < value if inward > 0 else found > value) or (is_open and found == value):
        found = nextafter(found, inward)
    return found


# -- forms of a number -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _fractional() -> Dfa:
    """Numbers that no parser takes for an integer: at most 15 digits and not just zeros behind the point."""
    return _shape(exponent=True, trailing=True, whole=False)


@lru_cache(maxsize=1)
def _canonical() -> Dfa:
    """Numbers written in the one way that is allowed where different texts must be different numbers."""
    return _shape(exponent=False, trailing=False, whole=True)


def _shape(exponent: bool, trailing: bool, whole: bool) -> Dfa:
    """Texts by form: whether integers, zeros at the end of a fraction, and d.ddde-n with n >= 2 are among them."""

    def row_of(meaning: tuple) -> tuple[dict[int, tuple], bool]:
        """meaning: kind, digits read, then what the kind needs to know."""
        kind, digits, *more = meaning
        if kind == "sign":
            row = dict.fromkeys(DIGITS[1:], ("whole", 1, True)) | {_NOUGHT: ("whole", 1, False, digits == 1)}
            return row | ({} if digits else {_MINUS: ("sign", 1)}), False
        if kind == "power":  # of -n: how many digits, and is n at least 2?
            if digits == 0:
                row = {_NOUGHT: ("power", 1, False), DIGITS[1]: ("power", 1, False, True)}
                return row | dict.fromkeys(DIGITS[2:], ("power", 1, True)), False
            following = () if digits == 2 else DIGITS if more[-1] else DIGITS[2:]
            return dict.fromkeys(following, ("power", 2, True)), more[0]
        nonzero = more[0]
        if kind == "whole":  # nonzero: more digits may follow; a single 0 knows whether it has a sign
            row = dict.fromkeys(DIGITS, ("whole", min(digits + 1, MAX_EXACT_DIGITS), True)) if nonzero else {}
            if digits < MAX_EXACT_DIGITS:
                row[_POINT] = ("part", digits, False, nonzero and digits == 1)
            final = whole and (nonzero or not more[1])
        else:  # behind the point; nonzero: the text may end here
            small, final, row = more[1], nonzero, {}
            if digits < MAX_EXACT_DIGITS:
                row = dict.fromkeys(DIGITS[1:], ("part", digits + 1, True, small))
                row[_NOUGHT] = ("part", digits + 1, nonzero and trailing, small)
        if exponent and (nonzero and digits == 1 if kind == "whole" else small and digits > 1):
            row[ord("e")] = row[ord("E")] = ("minus", 0)
        return row, final

    def with_minus(meaning: tuple) -> tuple[dict[int, tuple], bool]:
        return ({_MINUS: ("power", 0)}, False) if meaning[0] == "minus" else row_of(meaning)

    found = explore(("sign", 0), with_minus)
    assert found is not None
    return found

"""JSON numbers inside an interval, as a finite automaton over their decimal digits.

A number is judged by what a JSON parser makes of it: an integer text is exact, a text with a fraction or an exponent
becomes the nearest double. Rounding is monotone, so a decimal text that lies between two doubles stays between them;
hence every bound for such texts is first moved to the nearest double inside the interval (an open bound to the next
one), and from there on the comparison of digits is exact for parsers of either kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, inf, isinf, nextafter
from typing import Any

from minillm_serve.guided.schema.nodes import Interval
from minillm_serve.guided.text.dfa import Dfa, materialise
from minillm_serve.guided.text.spelling import EXACT_INTEGERS

MAX_DIGITS = 64  # of an integer part; keeps every text far from the overflow of a double and of int()
MAX_FRACTION = 32
MAX_EXPONENT = 99
_SYMBOLS = b"0123456789-+.eE"


@lru_cache(maxsize=256)
def number_dfa(interval: Interval, integer: bool, point_zero: bool, alphabet: frozenset[int]) -> Dfa | None:
    """Numbers in ``interval``; None when no text qualifies. ``point_zero``: an integer n may be written n.0."""
    parts = list(_integer_parts(interval, integer and point_zero))
    if not integer:
        parts += _fraction_parts(interval)
    start = frozenset((i, part.start) for i, part in enumerate(parts))

    def step(states: frozenset, byte: int) -> frozenset | None:
        moved = ((i, parts[i].step(state, chr(byte))) for i, state in states)
        return frozenset((i, state) for i, state in moved if state is not None) or None

    def final(states: frozenset) -> bool:
        return any(parts[i].final(state) for i, state in states)

    return materialise(start, step, final, _SYMBOLS).trimmed(alphabet)


def _integer_parts(interval: Interval, point_zero: bool) -> Iterator[_Integers]:
    low = None if interval.low is None else floor(interval.low) + 1 if interval.low_open else ceil(interval.low)
    high = None if interval.high is None else ceil(interval.high) - 1 if interval.high_open else floor(interval.high)
    for negative, least, most in _sides(low, high):
        yield _Integers(negative, str(least), None if most is None else str(most), point_zero)


def _fraction_parts(interval: Interval) -> Iterator[_Fractions | _Exponents]:
    low = None if interval.low is None else _double(interval.low, interval.low_open, inf)
    high = None if interval.high is None else _double(interval.high, interval.high_open, -inf)
    if low == inf or high == -inf:
        return
    low, high = (None if low == -inf else low), (None if high == inf else high)
    for negative, least, most in _sides(low, high):
        yield _Fractions(negative, *_decimal(least), *((None, "") if most is None else _decimal(most)))
        exponents = [e for e in range(-MAX_EXPONENT, MAX_EXPONENT + 1) if _decade_inside(e, least, most)]
        if exponents:
            yield _Exponents(negative, exponents[0], exponents[-1], any_mantissa=most is None and least == 0)


def _sides(low: Any, high: Any) -> Iterator[tuple[bool, Any, Any]]:
    """The interval as (negative?, least magnitude, greatest magnitude or None)."""
    if low is not None and high is not None and low > high:
        return
    if high is None or high >= 0:
        yield False, 0 if low is None else max(low, 0), high
    if low is None or low < 0:
        yield True, 0 if high is None else max(-high, 0), None if low is None else -low


def _double(value: int | float, is_open: bool, inward: float) -> float:
    """The double nearest to ``value`` on the side of ``inward`` (strictly, when the bound is open)."""
    try:
        found = float(value)
    except OverflowError:
        found = inf if value > 0 else -inf
    if isinf(found) and found != inward:
        return found
    while (found < value if inward > 0 else found > value) or (is_open and found == value):
        found = nextafter(found, inward)
    return found


def _decimal(value: float | int) -> tuple[str, str]:
    """(integer digits, fraction digits) of the shortest decimal that reads back as ``value``."""
    whole, _, fraction = format(Decimal(repr(abs(value))), "f").partition(".")
    return whole, fraction.rstrip("0")


def _decade_inside(exponent: int, least: float, most: float | None) -> bool:
    """Do all numbers from 10^e up to 10^(e+1) lie in the interval?"""
    unit = Fraction(10) ** exponent
    return unit >= Fraction(least) and (most is None or unit * 10 <= Fraction(most))


def _compare(a: str, b: str) -> int:
    return (a > b) - (a < b)


@dataclass(frozen=True)
class _Integers:
    """Magnitudes from ``least`` to ``most`` (decimal digits, no leading zero); state: (digits read, vs least, vs most).

    While fewer digits are read than a bound has, "vs" compares with the bound's first digits.
    """

    negative: bool
    least: str
    most: str | None
    point_zero: bool = False

    @property
    def start(self) -> Any:
        return "-" if self.negative else (0, 0, 0)

    def step(self, state: Any, char: str) -> Any:
        if state == "-":
            return (0, 0, 0) if char == "-" else None
        if state == ".":
            return ".0" if char == "0" else None
        if state == ".0":
            return None
        if char == "." and self.point_zero and self.final(state) and state[0] < len(str(EXACT_INTEGERS)):
            return "."
        return self.digit(state, char) if char.isdigit() else None

    def digit(self, state: tuple[int, int, int], char: str) -> tuple[int, int, int] | None:
        read, low, high = state
        if read < 0 or read >= MAX_DIGITS or (self.most is not None and read >= len(self.most)):
            return None
        low = 1 if read >= len(self.least) else low or _compare(char, self.least[read])
        high = -1 if self.most is None else high or _compare(char, self.most[read])
        return (-1 if read == 0 and char == "0" else read + 1, low, high)  # -1: the single digit zero, now complete

    def relation(self, state: tuple[int, int, int]) -> tuple[int, int]:
        """(vs least, vs most) of the integer read so far, taken as complete."""
        read, low, high = abs(state[0]), state[1], state[2]
        vs_least = low if read == len(self.least) else read - len(self.least)
        vs_most = -1 if self.most is None else high if read == len(self.most) else read - len(self.most)
        return vs_least, vs_most

    def final(self, state: Any) -> bool:
        if isinstance(state, str):
            return state == ".0"
        vs_least, vs_most = self.relation(state)
        return state[0] != 0 and vs_least >= 0 and vs_most <= 0


@dataclass(frozen=True)
class _Fractions:
    """Magnitudes with a decimal point, between two decimals; after the point: ("f", digits read, vs least, vs most)."""

    negative: bool
    least: str
    least_fraction: str
    most: str | None
    most_fraction: str

    @property
    def whole(self) -> _Integers:
        return _Integers(self.negative, self.least, self.most)

    @property
    def start(self) -> Any:
        return self.whole.start

    def step(self, state: Any, char: str) -> Any:
        if state[0] == "f":
            return self._fraction_digit(state, char) if char.isdigit() else None
        if char != "." or state == "-":
            return self.whole.step(state, char)
        vs_least, vs_most = self.whole.relation(state)
        if state[0] == 0 or vs_least < 0 or vs_most > 0:
            return None
        return ("f", 0, min(vs_least, 1), max(vs_most, -1))

    def _fraction_digit(self, state: Any, char: str) -> Any:
        _, read, low, high = state
        if read >= MAX_FRACTION:
            return None
        low = low or _compare(char, self.least_fraction[read : read + 1] or "0")
        high = high or _compare(char, self.most_fraction[read : read + 1] or "0")
        return None if low < 0 or high > 0 else ("f", read + 1, low, high)

    def final(self, state: Any) -> bool:
        if state[0] != "f" or state[1] == 0:
            return False
        return state[2] > 0 or not self.least_fraction[state[1] :]


@dataclass(frozen=True)
class _Exponents:
    """d.ddd e n with one non-zero digit before the point (or any mantissa) and ``low`` <= n <= ``high``."""

    negative: bool
    low: int
    high: int
    any_mantissa: bool = False

    @property
    def start(self) -> Any:
        return "-" if self.negative else "d"

    def step(self, state: Any, char: str) -> Any:
        match state:
            case "-":
                return "d" if char == "-" else None
            case "d":
                if not char.isdigit() or (char == "0" and not self.any_mantissa):
                    return None
                return ("d", MAX_DIGITS if char == "0" or not self.any_mantissa else 1)
            case ("d", read):
                if char.isdigit():
                    return ("d", read + 1) if read < MAX_DIGITS else None
                return ("f", 0) if char == "." else "e" if char in "eE" else None
            case ("f", read):
                if char.isdigit():
                    return ("f", read + 1) if read < MAX_FRACTION else None
                return "e" if char in "eE" and read else None
            case "e":
                sign = {"+": "+", "-": "-"}.get(char)
                return (sign, "") if sign else self.step(("+", ""), char)
            case (sign, digits):
                return (sign, digits + char) if char.isdigit() and len(digits) < 2 else None

    def final(self, state: Any) -> bool:
        if not isinstance(state, tuple) or state[0] in "df" or not state[1]:
            return False
        return self.low <= int(state[0] + state[1]) <= self.high

"""Division of decimal texts with a remainder, digit by digit: multiples of a rational number, and all other numbers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from minillm_serve.guided.budget import spend
from minillm_serve.guided.text.bytes_algebra import explore
from minillm_serve.guided.text.decimals import DIGITS, MAX_DIGITS, MAX_EXACT_DIGITS
from minillm_serve.guided.text.dfa import Dfa

MAX_REMAINDERS = 4_096
MAX_COUNTED = 4_000  # classes of remainders times digits that are counted
MIN_DIGITS = 6
_MINUS, _POINT, _NOUGHT = b"-.0"


@dataclass(frozen=True)
class Step:
    """A divisor as decimals see it. places: behind its point; units: the divisor, counted in its last place."""

    divisor: Fraction
    places: int
    units: int

    @classmethod
    def of(cls, divisor: Fraction) -> Step:
        """The decimals divisible by p / (2^a 5^b q) are those divisible by p / (2^a 5^b)."""
        rest, places = divisor.denominator, 0
        for prime in (2, 5):
            count = 0
            while rest % prime == 0:
                rest, count = rest // prime, count + 1
            places = max(places, count)
        divisor *= rest
        return cls(divisor, places, divisor.numerator * 10**places // divisor.denominator)


def multiples(step: Step, whole: int | None, before_point: int, binary_places: int | None = None) -> Dfa | None:
    """Divisible numbers. whole: digits of an integer (None: any number); before_point: digits where a point follows.

    binary_places: behind the point are so many places at most, and what is there is a binary fraction (.5, .25, .75).
    Many remainders leave room for fewer digits; None, too, if that is less than MIN_DIGITS.
    """
    modulus, last = step.units, step.places
    if binary_places is not None:
        modulus, last = lcm(step.units, 5**binary_places), binary_places
        if modulus > MAX_REMAINDERS:
            modulus, last = step.units, 0
    divisible = np.array([_is_divisible(step, modulus, read, binary_places is not None) for read in range(last + 1)])
    spend(modulus * (last + 2), "multipleOf")
    classes, first = _merged(divisible, modulus)
    room = MAX_COUNTED // len(first)
    if room < MIN_DIGITS:
        return None
    whole = whole if whole is None and room >= MAX_DIGITS else min(whole or MAX_DIGITS, room)
    before_point = min(before_point, room)
    longest = max(whole or 0, before_point) + 1

    def following(remainder: int) -> list[int]:
        return [int(classes[(10 * first[remainder] + digit) % modulus]) for digit in range(10)]

    def row_of(meaning: tuple) -> tuple[dict[int, tuple], bool]:
        kind, count, remainder = meaning
        right = count <= last and bool(divisible[count if kind == "part" else 0, first[remainder]])
        if kind in ("start", "minus"):
            row = {DIGITS[d]: ("whole", min(d, 1), following(remainder)[d]) for d in range(10)}
            return row | ({_MINUS: ("minus", 0, remainder)} if kind == "start" else {}), False
        if kind == "part":
            more = following(remainder) if count < last else []
            return {DIGITS[d]: ("part", count + 1, r) for d, r in enumerate(more)}, count > 0 and right
        if kind == "zero":
            return {} if count else {_NOUGHT: ("zero", 1, remainder)}, count == 1
        right = bool(divisible[0, first[remainder]])
        more = following(remainder) if count else []
        row = {DIGITS[d]: ("whole", min(count + 1, longest), r) for d, r in enumerate(more)}
        if last and count <= before_point:
            row[_POINT] = ("part", 0, remainder)
        elif not last and right and count <= min(before_point, MAX_EXACT_DIGITS):
            row[_POINT] = ("zero", 0, remainder)
        return row, right and (whole is None or count <= whole)

    return explore(("start", 0, int(classes[0])), row_of, "multipleOf")


def _is_divisible(step: Step, modulus: int, read: int, binary: bool) -> list[bool]:
    """For each remainder of all digits so far, ``read`` of them behind the point: is the number divisible?"""
    scale = 10 ** (step.places - read)
    return [r * scale % step.units == 0 and (not binary or r % 5**read == 0) for r in range(modulus)]


def _merged(divisible: np.ndarray, modulus: int) -> tuple[np.ndarray, list[int]]:
    """Remainders that no text tells apart share a class (Moore 1956): (class of each, one remainder of each class)."""
    steps = (10 * np.arange(modulus)[:, None] + np.arange(10)) % modulus
    classes = np.unique(divisible, axis=1, return_inverse=True)[1].reshape(-1)
    while True:
        rows = np.column_stack([classes, classes[steps]])
        _, first, finer = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        if len(first) == classes.max() + 1:
            return finer.reshape(-1), first.tolist()
        spend(modulus // 4, "multipleOf")
        classes = finer.reshape(-1)


def others(step: Step, digits: int) -> Dfa | None:
    """Numbers of at most so many digits that are not divisible."""
    divisible = np.array([_is_divisible(step, step.units, read, False) for read in range(step.places + 1)])
    spend(step.units * (step.places + 2), "not")
    classes, first = _merged(divisible, step.units)

    def following(remainder: int, digit: int) -> int:
        return int(classes[(10 * first[remainder] + digit) % step.units])

    def row_of(meaning: tuple) -> tuple[dict[int, tuple], bool]:
        """meaning: digits read, those behind the point (None: no point yet), remainder, flag.

        flag: without a point, the number is 0 so far and no digit may follow; behind the last place of the divisor,
        some digit has made the number indivisible.
        """
        count, read, remainder, flag = meaning
        if read == -1:
            row = {DIGITS[d]: (1, None, following(remainder, d), d == 0) for d in range(10)}
            return row | ({} if flag else {_MINUS: (0, -1, remainder, True)}), False
        beyond = read is not None and read > step.places
        differs = flag if beyond else not divisible[read or 0, first[remainder]]
        row = {_POINT: (count, 0, remainder, False)} if read is None else {}
        if count < digits and not (read is None and flag):
            for d, byte in enumerate(DIGITS):
                if read is not None and read >= step.places:
                    row[byte] = (count + 1, step.places + 1, 0, differs or d > 0)
                else:
                    more = None if read is None else read + 1
                    row[byte] = (count + 1, more, following(remainder, d), False)
        return row, bool(differs) and read != 0

    return explore((0, -1, int(classes[0]), False), row_of, "not")

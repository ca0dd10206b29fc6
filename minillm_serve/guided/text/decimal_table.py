"""All numbers of a few digits, each judged by itself: the automaton of those that a divisor of doubles divides."""

from __future__ import annotations

import numpy as np

from minillm_serve.guided.budget import spend
from minillm_serve.guided.text.bytes_algebra import explore
from minillm_serve.guided.text.decimals import DIGITS
from minillm_serve.guided.text.dfa import Dfa
from minillm_serve.guided.text.remainders import Step

TABLE_DIGITS = 5
MAX_TABLE_FRACTION, MAX_TABLE_WHOLE = 4, 4
_MINUS, _POINT = b"-."


def table_dfa(step: Step, low: int | float | None, high: int | float | None) -> Dfa | None:
    """Numbers of TABLE_DIGITS digits that the divisor divides in doubles and exactly.

    low, high: where numbers are wanted; with fewer digits before the point there can be more behind it.
    """
    places = min(step.places, MAX_TABLE_FRACTION)
    size = 10**TABLE_DIGITS if low is None or high is None else min(10**TABLE_DIGITS, max(abs(low), abs(high)))
    digits = min(len(str(int(size))), TABLE_DIGITS - places, MAX_TABLE_WHOLE)
    table = _judged(step, digits + places, places)
    one = 10**places  # numbers between an integer and the next

    def whole(read: int, value: int) -> tuple:
        if value and read < digits:
            return ("whole", read, value)
        return ("point", 0, table[value * one : (value + 1) * one])

    def row_of(meaning: tuple) -> tuple[dict[int, tuple], bool]:
        """meaning: digits before the point and their value; or digits behind it and the judgement on what may come.

        After the last digit before the point only the judgement counts (``point``).
        """
        kind, read, value = meaning
        if kind == "sign":
            row = {byte: whole(1, digit) for digit, byte in enumerate(DIGITS)}
            return row | ({} if read else {_MINUS: ("sign", 1, 0)}), False
        if kind == "whole":
            here = table[value * one : (value + 1) * one]
            row = {byte: whole(read + 1, 10 * value + digit) for digit, byte in enumerate(DIGITS)}
            return row | ({_POINT: ("part", 0, here)} if True in here else {}), bool(here[0])
        if kind == "point":
            return ({_POINT: ("part", 0, value)} if True in value else {}), bool(value[0])
        width = len(value) // 10
        rests = [value[digit * width : (digit + 1) * width] for digit in range(10 if width else 0)]
        row = {DIGITS[d]: ("part", read + 1, rest) for d, rest in enumerate(rests) if True in rest}
        return row, read > 0 and bool(value[0])

    return explore(("sign", 0, 0), row_of, "multipleOf")


def _judged(step: Step, digits: int, places: int) -> bytes:
    """For each n below 10^digits, one byte: is n / 10^places a multiple, for doubles and exactly?"""
    spend(10**digits // 4, "multipleOf")
    numbers = np.arange(10**digits)
    with np.errstate(over="ignore"):
        quotients = numbers / 10.0**places / float(step.divisor)
    scale = pow(10, step.places - places, step.units)
    exact = numbers % step.units * scale % step.units == 0
    return (exact & np.isfinite(quotients) & (quotients == np.floor(quotients))).tobytes()

"""multipleOf: decimal texts divisible by a rational number, for exact arithmetic and for doubles alike.

A validator may divide doubles: 0.07 / 0.01 is 7.000000000000001, so 0.07 "is no multiple" of 0.01 for it. A text is
accepted here only if exact arithmetic and the division of doubles both call it a multiple. With u = 2^-53 and the
divisor stored as m (1 + e):

- m an integer or a fraction of a power of two: every number below is exact, so only the remainder counts;
- |e| <= u / 2: the quotient of an exactly stored number rounds to the integer that it is, so integers and binary
  fractions (.5, .25, ...) are judged by their remainder;
- every other decimal fraction is judged one by one, in a table of all numbers of TABLE_DIGITS digits.

What falls outside (1234.56 as a multiple of 0.01) is not offered, though exact arithmetic would take it.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import isfinite

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.bytes_algebra import union
from minillm_serve.guided.text.decimal_table import TABLE_DIGITS, table_dfa
from minillm_serve.guided.text.decimals import MAX_EXACT_DIGITS
from minillm_serve.guided.text.dfa import Dfa, literal
from minillm_serve.guided.text.remainders import MAX_REMAINDERS, Step, multiples, others

MAX_LISTED = 500  # multiples that are spelled out one by one where there are too many remainders


def is_multiple(value: int | float, divisor: Fraction) -> bool:
    """Do exact arithmetic (on the decimals that are written) and the division of doubles both say so?"""
    return (exact(value) / divisor).denominator == 1 and _divides(value, divisor)


def is_no_multiple(value: int | float, divisor: Fraction) -> bool:
    """Do both say that it is none?"""
    return (exact(value) / divisor).denominator != 1 and not _divides(value, divisor)


def exact(value: int | float) -> Fraction:
    """The number that the shortest text of ``value`` stands for."""
    return Fraction(value) if isinstance(value, int) else Fraction(Decimal(repr(value)))


def _divides(value: int | float, divisor: Fraction) -> bool:
    try:
        quotient = value / float(divisor)
        return isfinite(quotient) and quotient == int(quotient)
    except (OverflowError, ZeroDivisionError):
        return False


def multiples_dfa(divisor: Fraction, low: int | float | None, high: int | float | None) -> Dfa | None:
    """Multiples of ``divisor``; low, high: where they are wanted, which decides on those that are spelled out."""
    step = Step.of(divisor)
    try:
        stored = Fraction(float(step.divisor))
    except OverflowError:
        stored = Fraction(0)
    if step.units > MAX_REMAINDERS or stored == 0:
        return _listed(step, low, high)
    denominator = step.divisor.denominator
    if stored == step.divisor and denominator & (denominator - 1) == 0:
        by_shift = step.divisor.numerator & (step.divisor.numerator - 1) == 0  # dividing by a power of two never rounds
        digits = MAX_EXACT_DIGITS - (len(str(denominator)) if denominator > 1 else 0)
        return multiples(step, None if by_shift else digits, digits) or _listed(step, low, high)
    found = None if step.places > TABLE_DIGITS and step.divisor.numerator != 1 else table_dfa(step, low, high)
    if abs(stored / step.divisor - 1) <= Fraction(1, 2**54):
        whole = None if step.divisor <= 1 else MAX_EXACT_DIGITS
        plain = multiples(step, whole, MAX_EXACT_DIGITS - step.places, binary_places=min(step.places, 3))
        found = plain if found is None else union(found, plain, "multipleOf") if plain is not None else found
    return found or _listed(step, low, high)


def others_dfa(divisor: Fraction) -> Dfa | None:
    """Numbers that are no multiples: with so few digits that no rounding can make them look like one."""
    step = Step.of(divisor)
    digits = MAX_EXACT_DIGITS - len(str(step.divisor.denominator))
    if digits < 1 or step.units > MAX_REMAINDERS:
        raise SchemaError("not", "", f"numbers that are no multiple of {divisor} need too large an automaton")
    return others(step, digits)


def _listed(step: Step, low: int | float | None, high: int | float | None) -> Dfa | None:
    """The first MAX_LISTED multiples in the interval, by magnitude, each written in one way."""
    texts = []
    for sign, least, most in ((1, low, high), (-1, None if high is None else -high, None if low is None else -low)):
        begin = 0 if least is None or least < 0 else -(-Fraction(least) // step.divisor)
        for count in range(begin, begin + MAX_LISTED):
            value = count * step.divisor
            if most is not None and value > most:
                break
            text = _written(value)
            spend(10, "multipleOf")
            if len(text) > 60:
                break
            read = int(text) if value.denominator == 1 else float(text)
            if is_multiple(read, step.divisor):
                texts.append(text if sign > 0 else f"-{text}")
    texts = [text for text in texts if text != "-0"]
    if not texts:
        return None
    dfa = literal(*(text.encode() for text in texts))
    dfa.finals = dict.fromkeys(dfa.finals, 0)  # type: ignore[arg-type]
    return dfa


def _written(value: Fraction) -> str:
    """A non-negative decimal fraction in full."""
    places = Step.of(value).places
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return digits if not places else f"{digits[:-places]}.{digits[-places:]}"

"""Sets of numbers: emptiness and disjointness of number schemas, by exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, lcm

from minillm_serve.guided.budget import spend
from minillm_serve.guided.schema.nodes import Interval, NumberSchema
from minillm_serve.guided.text.multiples import exact, is_multiple, is_no_multiple
from minillm_serve.guided.text.numeric import number_accepts

MAX_CANDIDATES = 2_000  # multiples inside a bounded interval that are looked at one by one


def may_accept_number(schema: NumberSchema, value: int | float) -> bool:
    """May some judge accept ``value``? (They differ about multiples of decimal fractions.)"""
    return (
        number_accepts(NumberSchema(schema.interval, schema.integer, schema.fractional), value)
        and value not in schema.excluded
        and not any(is_no_multiple(value, step) for step in schema.multiples)
        and not any(is_multiple(value, step) for step in schema.not_multiples)
    )


def number_is_empty(schema: NumberSchema) -> bool:
    """True only when it is proven that ``schema`` accepts no number."""
    interval = schema.interval
    if interval.empty:
        return True
    step = grid(schema)
    if step is None:
        return interval.low is not None and interval.low == interval.high and not number_accepts(schema, interval.low)
    if schema.fractional and step.denominator == 1:
        return True
    if any(step % other == 0 for other in schema.not_multiples):
        return True
    first, last = _multiples(interval, step)
    if first is None or last is None:
        return False
    if last - first >= MAX_CANDIDATES:
        return False
    spend(10 * max(0, last - first), "multipleOf")
    candidates = (Fraction(k) * step for k in range(first, last + 1))
    return not any(_accepts_exact(schema, value) for value in candidates)


def grid(schema: NumberSchema) -> Fraction | None:
    """The least common multiple of what divides every accepted number; None if nothing has to."""
    steps = [*schema.multiples, *([Fraction(1)] if schema.integer else [])]
    if not steps:
        return None
    common = steps[0]
    for step in steps[1:]:
        denominator = lcm(common.denominator, step.denominator)
        common = Fraction(lcm(int(common * denominator), int(step * denominator)), denominator)
    return common


def _multiples(interval: Interval, step: Fraction) -> tuple[int | None, int | None]:
    """The first and the last k for which k * step lies in the interval."""
    low = None if interval.low is None else exact(interval.low) / step
    high = None if interval.high is None else exact(interval.high) / step
    first = None if low is None else floor(low) + 1 if interval.low_open else ceil(low)
    last = None if high is None else ceil(high) - 1 if interval.high_open else floor(high)
    return first, last


def _accepts_exact(schema: NumberSchema, value: Fraction) -> bool:
    return (
        value not in {exact(number) for number in schema.excluded}
        and (not schema.fractional or value.denominator != 1)
        and all(value % step for step in schema.not_multiples)
    )


def numbers_disjoint(a: NumberSchema, b: NumberSchema) -> bool:
    """True only when it is proven that no number satisfies both schemas."""
    interval = a.interval.meet(b.interval)
    if interval.empty or (a.integer and b.fractional) or (a.fractional and b.integer):
        return True
    both = NumberSchema(
        interval,
        a.integer or b.integer,
        a.fractional or b.fractional,
        (*a.multiples, *b.multiples),
        (*a.not_multiples, *b.not_multiples),
        a.excluded | b.excluded,
    )
    return number_is_empty(both)

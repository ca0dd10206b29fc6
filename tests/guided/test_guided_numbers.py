"""Number automata: what they accept is right for exact arithmetic and for doubles, and ordinary numbers get through."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.nodes import Interval, NumberSchema
from minillm_serve.guided.text.bytes_algebra import accepts, count_texts, difference, intersection, union
from minillm_serve.guided.text.dfa import Dfa
from minillm_serve.guided.text.numeric import count_numbers, number_accepts, number_dfa, number_is_possible

ALL_BYTES = frozenset(range(256))


def dfa_of(schema: NumberSchema, canonical: bool = False, point_zero: bool = True) -> Dfa | None:
    return number_dfa(schema, point_zero, ALL_BYTES, canonical)


def is_accepted(dfa: Dfa | None, text: str) -> bool:
    return dfa is not None and accepts(dfa, text.encode())


def as_json_schema(schema: NumberSchema) -> dict[str, Any]:
    """The same in the words of the standard, for a validator that knows nothing of ours."""
    found: dict[str, Any] = {"type": "integer" if schema.integer else "number"}
    interval = schema.interval
    if interval.low is not None:
        found["exclusiveMinimum" if interval.low_open else "minimum"] = interval.low
    if interval.high is not None:
        found["exclusiveMaximum" if interval.high_open else "maximum"] = interval.high
    divisors = [_json_number(divisor) for divisor in schema.multiples]
    found["allOf"] = [{"multipleOf": divisor} for divisor in divisors]
    forbidden = [{"multipleOf": _json_number(divisor)} for divisor in schema.not_multiples]
    forbidden += [{"type": "integer"}] if schema.fractional else []
    forbidden += [{"const": value} for value in schema.excluded]
    return found | {"not": {"anyOf": forbidden}} if forbidden else found


def _json_number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


def exactly_valid(schema: NumberSchema, text: str) -> bool:
    """The text's exact value against the schema, without any doubles (bounds as they are written)."""
    value, interval = Fraction(text), schema.interval
    bounds = (None if end is None else Fraction(repr(end)) for end in (interval.low, interval.high))
    low, high = bounds
    return (
        (low is None or value > low or (value == low and not interval.low_open))
        and (high is None or value < high or (value == high and not interval.high_open))
        and (not schema.integer or value.denominator == 1)
        and (not schema.fractional or value.denominator != 1)
        and all((value / divisor).denominator == 1 for divisor in schema.multiples)
        and all((value / divisor).denominator != 1 for divisor in schema.not_multiples)
        and all(value != Fraction(repr(other)) for other in schema.excluded)
    )


def walks(dfa: Dfa, rng: random.Random, count: int = 40) -> list[str]:
    """Texts found by going at random; ends are taken with a chance that lets some texts grow long."""
    found = []
    for _ in range(count):
        state, text, eager = dfa.start, bytearray(), rng.choice([0.05, 0.3, 0.7])
        while state not in dfa.finals or (dfa.edges[state] and rng.random() > eager):
            assert dfa.edges[state], f"no way on after {bytes(text)!r}"
            byte = rng.choice(sorted(dfa.edges[state]))
            text.append(byte)
            state = dfa.edges[state][byte]
        found.append(text.decode())
    return found


bounds = st.one_of(
    st.none(),
    st.integers(-20, 20),
    st.integers(-(10**19), 10**19),
    st.sampled_from(
        [0.1, 0.5, -0.25, 1e-7, 1e22, -1e300, 5e-324, 99.99, 2**53 + 1, 10**40, 0.3, 1.7976931348623157e308]
    ),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda value: float(f"{value:.6g}")),
)
intervals = st.builds(Interval, bounds, st.booleans(), bounds, st.booleans()).filter(
    lambda interval: not interval.empty
)
divisors = st.sampled_from(
    [Fraction(text) for text in ("1", "2", "3", "5", "7", "10", "1000", "0.5", "2.5", "0.1", "0.01", "0.05", "0.001")]
    + [Fraction(text) for text in ("0.3", "0.7", "3.3", "0.0001", "1e-8", "1e-9", "0.123456789", "9007199254740993")]
)
excluded = st.frozensets(st.one_of(st.integers(-3, 12), st.sampled_from([0.5, 0.1, 2**53 + 1, 1e16])), max_size=4)
schemas = st.builds(
    NumberSchema,
    intervals,
    integer=st.booleans(),
    fractional=st.just(False),
    multiples=st.one_of(st.just(()), st.tuples(divisors)),
    not_multiples=st.just(()),
    excluded=excluded,
)


@settings(max_examples=150, deadline=None)
@given(schemas, st.integers(0, 2**32), st.booleans())
def test_every_text_of_the_automaton_is_valid_in_both_arithmetics(schema, seed, canonical):
    dfa = dfa_of(schema, canonical)
    if dfa is None:
        return
    validator = Draft202012Validator(as_json_schema(schema))
    for text in walks(dfa, random.Random(seed)):
        value = json.loads(text)
        assert validator.is_valid(value), text
        assert exactly_valid(schema, text), text
        assert number_accepts(schema, value), text


@settings(max_examples=60, deadline=None)
@given(intervals, divisors, st.booleans(), excluded, st.integers(0, 2**32))
def test_negations_hold_in_both_arithmetics(interval, divisor, fractional, without, seed):
    schema = NumberSchema(interval, fractional=fractional, not_multiples=(divisor,), excluded=without)
    try:
        dfa = dfa_of(schema)
    except SchemaError as error:
        assert error.keyword == "not"
        return
    if dfa is not None:
        validator = Draft202012Validator(as_json_schema(schema))
        for text in walks(dfa, random.Random(seed)):
            assert validator.is_valid(json.loads(text)), text
            assert exactly_valid(schema, text), text


plain_texts = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.integers(-(10**18), 10**18).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    st.decimals(-100, 100, places=5).map(str),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e20, max_value=1e20).map(repr),
)


@settings(max_examples=400, deadline=None)
@given(intervals, excluded, plain_texts)
def test_an_ordinary_number_of_the_interval_is_accepted(interval, without, text):
    schema = NumberSchema(interval, excluded=without)
    value = json.loads(text)
    inside = Draft202012Validator(as_json_schema(schema)).is_valid(value) and exactly_valid(schema, text)
    needless_sign = value == 0 and text.startswith("-")  # left out where no number below zero is wanted
    if inside and "e" not in text and not needless_sign:
        assert is_accepted(dfa_of(schema), text)
    assert inside or not is_accepted(dfa_of(schema), text)


@settings(max_examples=200, deadline=None)
@given(intervals, st.integers(-(10**20), 10**20), st.booleans())
def test_integers_are_exact_however_long(interval, value, with_point):
    dfa = dfa_of(NumberSchema(interval, integer=True))
    text = f"{value}.0" if with_point else str(value)
    expected = exactly_valid(NumberSchema(interval), str(value)) and interval.contains(value)
    assert is_accepted(dfa, text) == (expected and (not with_point or abs(value) < 10**15))


def test_what_json_dumps_writes_for_a_float_is_accepted():
    rng = random.Random(3)
    free = dfa_of(NumberSchema())
    for _ in range(3_000):
        value = rng.uniform(-1, 1) * 10.0 ** rng.randint(-14, 243)
        assert is_accepted(free, json.dumps(value)), value


def test_exponents_are_accepted_where_the_whole_decade_lies_inside():
    small = dfa_of(NumberSchema(Interval(low=0, high=1)))
    assert all(is_accepted(small, text) for text in ("1e-05", "9.99e-1", "2.5E-300", "1e-007"))
    assert not any(is_accepted(small, text) for text in ("1e0", "2e+0", "1e5", "-1e-5", "10e-5"))
    large = dfa_of(NumberSchema(Interval(low=100)))
    assert all(is_accepted(large, text) for text in ("1e2", "1.5e+16", "9e307"))
    assert not any(is_accepted(large, text) for text in ("9e1", "1e-2", "1e308", "1e999"))


@pytest.mark.parametrize(
    "text", ["01", "-", "1.", ".5", "+1", "1e", "1e+", "- 1", "0x1", "NaN", "1_0", "--1", "1.e5", ""]
)
def test_what_is_not_json_is_not_a_number(text):
    assert not is_accepted(dfa_of(NumberSchema()), text)


def test_an_integer_may_be_written_with_a_zero_fraction_where_the_draft_says_so():
    schema = NumberSchema(Interval(low=1, high=10**20), integer=True)
    assert is_accepted(dfa_of(schema), "7.0") and is_accepted(dfa_of(schema), "999999999999999.0")
    assert not is_accepted(dfa_of(schema), "1000000000000000.0")
    assert not is_accepted(dfa_of(schema, point_zero=False), "7.0")
    assert not Draft4Validator({"type": "integer"}).is_valid(7.0)
    assert is_accepted(dfa_of(NumberSchema(multiples=(Fraction(7),)), point_zero=False), "7.0")


@pytest.mark.parametrize(
    ("divisor", "texts"),
    [
        ("0.01", ["19.98", "12.34", "500.25", "10000.0", "100.0", "123456.75", "3", "-2.5", "123456789012345"]),
        ("0.1", ["0.1", "7.5", "6.5", "1234.4", "-0.5", "40.0", "12", "9007199254740993"]),
        ("2.5", ["2.5", "0", "7.5", "-10", "10.0", "123452.5"]),
        ("0.0001", ["0.0075", "3.5"]),
        ("1e-8", ["12391239123"]),
        ("5", ["0", "15", "-15", "15.0", "123456785"]),
        ("1000", ["1000", "123000", "0"]),
        ("9007199254740993", ["9007199254740993", "0", "18014398509481986"]),
    ],
)
def test_multiples_are_accepted(divisor, texts):
    dfa = dfa_of(NumberSchema(multiples=(Fraction(divisor),)))
    for text in texts:
        assert is_accepted(dfa, text), text


def test_two_divisors_and_an_interval_hold_together():
    schema = NumberSchema(Interval(low=10, high=200, high_open=True), multiples=(Fraction(4), Fraction(6)))
    found = [value for value in range(-50, 300) if is_accepted(dfa_of(schema), str(value))]
    assert found == list(range(12, 200, 12))


def test_every_two_place_decimal_is_judged_as_both_arithmetics_judge_it():
    dfa = dfa_of(NumberSchema(Interval(low=0, high=100), multiples=(Fraction("0.01"),)))
    judge = Draft202012Validator({"multipleOf": 0.01})
    for cents in range(10_001):
        text = f"{cents // 100}.{cents % 100:02}"
        assert is_accepted(dfa, text) == judge.is_valid(json.loads(text)), text
    assert not is_accepted(dfa, "0.001") and not is_accepted(dfa, "100.01")


@pytest.mark.parametrize(
    "schema",
    [
        NumberSchema(Interval(low=1.2, high=1.8), integer=True),
        NumberSchema(Interval(low=10**80), integer=True),
        NumberSchema(Interval(low=0, low_open=True, high=5e-324, high_open=True)),
        NumberSchema(Interval(low=1, high=4), multiples=(Fraction(5),)),
        NumberSchema(Interval(low=3, high=3), excluded=frozenset({3.0})),
        NumberSchema(integer=True, fractional=True),
        NumberSchema(Interval(low=0, high=0), not_multiples=(Fraction(1),)),
    ],
)
def test_what_no_number_can_satisfy_is_known_to_be_empty(schema):
    assert dfa_of(schema) is None
    assert not number_is_possible(schema)
    assert count_numbers(schema, 10) == 0


@settings(max_examples=80, deadline=None)
@given(schemas)
def test_possible_says_whether_there_is_an_automaton(schema):
    assert number_is_possible(schema) == (dfa_of(schema) is not None)


def test_canonical_texts_are_as_many_as_numbers():
    schema = NumberSchema(Interval(low=-1, high=1), multiples=(Fraction("0.25"),))
    assert count_numbers(schema, 100) == 9
    assert count_numbers(NumberSchema(Interval(low=1, high=1000), integer=True), 10**6) == 1000
    assert count_numbers(NumberSchema(), 12345) == 12345
    dfa = dfa_of(NumberSchema(), canonical=True)
    rng = random.Random(5)
    texts = walks(dfa, rng, 3_000)
    assert len({json.loads(text) for text in texts}) == len(set(texts))
    for text in ("-0", "1.0", "1e5", "0.10", "-0.0"):
        assert not is_accepted(dfa, text)
    for text in ("-1", "0", "0.1", "-0.5", "1234567890123456789", "12345678901234.5"):
        assert is_accepted(dfa, text)


def test_a_tokenizer_without_some_bytes_leaves_no_dead_ends():
    dfa = number_dfa(NumberSchema(Interval(low=0)), True, ALL_BYTES - set(b".+"))
    assert is_accepted(dfa, "12e5")
    for text in walks(dfa, random.Random(1)):
        assert "." not in text or accepts(dfa, text.encode())
    assert number_dfa(NumberSchema(Interval(low=10)), True, frozenset(b"0.")) is None


@settings(max_examples=60, deadline=None)
@given(intervals, intervals, plain_texts)
def test_set_operations_on_automata_agree_with_those_on_truth_values(a, b, text):
    left, right = dfa_of(NumberSchema(a)), dfa_of(NumberSchema(b))
    if left is None or right is None:
        return
    in_left, in_right = is_accepted(left, text), is_accepted(right, text)
    assert is_accepted(intersection(left, right), text) == (in_left and in_right)
    assert is_accepted(union(left, right), text) == (in_left or in_right)
    assert is_accepted(difference(left, right), text) == (in_left and not in_right)


def test_texts_are_counted_and_loops_are_without_number():
    loop = Dfa()
    loop.edges, loop.finals = [{97: 0}], {0: 0}
    assert count_texts(loop, 50) == 50
    digits = dfa_of(NumberSchema(Interval(low=0, high=42), integer=True), canonical=True)
    assert count_texts(digits, 1000) == 43

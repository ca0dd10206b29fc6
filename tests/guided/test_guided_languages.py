"""Languages of string schemas and sets of numbers: emptiness, counts and disjointness against enumeration."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.guided.schema.nodes import Interval, NumberSchema, Pattern, StringSchema
from minillm_serve.guided.text.languages import (
    accepts,
    count_strings,
    has_length,
    language,
    may_accept,
    outer_language,
    string_is_empty,
    strings_disjoint,
)
from minillm_serve.guided.text.number_sets import number_is_empty, numbers_disjoint

WORDS = ["".join(word) for length in range(6) for word in product("ab", repeat=length)]
PATTERNS = ("^[ab]*$", "^a", "b$", "^(ab)*$", "^[ab]{2,3}$", "aa", "^(a|b)b?$", "^$")

texts = st.sampled_from(WORDS)
patterns = st.builds(Pattern, st.sampled_from(PATTERNS), negated=st.booleans())
schemas = st.builds(
    StringSchema,
    min_length=st.integers(0, 3),
    max_length=st.none() | st.integers(0, 4),
    patterns=st.lists(patterns, max_size=3).map(tuple),
    excluded=st.frozensets(texts, max_size=3),
)
ONLY_AB = Pattern("^[ab]*$")


def is_right(schema: StringSchema, text: str) -> bool:
    return (
        schema.min_length <= len(text)
        and (schema.max_length is None or len(text) <= schema.max_length)
        and text not in schema.excluded
        and all(bool(re.search(p.text, text)) != p.negated for p in schema.patterns)
    )


@settings(max_examples=150, deadline=None)
@given(schemas, texts)
def test_membership_is_that_of_the_patterns(schema: StringSchema, text: str) -> None:
    assert accepts(schema, text) == may_accept(schema, text) == is_right(schema, text)


@settings(max_examples=150, deadline=None)
@given(schemas)
def test_counts_and_emptiness_are_those_of_an_enumeration(schema: StringSchema) -> None:
    bounded = StringSchema(
        schema.min_length,
        min(5, schema.max_length if schema.max_length is not None else 5),
        (*schema.patterns, ONLY_AB),
        schema.excluded,
    )
    number = sum(is_right(bounded, word) for word in WORDS)
    assert count_strings(bounded, 1_000) == number
    assert count_strings(bounded, 2) == min(2, number)
    assert string_is_empty(bounded) == (number == 0)


@settings(max_examples=150, deadline=None)
@given(schemas, schemas)
def test_what_is_called_disjoint_shares_no_word(a: StringSchema, b: StringSchema) -> None:
    shared = [word for word in WORDS if is_right(a, word) and is_right(b, word)]
    if strings_disjoint(a, b):
        assert not shared


def test_disjoint_patterns_are_found() -> None:
    def schema(pattern: str) -> StringSchema:
        return StringSchema(patterns=(Pattern(pattern),))

    assert strings_disjoint(schema("^a"), schema("^b"))
    assert strings_disjoint(schema("^x{1,3}$"), StringSchema(5))  # Python finds the pattern in "xxx\n", too
    assert not strings_disjoint(schema("^a"), schema("b$"))
    assert strings_disjoint(schema("^a"), StringSchema(patterns=(Pattern("^a", negated=True),)))


def test_dialects_differ_between_the_inner_and_the_outer_language() -> None:
    """Python's ``\\d`` takes Arabic digits, ECMA's does not: neither ``\\d`` nor its negation may write them."""
    digit = StringSchema(patterns=(Pattern("^\\d$"),))
    no_digit = StringSchema(patterns=(Pattern("^\\d$", negated=True),))
    assert language(digit).match("7") >= 0 and language(digit).match("٣") < 0
    assert outer_language(digit).match("٣") >= 0
    assert not accepts(digit, "٣") and not accepts(no_digit, "٣")
    assert may_accept(digit, "٣") and may_accept(no_digit, "٣")
    assert not strings_disjoint(digit, StringSchema(patterns=(Pattern("^[٣]$"),)))


@pytest.mark.parametrize(
    ("pattern", "low", "high", "found"),
    [
        ("^(ab)*$", 999_999, 999_999, False),
        ("^(ab)*$", 1_000_000, 1_000_000, True),
        ("^(ab)*$", 999_999, None, True),
        ("^a{3}$", 4, None, False),
        ("^(aaa|bbbbb)*$", 7, 7, False),
        ("^(aaa|bbbbb)*$", 11, 11, True),
    ],
)
def test_lengths_far_out_need_no_counting(pattern: str, low: int, high: int | None, found: bool) -> None:
    dfa = language(StringSchema(patterns=(Pattern(pattern),)))
    assert dfa is not None and has_length(dfa, low, high) == found


# -- numbers -----------------------------------------------------------------------------------------------------------

bounds = st.none() | st.integers(-4, 4) | st.sampled_from([-1.5, 0.5, 2.5])
steps = st.lists(st.sampled_from([Fraction(1), Fraction(2), Fraction(3), Fraction(1, 2)]), max_size=2).map(tuple)
intervals = st.builds(Interval, bounds, st.booleans(), bounds, st.booleans())
numbers = st.builds(
    NumberSchema,
    interval=intervals,
    integer=st.booleans(),
    fractional=st.booleans(),
    multiples=steps,
    not_multiples=steps,
    excluded=st.frozensets(st.sampled_from([0, 1, 2, 0.5]), max_size=2),
)
GRID = [value / 4 for value in range(-48, 49)]


@settings(max_examples=200, deadline=None)
@given(numbers, numbers)
def test_sets_of_numbers_called_empty_or_disjoint_are(a: NumberSchema, b: NumberSchema) -> None:
    inside = [[value for value in GRID if accepts(schema, value)] for schema in (a, b)]
    assert not (number_is_empty(a) and inside[0])
    if numbers_disjoint(a, b):
        assert set(inside[0]).isdisjoint(inside[1])


@pytest.mark.parametrize(
    ("schema", "empty"),
    [
        (NumberSchema(Interval(0, True, 1, True), integer=True), True),
        (NumberSchema(Interval(0, True, 1, True)), False),
        (NumberSchema(Interval(1, False, 1, False), fractional=True), True),
        (NumberSchema(Interval(1, False, 5, False), multiples=(Fraction(2), Fraction(3))), True),
        (NumberSchema(Interval(1, False, 6, False), multiples=(Fraction(2), Fraction(3))), False),
        (NumberSchema(multiples=(Fraction(4),), not_multiples=(Fraction(2),)), True),
        (NumberSchema(Interval(0, False, 2, False), integer=True, excluded=frozenset({0, 1, 2})), True),
        (NumberSchema(integer=True, multiples=(Fraction(1, 2),)), False),
    ],
)
def test_emptiness_of_number_schemas(schema: NumberSchema, empty: bool) -> None:
    assert number_is_empty(schema) == empty

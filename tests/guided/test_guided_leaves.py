"""The finite automata at the leaves, against what a JSON parser and the reference validator make of the same text."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from itertools import product

import pytest
from guided_tools import accepts_text, compiled, dumps_all, strict_loads
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

EDGE_VALUES = [
    0, 1, -1, 0.5, -0.5, 0.1, 0.3, 9.99, 10, 99, 100, -100, 1e-7, 123456, 2**53, 2**53 + 1, -(2**53) - 1, 1e15, 1e17,
    1e300, -1e300, 5e-324, 0.30000000000000004, 10**20, -(10**30),
]  # fmt: skip
TEXTS = ["".join(p) for n in range(1, 5) for p in product("019-.e+", repeat=n)]


def is_number_text(text: str) -> bool:
    try:
        return isinstance(strict_loads(text), (int, float)) and text.strip() == text
    except ValueError:
        return False


def plain_text(text: str, low: float) -> bool:
    """Without exponent, and not a negative zero."""
    return "e" not in text and not (text.startswith("-") and (low >= 0 or strict_loads(text) == 0))


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize("low_key", ["minimum", "exclusiveMinimum"])
def test_every_short_text_is_judged_as_the_validator_judges_it(kind: str, low_key: str) -> None:
    """Sound for every text; complete for the plain ones (an exponent is only written where json.dumps would)."""
    rng = random.Random(kind + low_key)
    for _ in range(12):
        low = rng.choice(EDGE_VALUES[:13])
        schema = {"type": kind, low_key: low, "maximum": low + rng.choice([1, 10, 0.25, 1000])}
        validator = Draft202012Validator(schema)
        try:
            grammar = compiled(schema)
        except ValueError:  # no integer between the bounds
            continue
        for text in TEXTS:
            accepted = accepts_text(grammar, text)
            valid = is_number_text(text) and validator.is_valid(strict_loads(text))
            assert valid or not accepted, (schema, text)
            if valid and plain_text(text, low) and not (kind == "integer" and "." in text and not text.endswith(".0")):
                assert accepted, (schema, text)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(EDGE_VALUES),
    st.sampled_from(["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]),
    st.data(),
)
def test_bounds_hold_for_a_double_and_for_the_exact_decimal(bound: float, keyword: str, data: st.DataObject) -> None:
    """Texts around the bound, of many digits: what is accepted satisfies the bound both rounded and exactly."""
    try:
        grammar = compiled({"type": "number", keyword: bound})
    except ValueError:
        assert abs(bound) >= 1e100
        return
    validator = Draft202012Validator({keyword: bound})
    digits = data.draw(st.text("0123456789", min_size=1, max_size=25))
    exact = Decimal(repr(bound))
    near = [exact + Decimal(digits).scaleb(-shift) * sign for shift in (0, 5, 17, 25) for sign in (1, -1)]
    for value in [*near, exact]:
        text = format(value, "f")
        if accepts_text(grammar, text):
            assert validator.is_valid(strict_loads(text)), text
            assert {"minimum": value >= exact, "maximum": value <= exact}.get(keyword, value != exact), text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-(10**18), 10**18))
def test_numbers_as_python_writes_them_are_accepted(value: float) -> None:
    text = json.dumps(value)
    assert accepts_text(compiled({"type": "number"}), text)
    assert accepts_text(compiled({"type": "integer"}), text) == (
        isinstance(value, int) or (text.endswith(".0") and abs(value) < 1e15)
    )
    assert accepts_text(compiled({"const": value}), text)


@pytest.mark.parametrize(
    "text", ["01", "-", "+1", ".5", "1.", "1e", "1e+", "--1", "0x1", "NaN", "Infinity", "1e400", "00", "-01"]
)
def test_what_is_no_number_or_overflows_is_refused(text: str) -> None:
    assert not accepts_text(compiled({"type": "number"}), text)


def test_no_number_text_is_endless() -> None:
    grammar = compiled({"type": "number"})
    for text in ("9" * 100, "0." + "1" * 100, "1e" + "0" * 100, "1e500", "-" + "9" * 400):
        assert not accepts_text(grammar, text)
    assert accepts_text(grammar, "9" * 60) and accepts_text(grammar, "0." + "3" * 30)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=6), st.integers(0, 4), st.integers(0, 4))
def test_lengths_count_code_points_however_they_are_written(text: str, low: int, more: int) -> None:
    grammar = compiled({"type": "string", "minLength": low, "maxLength": low + more})
    for written in dumps_all(text):
        assert accepts_text(grammar, written) == (low <= len(text) <= low + more)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=8))
def test_string_contents_are_exactly_what_a_strict_parser_reads(contents: bytes) -> None:
    data = b'"' + contents + b'"'
    try:
        value = strict_loads(data.decode())
        valid = isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
    except ValueError:
        valid = False
    matcher = compiled({"type": "string"}).matcher()
    assert (matcher.accept_bytes(data) and matcher.is_complete()) == valid


@pytest.mark.parametrize(
    ("written", "good"),
    [
        ('"\\u0041\\u00e9\\uFFFD"', True),
        ('"\\ud83d\\ude00"', True),
        ('"\\uD83D\\uDE00"', True),
        ('"\\ud83d"', False),
        ('"\\ude00"', False),
        ('"\\ud83d\\u0041"', False),
        ('"\\ud83dx"', False),
        ('"\\x41"', False),
        ('"\\u12g4"', False),
        ('"\n"', False),
        ('"\\/\\b\\f\\n\\r\\t\\"\\\\"', True),
        ('"\x7f\u2028"', True),
    ],
)
def test_escapes(written: str, good: bool) -> None:
    assert accepts_text(compiled({"type": "string"}), written) is good


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.text(max_size=5) | st.integers(-50, 50) | st.booleans() | st.none(), min_size=1, max_size=6),
    st.text(max_size=5),
)
def test_enumerations_accept_their_values_in_every_writing_and_no_other(values: list, other: str) -> None:
    grammar = compiled({"enum": values})
    for value in values:
        assert all(accepts_text(grammar, text) for text in dumps_all(value))
    assert all(accepts_text(grammar, text) == (other in values) for text in dumps_all(other))

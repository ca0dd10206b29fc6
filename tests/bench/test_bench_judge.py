"""The judge accepts what is valid and nothing else; the questions asked are what the demo says they are."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from minillm_serve.bench.judge import judge, strict_loads
from minillm_serve.bench.prompts import PROMPTS, SCHEMA_CASES, evenly_spaced, guided_cases

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "x": {"type": "number"}},
    "required": ["age"],
    "additionalProperties": False,
}


def test_a_valid_answer_is_valid() -> None:
    assert judge('{"age": 3, "x": 1.5}', SCHEMA, "stop").valid


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"age": 3', "not JSON"),
        ('{"age": 3} and more', "not JSON"),
        ('Sure! {"age": 3}', "not JSON"),
        ('{"age": 3, "x": NaN}', "NaN is not JSON"),
        ('{"age": 3, "x": -Infinity}', "-Infinity is not JSON"),
        ('{"age": 3, "x": 1e999}', "does not fit a double"),
        ('{"age": 3, "age": 4}', "same key twice"),
        ('{"age": -1}', "$.age"),
        ('{"age": "3"}', "$.age"),
        ('{"x": 1}', "'age' is a required property"),
        ('{"age": 1, "extra": 0}', "extra"),
        ("[" * 100_000, "not JSON"),
        ("", "not JSON"),
    ],
)
def test_an_invalid_answer_is_refused_with_its_reason(text: str, reason: str) -> None:
    verdict = judge(text, SCHEMA, "stop")
    assert not verdict.valid
    assert reason in str(verdict.reason)


@pytest.mark.parametrize("finish_reason", ["length", "abort", None])
def test_an_answer_that_was_cut_is_invalid_even_if_it_parses(finish_reason: str | None) -> None:
    assert not judge('{"age": 3}', SCHEMA, finish_reason).valid


def test_strict_loads_keeps_ordinary_values() -> None:
    assert strict_loads('{"a": [1, 2.5, true, null, "x"]}') == {"a": [1, 2.5, True, None, "x"]}


def test_fifty_different_prompts_and_fifty_different_guided_requests() -> None:
    assert len(PROMPTS) == len(set(PROMPTS)) == 50
    assert len(SCHEMA_CASES) == 5
    assert len({case.prompt for case in guided_cases(50)}) == 50


def test_schemas_are_valid_json_schemas_and_any_count_covers_them_in_turns() -> None:
    for case in SCHEMA_CASES:
        Draft202012Validator.check_schema(case.schema)
    assert [case.name for case in guided_cases(7)][:5] == [case.name for case in SCHEMA_CASES]
    with pytest.raises(ValueError, match="there are 50"):
        guided_cases(51)


def test_the_baseline_sample_is_spread_over_all_prompts() -> None:
    assert evenly_spaced(5, 50) == [0, 10, 20, 30, 40]
    assert evenly_spaced(6, 50)[-1] >= 40
    assert evenly_spaced(3, 3) == [0, 1, 2]
    for count in (0, 51):
        with pytest.raises(ValueError, match="between 1 and 50"):
            evenly_spaced(count, 50)

"""Random schemas of every keyword, from the schema to the automaton: what is accepted is what is valid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from guided_random import SchemaMaker, instances
from guided_tools import byte_level
from jsonschema import Draft202012Validator

from minillm_serve.guided import CompiledGrammar, JsonOptions, SchemaError, compile_json_schema

ARABIC_THREE = "\u0663"
ORDERS = (JsonOptions(any_order=True), JsonOptions())


def accepts(grammar: CompiledGrammar, value: Any) -> bool:
    matcher = grammar.matcher()
    return matcher.accept_bytes(json.dumps(value, ensure_ascii=False).encode()) and matcher.is_complete()


@pytest.mark.parametrize("seed", range(5_000, 5_400, 50))
def test_texts_are_judged_as_the_validator_judges_their_values(seed: int) -> None:
    judged = 0
    for number in range(seed, seed + 50):
        schema = SchemaMaker(number, 12).document()
        options = ORDERS[number % 2]
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        try:
            grammar = compile_json_schema(schema, byte_level(), options=options)
        except SchemaError as error:
            assert error.kind != "unsatisfiable" or not any(map(validator.is_valid, instances(schema, number, 15)))
            continue
        for value in instances(schema, number, 15):
            accepted, valid = accepts(grammar, value), validator.is_valid(value)
            assert valid or not accepted, (schema, value)
            # In the schema's order some writings of an object are not offered; its scalars always are.
            assert accepted or not valid or (not options.any_order and isinstance(value, (dict, list))), (schema, value)
            judged += 1
    assert judged > 500


DIGIT = {"type": "string", "pattern": "^\\d$"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (DIGIT, ARABIC_THREE),
        ({"not": DIGIT}, ARABIC_THREE),
        ({"not": {"const": ARABIC_THREE, **DIGIT}}, ARABIC_THREE),
        ({"not": {"pattern": "^\\d$", "allOf": [{"pattern": f"^{ARABIC_THREE}"}]}}, ARABIC_THREE),
        ({"not": {"properties": {"a": {"enum": [ARABIC_THREE], **DIGIT}}, "required": ["a"]}}, {"a": ARABIC_THREE}),
        ({"oneOf": [{"enum": [ARABIC_THREE, "x"], "pattern": "^[\\dx]$"}, {"type": "string"}]}, ARABIC_THREE),
        ({"oneOf": [DIGIT, {"const": ARABIC_THREE}]}, ARABIC_THREE),
        ({"not": {"type": "string", "format": "time", "const": "23:59:60Z"}}, "23:59:60Z"),
    ],
)
def test_what_dialects_judge_differently_is_never_written(schema: Any, value: Any) -> None:
    """Python's ``\\d`` takes digits of every script, ECMA's only those of ASCII: no negation may rely on either."""
    try:
        grammar = compile_json_schema(schema, byte_level(), machine="reference")
    except SchemaError as error:
        assert error.kind == "unsatisfiable"
        return
    assert not accepts(grammar, value)

"""The judge of guided answers: strict JSON, then the ``jsonschema`` library; it shares nothing with the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isinf
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """Whether one answer is valid, and why not."""

    valid: bool
    reason: str | None = None


def strict_loads(text: str) -> Any:
    """``json.loads`` without Python's leniency: NaN, infinities and duplicate keys raise ``ValueError``."""
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)


def judge_by_draft(text: str, schema: Any, finish_reason: str | None) -> Verdict:
    """Like :func:`judge`, by the draft that ``$schema`` names (2020-12 without one), formats included."""
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.validators import validator_for

    validator = validator_for(schema, default=Draft202012Validator)
    return _judge(text, validator(schema, format_checker=FormatChecker()), finish_reason)


def judge(text: str, schema: dict[str, Any], finish_reason: str | None) -> Verdict:
    """Valid means: the model ended by itself, the text is strict JSON, and JSON Schema 2020-12 accepts it."""
    from jsonschema import Draft202012Validator

    return _judge(text, Draft202012Validator(schema), finish_reason)


def _judge(text: str, validator: Any, finish_reason: str | None) -> Verdict:
    if finish_reason != "stop":
        return Verdict(False, f"the answer did not end by itself (finish_reason {finish_reason!r})")
    try:
        value = strict_loads(text)
    except (ValueError, RecursionError) as error:
        return Verdict(False, f"not JSON: {error}")
    error = next(iter(validator.iter_errors(value)), None)
    if error is not None:
        return Verdict(False, f"{error.json_path}: {error.message}")
    return Verdict(True)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(literal: str) -> float:
    value = float(literal)
    if isinf(value):
        raise ValueError(f"{literal} does not fit a double")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value

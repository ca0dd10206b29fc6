"""The cases of the differential run, by area."""

from __future__ import annotations

from minillm_serve.compare.conformance.case import Case
from minillm_serve.compare.conformance.cases import (
    constraints,
    errors,
    generation,
    logprobs,
    operations,
    parameters,
    pooling,
    tokens,
    tools,
)

AREAS = (generation, parameters, logprobs, constraints, tools, tokens, operations, pooling, errors)


def all_cases() -> list[Case]:
    """Every case, its name unique."""
    made = [case for area in AREAS for case in area.cases()]
    names = [case.name for case in made]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"cases of the same name: {', '.join(sorted(repeated))}")
    return made

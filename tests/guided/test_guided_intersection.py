"""The algebra of alternatives: what two schemas both accept is what each of them accepts, for whatever they ask."""

from __future__ import annotations

from typing import Any

from guided_nodes import node_accepts
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minillm_serve.guided.budget import Budget, budget
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.normalise import Normaliser

NAMES = ["a", "b", "ab", "x1"]
PATTERNS = ["^a", "b$", "[0-9]", "^x"]
STRINGS = ["", "a", "ab", "b1", "2024-01-01"]
SCALARS: list[Any] = [None, True, 0, 1, 2.5, 6, *STRINGS]
counts = st.integers(0, 3)
name = st.sampled_from(NAMES)


def optional(**keywords: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries({}, optional=keywords)


def schemas(children: st.SearchStrategy) -> st.SearchStrategy:
    objects = optional(
        properties=st.dictionaries(name, children, max_size=2),
        patternProperties=st.dictionaries(st.sampled_from(PATTERNS), children, max_size=2),
        additionalProperties=children,
        propertyNames=st.sampled_from([{"pattern": "^a"}, {"maxLength": 1}, {"enum": ["a", "x1"]}, {"minLength": 1}]),
        required=st.lists(name, max_size=2, unique=True),
        minProperties=counts,
        maxProperties=counts,
        dependentRequired=st.dictionaries(name, st.lists(name, max_size=1), max_size=1),
    )
    arrays = optional(
        prefixItems=st.lists(children, min_size=1, max_size=2),
        items=children,
        minItems=counts,
        maxItems=counts,
        uniqueItems=st.booleans(),
        contains=children,
        minContains=counts,
        maxContains=counts,
    )
    unions = st.fixed_dictionaries({"anyOf": st.lists(children, min_size=1, max_size=2)})
    return st.one_of(objects, arrays, unions)


leaves = st.one_of(
    st.booleans(),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3)}),
    st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "null", "object", "array")]),
    optional(minLength=counts, maxLength=counts, pattern=st.sampled_from(PATTERNS), format=st.just("date")),
    optional(minimum=counts, exclusiveMaximum=st.integers(1, 6), multipleOf=st.sampled_from([2, 0.5, 3])),
)
any_schema = st.recursive(leaves, schemas, max_leaves=6)
values = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "y"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_schema, any_schema, st.lists(values, min_size=4, max_size=8))
def test_both_nodes_accept_what_their_intersection_accepts(left: Any, right: Any, instances: list[Any]) -> None:
    normaliser = Normaliser({"$defs": {"left": left, "right": right}})
    try:
        with budget(Budget(seconds=60.0)):
            a, b = (normaliser.node(raw, f"/$defs/{name}") for name, raw in (("left", left), ("right", right)))
            both = normaliser.both(a, b)
            for value in instances:
                expected = node_accepts(a, value, normaliser) and node_accepts(b, value, normaliser)
                assert node_accepts(both, value, normaliser) == expected, value
    except SchemaError as error:
        assume(error.kind == "unsupported")
        raise AssertionError(f"nothing here is unsupported: {error}") from error


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_schema, any_schema, any_schema)
def test_the_same_parts_make_the_same_node(a: Any, b: Any, c: Any) -> None:
    normaliser = Normaliser(True)
    x, y, z = (normaliser.node(raw, "") for raw in (a, b, c))
    one, other = normaliser.both(normaliser.both(x, y), z), normaliser.both(x, normaliser.both(y, z))
    assert one is other or one.is_false or other.is_false
    assert normaliser.both(one, x) is one or one.is_false

"""not, oneOf, if, dependentSchemas and unevaluated*: exact on the normalised form, and small where they can be."""

from __future__ import annotations

from typing import Any

import pytest
from guided_nodes import node_accepts
from guided_random import SchemaMaker, instances
from jsonschema import Draft202012Validator

from minillm_serve.guided import SchemaError
from minillm_serve.guided.budget import budget
from minillm_serve.guided.schema.complement import complement
from minillm_serve.guided.schema.disjoint import disjoint
from minillm_serve.guided.schema.nodes import LiteralSchema, Node, ObjectSchema, StringSchema
from minillm_serve.guided.schema.normalise import Normaliser


def normalised(schema: Any) -> tuple[Node, Normaliser]:
    with budget():
        normaliser = Normaliser(schema)
        return normaliser.run(), normaliser


def objects(schema: Any) -> list[ObjectSchema]:
    root, _ = normalised(schema)
    return [alternative for alternative in root.alternatives or () if isinstance(alternative, ObjectSchema)]


# -- against an independent validator ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 400, 40))
def test_random_schemas_mean_what_the_validator_says(seed: int) -> None:
    checked = 0
    for number in range(seed, seed + 40):
        schema = SchemaMaker(number, 14).document()
        validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        try:
            root, graph = normalised(schema)
        except SchemaError as error:
            assert error.kind != "unsatisfiable" or not any(map(validator.is_valid, instances(schema, number, 20)))
            continue
        for instance in instances(schema, number, 20):
            assert node_accepts(root, instance, graph) == validator.is_valid(instance), (schema, instance)
            checked += 1
    assert checked > 400


@pytest.mark.parametrize("seed", range(0, 120, 40))
def test_a_value_satisfies_either_a_node_or_its_complement(seed: int) -> None:
    checked = 0
    for number in range(seed, seed + 40):
        schema = SchemaMaker(number, 8).document()
        try:
            root, graph = normalised(schema)
            other = complement(root, graph)
            graph.resolve(other)
        except SchemaError:
            continue
        assert complement(other, graph) is root or other.is_false or root.is_false
        for instance in instances(schema, number, 15):
            assert node_accepts(root, instance, graph) != node_accepts(other, instance, graph), (schema, instance)
            checked += 1
    assert checked > 300


def test_disjoint_nodes_share_no_value() -> None:
    proven = 0
    for seed in range(150):
        schemas = [SchemaMaker(seed * 2 + i, 5).document() for i in range(2)]
        schema = {"prefixItems": [{k: v for k, v in s.items() if k != "$ref"} for s in schemas if isinstance(s, dict)]}
        if len(schema["prefixItems"]) < 2:
            continue
        try:
            root, graph = normalised(schema)
        except SchemaError:
            continue
        array = next(a for a in root.alternatives or () if hasattr(a, "prefix"))
        if len(array.prefix) < 2 or not disjoint(*array.prefix, graph):
            continue
        proven += 1
        for instance in [x for s in schemas for x in instances(s, seed, 20)]:
            assert not all(node_accepts(node, instance, graph) for node in array.prefix), (schema, instance)
    assert proven > 20


# -- small results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "count"),
    [
        ({"not": {"required": ["a"]}}, 1),
        ({"not": {"required": ["a", "b"]}}, 2),
        ({"not": {"anyOf": [{"required": [name]} for name in "abcdef"]}}, 1),
        ({"not": {"not": {"properties": {"a": {"type": "string"}}, "required": ["a"]}}}, 1),
        ({"not": {"properties": {"kind": {"enum": ["x", "y"]}}, "required": ["kind"]}}, 1),
        ({"type": "object", "not": {"type": "string"}}, 1),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, 2),
    ],
)
def test_common_negations_stay_small(schema: Any, count: int) -> None:
    assert len(objects(schema)) == count


def test_a_double_negation_is_the_schema_itself() -> None:
    root, _ = normalised({"not": {"not": {"type": "string", "maxLength": 3}}})
    (string,) = root.alternatives or ()
    assert isinstance(string, StringSchema) and string.max_length == 3 and not string.patterns


@pytest.mark.parametrize("required", [True, False], ids=["required in the branch", "required beside oneOf"])
def test_branches_with_a_discriminator_are_a_plain_union(required: bool) -> None:
    branches = [
        {
            "properties": {"kind": {"const": f"k{i}"}, "size": {"type": "integer", "maximum": i}},
            "required": ["kind", "size"] if required else ["size"],
        }
        for i in range(60)
    ]
    beside = {} if required else {"properties": {"kind": {"type": "string"}}, "required": ["kind"]}
    found = objects({"type": "object", "oneOf": branches, **beside})
    assert len(found) == 60
    assert all(not schema.witnesses and len(schema.properties) == 2 for schema in found)


def test_a_chain_of_conditions_grows_with_its_length_only() -> None:
    chain = [
        {"if": {"properties": {"kind": {"const": f"k{i}"}}}, "then": {"required": [f"field{i}"]}} for i in range(40)
    ]
    schema = {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"], "allOf": chain}
    assert len(objects(schema)) == 41


def test_equal_branches_exclude_each_other() -> None:
    with pytest.raises(SchemaError) as caught:
        normalised({"oneOf": [{"type": "string"}, {"type": "string"}]})
    assert caught.value.kind == "unsatisfiable"


def test_integer_or_number_leaves_the_fractions() -> None:
    root, graph = normalised({"oneOf": [{"type": "integer"}, {"type": "number"}]})
    assert [node_accepts(root, value, graph) for value in (1, 1.0, 1.5, "1")] == [False, False, True, False]


def test_constants_are_taken_out_of_strings() -> None:
    root, graph = normalised({"type": "string", "not": {"enum": ["a", "b", 3]}})
    (string,) = root.alternatives or ()
    assert string.excluded == {"a", "b"}
    assert not node_accepts(root, "a", graph) and node_accepts(root, "c", graph)


def test_a_recursive_complement_is_finite() -> None:
    tree = {"type": "object", "properties": {"child": {"not": {"$ref": "#/$defs/tree"}}}, "required": ["child"]}
    root, graph = normalised({"$defs": {"tree": tree}, "$ref": "#/$defs/tree"})
    assert node_accepts(root, {"child": 1}, graph)
    assert node_accepts(root, {"child": {"child": {"child": 1}}}, graph)
    assert not node_accepts(root, {"child": {"child": 1}}, graph)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "keyword", "path", "words"),
    [
        ({"items": {"not": {"uniqueItems": True}}}, "not", "/items/not", "uniqueItems"),
        ({"if": {"uniqueItems": True}, "then": {"minItems": 2}}, "if", "", "uniqueItems"),
        ({"oneOf": [{"uniqueItems": True}, {"minItems": 3}]}, "oneOf", "/oneOf", "branches 1 and 0"),
    ],
)
def test_what_cannot_be_negated_is_refused(schema: Any, keyword: str, path: str, words: str) -> None:
    with pytest.raises(SchemaError, match=words) as caught:
        normalised(schema)
    assert (caught.value.keyword, caught.value.path) == (keyword, path)


def wide(i: int, tagged: bool = False) -> dict[str, Any]:
    members = {f"p{j}": {"type": "string", "maxLength": (i * j) % 7 + 1} for j in range(20)}
    return {"type": "object", "properties": members, "required": [f"p{i}"] if tagged else []}


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [wide(i) for i in range(20)]},
        {"not": {"anyOf": [wide(i) for i in range(20)]}},
        {"allOf": [{"if": {"required": [f"a{i}"]}, "then": {"minProperties": i}} for i in range(40)]},
        {"dependentSchemas": {f"a{i}": {"properties": {f"b{i}": {"type": "null"}}} for i in range(40)}},
        {"anyOf": [{"properties": {f"a{i}": {"type": "null"}}} for i in range(40)], "unevaluatedProperties": False},
    ],
    ids=["oneOf", "not", "if", "dependentSchemas", "unevaluatedProperties"],
)
def test_what_expands_without_bound_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        normalised(schema)
    assert caught.value.kind == "unsupported"


# -- unevaluated -------------------------------------------------------------------------------------------------------


def test_evaluated_members_need_no_other_branch() -> None:
    """In each case only the members of the branches that hold are left over to unevaluatedProperties."""
    branch = {name: {"properties": {name: {"type": "integer"}}, "required": [name]} for name in "ab"}
    found = objects({"type": "object", "anyOf": list(branch.values()), "unevaluatedProperties": False})
    allowed = {frozenset(name for name, node in o.properties.items() if not node.is_false) for o in found}
    assert allowed == {frozenset("a"), frozenset("b"), frozenset("ab")}


def test_literals_of_a_union_are_one_alternative() -> None:
    root, _ = normalised({"anyOf": [{"const": value} for value in (1, "a", None, 1.0)]})
    (literal,) = root.alternatives or ()
    assert isinstance(literal, LiteralSchema) and literal.values == (1, "a", None)

"""From nodes to the network: objects, arrays, whitespace, and the promises that every network makes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from guided_containers import random_instance, random_schema
from guided_tools import accepts_text, byte_level, compiled, generate, strict_loads
from jsonschema import Draft202012Validator

from minillm_serve.guided import SchemaError
from minillm_serve.guided.grammar.member_places import BLOCK
from minillm_serve.guided.grammar.network import RETURN, UNBOUNDED_COST, Call, Jump, Network
from minillm_serve.guided.grammar.shortest import free_text, shortest_text
from minillm_serve.guided.options import WHITESPACE
from minillm_serve.guided.text.regex import compile_pattern

SEPARATORS = {"json": (", ", ": "), "compact": (",", ":"), "spaced": (", ", ": "), "flexible": (" ,\n ", "\t:\r\n")}


def options_of(seed: int) -> dict[str, Any]:
    return {"any_order": bool(seed % 3), "whitespace": WHITESPACE[seed // 3 % 4]}


def dumped(value: Any, whitespace: str) -> str:
    return json.dumps(value, separators=SEPARATORS[whitespace], ensure_ascii=False)


# -- random schemas about members and items, against the jsonschema package --------------------------------------------


@pytest.mark.parametrize("block", range(6))
def test_whatever_is_written_is_valid_and_whatever_is_valid_can_be_written(block: int) -> None:
    valid = 0
    for seed in range(block * 25, block * 25 + 25):
        schema, rng = random_schema(seed), random.Random(seed)
        judge, options = Draft202012Validator(schema), options_of(seed)
        instances = [random_instance(rng, schema) for _ in range(25)]
        try:
            grammar = compiled(schema, **options)
        except SchemaError as error:
            assert error.kind == "unsatisfiable", (schema, error)
            assert not any(map(judge.is_valid, instances)), schema
            continue
        text = generate(grammar, seed, free_tokens=25)
        assert judge.is_valid(strict_loads(text)), (schema, text)
        for value in instances:
            accepted, wanted = accepts_text(grammar, dumped(value, options["whitespace"])), judge.is_valid(value)
            assert wanted or not accepted, (schema, value)
            if options["any_order"]:
                assert accepted == wanted, (schema, value)
            valid += wanted
    assert valid > 60


# -- the promises of a network -----------------------------------------------------------------------------------------


def successors(network: Network, state: int) -> list[int]:
    found: list[int] = []
    for arc in network.expand(state):
        if isinstance(arc, Call):
            found += [arc.entry, arc.then]
        elif isinstance(arc, Jump):
            found.append(arc.target)
        else:
            found += arc.targets
    return found


@pytest.mark.parametrize("seed", range(60))
def test_every_state_has_a_way_on_and_a_cost_that_one_of_its_ways_keeps(seed: int) -> None:
    try:
        network = compiled(random_schema(seed), **options_of(seed)).network
    except SchemaError:
        return
    seen, queue = {network.start}, [network.start]
    for state in queue[:400]:
        if state == RETURN:
            continue
        assert network.expand(state), network.describe(state)
        assert 0 <= network.cost(state) < UNBOUNDED_COST, network.describe(state)
        for target in successors(network, state):
            if target not in seen:
                seen.add(target)
                queue.append(target)


def test_making_the_network_again_gives_the_same_network() -> None:
    def drawn() -> list[str]:
        network = compiled(random_schema(11), any_order=True).network
        queue = [network.start]
        for state in queue[:100]:
            queue += [t for t in successors(network, state) if t != RETURN and t not in queue] if state else []
        return [network.describe(state) for state in queue]

    assert drawn() == drawn()


# -- objects -----------------------------------------------------------------------------------------------------------


def accepted(schema: dict[str, Any], *texts: str, **options: Any) -> list[str]:
    grammar = compiled(schema, **options)
    return [text for text in texts if accepts_text(grammar, text)]


def test_a_name_depends_on_names_before_and_behind_it() -> None:
    schema = {
        "type": "object",
        "properties": dict.fromkeys("abc", True),
        "dependentRequired": {"a": ["c"], "c": ["b"]},
        "additionalProperties": False,
    }
    texts = ['{"a":1}', '{"b":1}', '{"a":1,"b":1}', '{"b":1,"c":1}', '{"a":1,"b":1,"c":1}', '{"c":1}', '{"a":1,"c":1}']
    assert accepted(schema, *texts) == ['{"b":1}', '{"b":1,"c":1}', '{"a":1,"b":1,"c":1}']
    assert accepted(schema, '{"c":1,"b":1,"a":1}', '{"c":1,"a":1}', any_order=True) == ['{"c":1,"b":1,"a":1}']


def test_the_least_number_of_members_counts_on_no_more_names_than_there_are() -> None:
    schema = {"type": "object", "patternProperties": {"^[ab]$": {}}, "additionalProperties": False, "minProperties": 2}
    assert accepted(schema, '{"a":1}', '{"b":1,"a":1}', '{"a":1,"b":2') == ['{"b":1,"a":1}']
    with pytest.raises(SchemaError):
        compiled(schema | {"minProperties": 3})
    grammar = compiled(schema)
    matcher = grammar.matcher()
    assert matcher.accept_bytes(b'{"a":1,"b":1') and matcher.forced_bytes()[-1:] != b","
    assert not matcher.accept_bytes(b",")


def test_a_property_after_which_too_few_are_left_is_not_offered() -> None:
    schema = {"properties": dict.fromkeys("abc", True), "additionalProperties": False, "minProperties": 2}
    assert accepted({"type": "object"} | schema, '{"c":1', '{"b":1,"c":1}', '{"a":1,"c":1}', '{"a":1}') == [
        '{"b":1,"c":1}',
        '{"a":1,"c":1}',
    ]


def test_names_by_pattern_take_the_values_of_all_patterns_they_match() -> None:
    schema = {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}, "z$": {"minimum": 3}},
        "additionalProperties": {"type": "null"},
    }
    texts = ['{"a":1}', '{"az":1}', '{"az":4}', '{"z":2.5}', '{"z":3.5}', '{"b":null}', '{"b":1}', '{"a":null}']
    assert accepted(schema, *texts) == ['{"a":1}', '{"az":4}', '{"z":3.5}', '{"b":null}']


def test_some_further_member_must_violate_what_is_negated() -> None:
    schema = {"type": "object", "not": {"additionalProperties": {"type": "integer"}}, "maxProperties": 2}
    texts = ['{"a":1}', '{"a":1,"b":"x"}', '{"b":"x","a":1}', "{}", '{"a":1,"b":2}', '{"a":1,"b":2,"c":""}']
    assert accepted(schema, *texts) == ['{"a":1,"b":"x"}', '{"b":"x","a":1}']


def test_a_forbidden_name_is_no_further_name_however_it_is_spelled() -> None:
    schema = {"type": "object", "properties": {"é": False}}
    assert accepted(schema, '{"é":1}', '{"\\u00e9":1}', '{"\\u00E9":1}', '{"e":1}') == ['{"e":1}']


def test_any_order_writes_each_name_once_however_it_is_spelled() -> None:
    schema = {"type": "object", "properties": {"é": {}, "b": {}}, "required": ["b"], "additionalProperties": False}
    texts = ['{"é":1,"\\u00e9":2,"b":1}', '{"b":1,"b":1}', '{"b":1,"é":1}', '{"é":1,"b":1}', '{"\\u00e9":1}']
    assert accepted(schema, *texts, any_order=True) == ['{"b":1,"é":1}', '{"é":1,"b":1}']


def test_many_properties_share_the_leaves_of_their_names() -> None:
    number = 40 * BLOCK
    names = [f"p{i}" for i in range(number)]
    schema = {"type": "object", "properties": dict.fromkeys(names, True), "additionalProperties": False}
    grammar = compiled(schema)
    assert accepts_text(grammar, json.dumps(dict.fromkeys(names[::97])))
    assert not accepts_text(grammar, '{"p5":null,"p4":null}')
    read = sum(len(leaf.texts) for leaf in grammar.network.leaves if hasattr(leaf, "texts"))
    assert read < 30 * number  # every place with a leaf of its own for all names behind it: 600 for each


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_contains_counts_between_its_bounds() -> None:
    schema = {
        "type": "array",
        "items": {"type": "integer"},
        "contains": {"const": 7},
        "minContains": 2,
        "maxContains": 3,
    }
    texts = ["[7]", "[7,7]", "[1,7,2,7,3]", "[7,7,7]", "[7,7,7,7]", "[]", "[1,2]", '["a",7,7]']
    assert accepted(schema, *texts) == ["[7,7]", "[1,7,2,7,3]", "[7,7,7]"]
    assert accepted(schema | {"maxItems": 3}, "[7,1,7]", "[1,2", "[1,7,7]") == ["[7,1,7]", "[1,7,7]"]


def test_one_item_may_count_for_several_contains() -> None:
    both = [{"contains": {"type": "string"}}, {"contains": {"enum": ["a", 1]}}]
    schema = {"type": "array", "allOf": both, "maxItems": 1}
    assert accepted(schema, '["a"]', '["b"]', "[1]", "[]") == ['["a"]']


UNIQUE = [
    ({"type": "string"}, '["a","\\u0061"]', '["a","b",""]'),
    ({"enum": ["a", "é", 1, None]}, '["é","\\u00e9"]', '["é",1,null,"a"]'),
    ({"type": "number"}, "[1,2,1]", "[1,2.5,-1,0]"),
    ({"type": ["integer", "string", "boolean"]}, '[1,"1",true,1]', '[1,"1",true,false,"true"]'),
]


@pytest.mark.parametrize(("items", "twice", "once"), UNIQUE)
def test_unique_items_are_compared_by_value(items: Any, twice: str, once: str) -> None:
    schema = {"type": "array", "items": items, "uniqueItems": True}
    assert accepted(schema, twice, once) == [once]


def test_numbers_that_are_to_be_unique_have_one_spelling() -> None:
    schema = {"type": "array", "items": {"type": "number"}, "uniqueItems": True}
    assert accepted(schema, "[1.0]", "[1e0]", "[-0]", "[1.50]", "[1.5]", "[0]") == ["[1.5]", "[0]"]


def test_unique_items_end_when_there_is_no_other_value() -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}
    assert compiled(schema | {"minItems": 2}).matcher().forced_bytes() == b'["'
    assert accepted(schema, '["b","a"]', '["b","a",') == ['["b","a"]']
    with pytest.raises(SchemaError):
        compiled(schema | {"minItems": 3})
    with pytest.raises(SchemaError) as refused:
        compiled({"type": "array", "items": {"type": "object"}, "uniqueItems": True})
    assert (refused.value.keyword, refused.value.path) == ("uniqueItems", "/uniqueItems")


# -- whitespace, spelling, depth ---------------------------------------------------------------------------------------


def test_each_whitespace_policy_accepts_its_own_writing() -> None:
    value = {"a": [1, {"b": []}], "c": {}}
    writings = {name: dumped(value, name) for name in WHITESPACE} | {"padded": f" \n{dumped(value, 'flexible')}\t"}
    taken = {
        name: [w for w, text in writings.items() if text in accepted({}, text, whitespace=name)] for name in WHITESPACE
    }
    assert taken["compact"] == ["compact"]
    assert taken["spaced"] == ["json", "spaced"]
    assert taken["json"] == ["json", "compact", "spaced"]
    assert taken["flexible"] == [*WHITESPACE, "padded"]


def test_flexible_whitespace_is_bounded() -> None:
    texts = ["[" + " " * n + "1" + "\n" * n + "]" + " " * n for n in (2, 3)]
    assert accepted({}, *texts, whitespace="flexible", max_whitespace=2) == texts[:1]
    assert accepted({}, "[1, 2]", "[1,2]", whitespace="flexible", max_whitespace=0) == ["[1,2]"]


def test_at_the_limit_of_depth_only_what_still_fits_is_offered() -> None:
    members = {"deep": {"$ref": "#/$defs/two"}, "leaf": {"type": "null"}, "next": {"$ref": "#/$defs/node"}}
    two = {"type": "object", "properties": {"x": {"type": "array"}}, "required": ["x"], "additionalProperties": False}
    node = {"type": "object", "properties": members, "additionalProperties": False}
    grammar = compiled({"$ref": "#/$defs/node", "$defs": {"node": node, "two": two}})
    tail = {"deep": '"deep":{"x":[]}', "leaf": '"leaf":null'}
    for levels, kind, fits in [(61, "deep", True), (62, "deep", False), (63, "leaf", True), (64, "leaf", False)]:
        text = '{"next":' * levels + "{" + tail[kind] + "}" * (levels + 1)
        assert accepts_text(grammar, text) == fits, (levels, kind)


def test_the_start_of_a_deep_schema_costs_what_its_shortest_text_has() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(63):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    assert compiled(schema).matcher().cost() == 63 * len('{"a":}') + 1


def test_bounds_on_the_shortest_string() -> None:
    assert shortest_text(None, 3, None) == 5
    assert shortest_text(compile_pattern("^(aaaa|é)$"), 0, 1) >= len('"é"'.encode())  # four letters are too many
    assert shortest_text(compile_pattern("^[a-z]+$"), 4, None) == 6
    assert free_text(None, 0, None, 0) <= 4 and free_text(compile_pattern("^[ab]{3}$"), 0, None, 7) >= 5
    assert free_text(compile_pattern("^[ab]{3}$"), 0, None, 8) == UNBOUNDED_COST


def test_a_tokenizer_without_some_bytes_writes_only_what_it_can() -> None:
    from minillm_serve.guided.budget import budget
    from minillm_serve.guided.grammar.json_network import build_json_network
    from minillm_serve.guided.options import JsonOptions
    from minillm_serve.guided.schema.normalise import Normaliser

    def build(schema: Any, alphabet: bytes) -> Network:
        with budget():
            normaliser = Normaliser(schema, JsonOptions())
            return build_json_network(normaliser.run(), normaliser, JsonOptions(), frozenset(alphabet))

    names = {"type": "object", "properties": {"a": True, "k": {"const": 1}}, "required": ["k"]}
    assert build(names, b'{}",:k1').cost(1) == len('{"k":1}')
    for schema, alphabet in [(names, b'{}",:1a'), ({"type": "string"}, b"abc"), ({"enum": ["é"]}, b'"abc')]:
        with pytest.raises(SchemaError) as refused:
            build(schema, alphabet)
        assert refused.value.kind == "unsatisfiable"


def test_the_network_is_the_same_whatever_the_tokenizer_when_it_knows_every_byte() -> None:
    schema = random_schema(3)
    assert len(compiled(schema, byte_level()).network.places) == len(compiled(schema, byte_level(500)).network.places)

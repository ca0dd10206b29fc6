"""One door for all constraints: each kind is honoured, and a refusal names the field of the request."""

from __future__ import annotations

import json

import pytest
from guided_tools import accepts_ids, byte_level, generate, sentencepiece_like, strict_loads, tokenisations

from minillm_serve.guided.automaton import native
from minillm_serve.guided.automaton.matcher import CompiledGrammar
from minillm_serve.guided.constraints import compile_constraint
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.lines import build_choice_network, build_regex_network
from minillm_serve.params import StructuredOutputsParams

TOKENIZERS = [byte_level, sentencepiece_like]


def compiled(tokenizer=byte_level, **fields) -> CompiledGrammar:
    return compile_constraint(StructuredOutputsParams(**fields), tokenizer())


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    """By bytes; and, if that is yes, in several tokenisations too."""
    matcher = grammar.matcher()
    found = matcher.accept_bytes(text.encode()) and matcher.is_complete()
    if found:
        assert all(accepts_ids(grammar, ids) for ids in tokenisations(grammar, text))
    return found


CASES = [
    ({"json": {"type": "array", "items": {"type": "integer"}}}, ["[]", "[1, 2]"], ["1", '["a"]']),
    ({"json": '{"type": "integer", "minimum": 5}'}, ["5", "12"], ["4", "5.5"]),
    ({"regex": r"(\d{3}-)?[a-f]+é?"}, ["123-abcé", "f"], ["", "12-a", "abcg", " f"]),
    ({"regex": "a|ab|abc$"}, ["a", "ab", "abc"], ["abcd", "b"]),
    ({"choice": ("yes", "no", "yesterday", "¡sí!")}, ["yes", "yesterday", "no", "¡sí!"], ["", "ye", "yesno"]),
    ({"choice": ("", "a")}, ["", "a"], ["b", "aa"]),
    ({"grammar": 'root ::= "(" root? ")"'}, ["()", "((()))"], ["", "(()"]),
    ({"grammar": 'start: "a" start?'}, ["a", "aaa"], ["", "ab"]),
    ({"json_object": True}, ["{}", '{"a": [1, {"b": null}]}'], ["[]", "1", '{"a"}']),
    (
        {"structural_tag": {"type": "structural_tag", "format": {"type": "regex", "pattern": "[xy]{2}"}}},
        ["xy", "xx"],
        ["x", "xyz"],
    ),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize(("fields", "inside", "outside"), CASES, ids=[next(iter(case[0])) for case in CASES])
def test_each_kind_of_constraint_is_honoured(tokenizer, fields, inside, outside):
    grammar = compiled(tokenizer, **fields)
    for text in inside:
        assert accepts(grammar, text), text
    for text in outside:
        assert not accepts(grammar, text), text


@pytest.mark.parametrize(("fields", "inside", "outside"), CASES, ids=[next(iter(case[0])) for case in CASES])
def test_generation_always_ends_inside(fields, inside, outside):
    grammar = compiled(**fields)
    for seed in range(5):
        assert accepts(grammar, generate(grammar, seed))


@pytest.mark.parametrize(("fields", "inside", "outside"), CASES, ids=[next(iter(case[0])) for case in CASES])
def test_both_machines_allow_the_same_tokens(fields, inside, outside):
    if not native.available():
        pytest.skip("no C++ compiler here")
    params = StructuredOutputsParams(**fields)
    pair = [compile_constraint(params, byte_level(), machine=machine) for machine in ("native", "reference")]
    for text in inside:
        for ids in tokenisations(pair[0], text):
            one, other = (grammar.matcher() for grammar in pair)
            for token in ids:
                assert (one.fill_mask() == other.fill_mask()).all()
                assert one.cost() == other.cost() and one.forced_bytes() == other.forced_bytes()
                assert one.accept(token) and other.accept(token)
            assert (one.fill_mask() == other.fill_mask()).all() and one.is_complete()


def test_any_json_object_is_json():
    grammar = compiled(json_object=True)
    for seed in range(10):
        assert isinstance(strict_loads(generate(grammar, seed)), dict)


def test_options_reach_json():
    schema = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}
    assert not accepts(compiled(json=schema), '{"b": 1, "a": 2}')
    assert accepts(compiled(json=schema, any_order=True), '{"b": 1, "a": 2}')
    assert not accepts(compiled(json=schema, whitespace="compact"), '{"a": 1}')
    assert accepts(compiled(json=schema, whitespace="flexible"), '{\n  "a" : 1, "b":2 }')


@pytest.mark.parametrize(
    ("fields", "keyword", "param"),
    [
        ({"json": {"$ref": "#/nowhere"}}, "$ref", "structured_outputs.json"),
        ({"regex": "(a"}, "regex", "structured_outputs.regex"),
        ({"regex": r"(a)\1"}, "regex", "structured_outputs.regex"),
        ({"regex": "(?=b)a"}, "regex", "structured_outputs.regex"),
        ({"choice": ("a", "\ud800")}, "choice", "structured_outputs.choice"),
        ({"grammar": "root ::= "}, "grammar", None),
        ({"grammar": "root ::= x"}, "grammar", "structured_outputs.grammar"),
        ({"structural_tag": {}}, "structural_tag", "structured_outputs.structural_tag"),
        ({"structural_tag": "{"}, "structural_tag", "structured_outputs.structural_tag"),
    ],
)
def test_refusals_name_the_field(fields, keyword, param):
    if param is None:  # the empty text is a text
        assert accepts(compiled(**fields), "")
        return
    with pytest.raises(SchemaError) as caught:
        compiled(**fields)
    assert (caught.value.keyword, caught.value.param) == (keyword, param)


@pytest.mark.parametrize("build", [build_regex_network, build_choice_network])
@pytest.mark.parametrize("value", [None, 3, [], [1], {}])
def test_values_of_the_wrong_type_are_refused(build, value):
    with pytest.raises(SchemaError):
        build(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"regex": "(a+)+$"},
        {"regex": "(x{1,1000}){1,1000}"},
        {"regex": "(" * 5_000},
        {"regex": ".*.*.*.*a.{30}"},
        {"regex": "[" + "".join(map(chr, range(0x4E00, 0x9000, 2))) + "]+"},
        {"choice": tuple(f"choice number {i}" for i in range(20_000))},
        {"choice": ("x" * 1_000_000,)},
        {"choice": ("x" * 5_000_000,)},
    ],
)
def test_large_ones_are_made_or_refused(fields):
    try:
        grammar = compiled(**fields)
    except SchemaError as error:
        assert error.keyword in fields
        return
    matcher = grammar.matcher()
    assert matcher.fill_mask().any() and matcher.cost() > 0


def test_notes_of_a_schema_are_kept():
    notes = compiled(json={"type": "string", "format": "no-such-format"}).notes
    assert [(keyword, path) for keyword, path, _ in notes] == [("format", "/format")]
    assert json.dumps(notes)

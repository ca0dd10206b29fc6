"""The promise of guided decoding: whatever the model wants, the finished text is strict JSON and fits the schema."""

from __future__ import annotations

import json

import pytest
from guided_schemas import random_schema
from guided_tools import (
    accepts_ids,
    byte_level,
    compiled,
    dumps_all,
    generate,
    sentencepiece_like,
    strict_loads,
    text_of,
)
from guided_tools import tokenisations as splits
from jsonschema import Draft202012Validator

from minillm_serve.guided import SchemaError

CLOSED = {
    "type": "object",
    "properties": {"id": {"type": "integer", "minimum": 1, "maximum": 9}, "name": {"type": "string", "maxLength": 8}},
    "required": ["id", "name"],
    "additionalProperties": False,
}


def grammar_of(seed: int):
    tokenizer = sentencepiece_like() if seed % 4 == 0 else byte_level()
    schema = random_schema(seed)
    try:
        return schema, compiled(schema, tokenizer)
    except SchemaError as error:
        # The generator also writes contradictions (an integer between 0.1 and 0.35); nothing else is refused.
        assert error.kind == "unsatisfiable", error
        return schema, None


@pytest.mark.parametrize("block", range(8))
def test_random_models_only_write_valid_json(block: int) -> None:
    judged = 0
    for seed in range(block * 40, block * 40 + 40):
        schema, grammar = grammar_of(seed)
        if grammar is None:
            continue
        text = generate(grammar, seed)
        Draft202012Validator(schema).validate(strict_loads(text))
        judged += 1
    assert judged >= 30


def test_what_is_generated_is_accepted_in_every_spelling_and_tokenisation() -> None:
    checked = 0
    for seed in range(60):
        _, grammar = grammar_of(seed)
        if grammar is None:
            continue
        for text in dumps_all(strict_loads(generate(grammar, seed + 1, free_tokens=25))):
            if "e-" in text or "e+" in text:  # a decimal such as 0.00001 is rewritten with an exponent: see numbers
                continue
            for ids in splits(grammar, text, seed):
                assert accepts_ids(grammar, ids), (seed, text)
                checked += 1
    assert checked > 400


def test_generation_depends_on_nothing_but_the_seed() -> None:
    assert [generate(compiled(CLOSED), 5) for _ in range(2)] == [generate(compiled(dict(CLOSED)), 5) for _ in range(2)]


def test_extra_names_never_repeat_a_name_whatever_the_escapes() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "null"}}
    grammar = compiled(schema)
    fine = ['{"b":null,"c":null}', '{"a":null,"b":null}', '{"aa":null,"a\\u0061b":null}', '{"":null}']
    twice = [
        '{"b":null,"b":null}',
        '{"\\u0061":null}',
        '{"a":null,"\\u0061":null}',
        '{"\\u00e9":null,"é":null}',
        '{"\\ud83d\\ude00":null,"😀":null}',
        '{"/":null,"\\/":null}',
        '{"b":null,"a":null}',
    ]
    for text in fine:
        assert all(accepts_ids(grammar, ids) for ids in splits(grammar, text)), text
    for text in twice:
        assert not any(accepts_ids(grammar, ids) for ids in splits(grammar, text)), text


@pytest.mark.parametrize("seed", range(12))
def test_free_objects_have_no_repeated_keys(seed: int) -> None:
    grammar = compiled({"type": "object", "additionalProperties": {"type": "boolean"}})
    assert isinstance(strict_loads(generate(grammar, seed, free_tokens=150)), dict)


def test_recursive_schemas_stop_at_the_nesting_limit() -> None:
    grammar = compiled(
        {"$ref": "#/$defs/list", "$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}}}}
    )
    deep = "[" * 64 + "]" * 64
    assert accepts_ids(grammar, splits(grammar, deep)[0])
    assert not accepts_ids(grammar, splits(grammar, "[" + deep + "]")[0])


def test_at_the_nesting_limit_the_way_out_is_left_open() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
        "additionalProperties": False,
    }
    grammar = compiled(node)
    matcher, ids = grammar.matcher(), []
    opener = next(t for t, piece in enumerate(grammar.vocab.token_bytes) if piece == b"{")
    while len(ids) < 3_000:
        allowed = [t for t in range(grammar.vocab.size) if matcher.copy().accept(t)]
        token = opener if opener in allowed else allowed[0]
        matcher.accept(token)
        if token in grammar.vocab.eos_token_ids:
            break
        ids.append(token)
    text = text_of(grammar, ids).decode()
    assert text.count("{") == 64
    Draft202012Validator(node).validate(json.loads(text))

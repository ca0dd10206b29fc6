"""The same promises over the vocabulary of the model that is always there."""

from __future__ import annotations

import json
import random

import pytest
from guided_schemas import random_schema
from guided_tools import accepts_ids, allowed_ids, dumps_all, generate, strict_loads
from jsonschema import Draft202012Validator

from minillm_serve.guided import SchemaError, compile_json_schema

pytestmark = pytest.mark.model

BOOK = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 60},
        "year": {"type": "integer", "minimum": 1450, "maximum": 2030},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
        "rating": {"type": ["number", "null"], "minimum": 0, "maximum": 5},
    },
    "required": ["title", "year"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer():
    from minillm_serve.model.store import DEFAULT_MODEL, resolve_model
    from minillm_serve.model.tokenizer import Tokenizer

    return Tokenizer.from_folder(resolve_model(DEFAULT_MODEL))


def test_documents_as_the_tokenizer_splits_them(tokenizer) -> None:
    grammar = compile_json_schema(BOOK, tokenizer)
    good = [
        {"title": "Cien años de soledad 😀", "year": 1967, "tags": ["a", "b c"], "rating": 4.5},
        {"title": 'A "quoted" \\ title\n', "year": 2000},
    ]
    bad = [
        {"title": "", "year": 2000},
        {"title": "x", "year": 2031},
        {"year": 2000},
        {"title": "x", "year": 2000, "z": 1},
    ]
    assert all(accepts_ids(grammar, tokenizer.encode(text)) for value in good for text in dumps_all(value))
    assert not any(accepts_ids(grammar, tokenizer.encode(text)) for value in bad for text in dumps_all(value))


def test_random_models_only_write_valid_json(tokenizer) -> None:
    judged = 0
    for seed in range(2_000, 2_040):
        schema = random_schema(seed)
        try:
            grammar = compile_json_schema(schema, tokenizer)
        except SchemaError:
            continue
        Draft202012Validator(schema).validate(strict_loads(generate(grammar, seed, free_tokens=30)))
        judged += 1
    assert judged >= 30


def test_decoding_the_tokens_gives_the_accepted_bytes(tokenizer) -> None:
    """What the user sees is what the grammar has judged."""
    grammar = compile_json_schema(BOOK, tokenizer)
    rng, matcher, ids = random.Random(3), grammar.matcher(), []
    while len(ids) < 200:
        allowed = allowed_ids(matcher).tolist()
        token = rng.choice([t for t in allowed if t not in tokenizer.eos_token_ids] or allowed)
        assert matcher.accept(token)
        if token in tokenizer.eos_token_ids:
            break
        ids.append(token)
    raw = b"".join(grammar.vocab.token_bytes[token] for token in ids)
    assert tokenizer.decode(ids) == raw.decode()
    Draft202012Validator(BOOK).validate(json.loads(raw))

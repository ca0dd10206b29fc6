"""Masks: exactly the tokens that accept() takes, an end-of-text bit exactly where the text may end, never empty."""

from __future__ import annotations

import random

import numpy as np
import pytest
from guided_schemas import random_schema
from guided_tools import accepts_text, allowed_ids, byte_level, compiled, generate, has_bit, sentencepiece_like
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from minillm_serve.guided import SchemaError, compile_json_schema, json_stages
from minillm_serve.guided.automaton import closure, machine, native, token_masks
from minillm_serve.guided.automaton.matcher import CompiledGrammar
from minillm_serve.guided.automaton.vocab import BYTE_LEVEL, Vocab, token_bytes, vocab_of
from minillm_serve.model.tokenizer import Tokenizer as OurTokenizer

MACHINES = [
    "reference",
    pytest.param(
        "native", marks=pytest.mark.skipif(not native.available(), reason="the compiled machine needs a compiler")
    ),
]


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("seed", range(40))
def test_mask_is_what_accept_accepts(seed: int, kind: str) -> None:
    tokenizer = sentencepiece_like() if seed % 3 == 0 else byte_level()
    try:
        grammar = compiled(random_schema(1_000 + seed), tokenizer, machine=kind)
    except SchemaError:
        grammar = compiled({}, tokenizer, machine=kind)
    rng, matcher = random.Random(seed), grammar.matcher()
    for _ in range(25):
        allowed = allowed_ids(matcher).tolist()
        assert allowed == [token for token in range(grammar.vocab.size) if matcher.copy().accept(token)]
        assert matcher.is_complete() == all(token in allowed for token in grammar.vocab.eos_token_ids)
        going_on = [token for token in allowed if token not in grammar.vocab.eos_token_ids]
        if not going_on:
            break
        assert matcher.accept(rng.choice(going_on))


@pytest.mark.parametrize("kind", MACHINES)
def test_tokens_across_boundaries_are_judged_to_their_last_byte(kind: str) -> None:
    """A made-up vocabulary whose tokens close names and open others, repeat a name, or end a character too late."""
    pieces = [
        b'{"a":1,"a":',
        b'a":1,"b":',
        b'b":2,"b"',
        b'":1}',
        b'","',
        b'"}',
        b"\\u00",
        b"61",
        b"\xc3",
        b"\xa9x",
        b'":{"',
    ]
    pieces += [bytes([byte]) for byte in range(256)]
    vocab = Vocab([None, *pieces], frozenset({0}))

    for schema in ({"type": "object"}, {"type": "string", "maxLength": 3}, {"properties": {"b": {"type": "integer"}}}):
        grammar = CompiledGrammar(json_stages(schema).network, vocab, machine=kind)
        for seed in range(30):
            rng, matcher = random.Random(seed), grammar.matcher()
            for _ in range(12):
                allowed = allowed_ids(matcher).tolist()
                assert allowed == [token for token in range(vocab.size) if matcher.copy().accept(token)]
                long = [token for token in allowed if 0 < token <= 11]
                matcher.accept(rng.choice(long if long and rng.random() < 0.7 else allowed))


def test_end_of_text_bit_stands_exactly_where_the_text_may_end() -> None:
    grammar = compiled({"type": "integer"})
    digits = {bytes([b]): t for t, p in enumerate(grammar.vocab.token_bytes) if p and len(p) == 1 for b in p}
    matcher = grammar.matcher()
    for piece, complete in ((b"-", False), (b"1", True), (b"2", True)):
        assert matcher.accept(digits[piece])
        assert matcher.is_complete() is complete
        assert all(has_bit(matcher.fill_mask(), eos) is complete for eos in grammar.vocab.eos_token_ids)


def test_after_the_end_only_the_end_is_left() -> None:
    grammar = compiled({"const": None})
    matcher = grammar.matcher()
    eos = min(grammar.vocab.eos_token_ids)
    assert not matcher.accept(eos)
    for byte in b"null":
        assert matcher.accept(next(t for t, p in enumerate(grammar.vocab.token_bytes) if p == bytes([byte])))
    assert matcher.accept(eos) and matcher.is_complete()
    assert set(allowed_ids(matcher)) == grammar.vocab.eos_token_ids
    assert not matcher.accept(grammar.vocab.token_bytes.index(b"n"))
    assert matcher.accept(eos)


def test_a_refused_token_changes_nothing() -> None:
    grammar = compiled({"enum": ["abc", "abd"]})
    matcher = grammar.matcher()
    before = matcher.fill_mask().copy()
    for token in (-1, grammar.vocab.size, 10**9, *grammar.vocab.eos_token_ids, grammar.vocab.token_bytes.index(b"}")):
        assert not matcher.accept(token)
        assert (matcher.fill_mask() == before).all()


def test_every_kind_of_tokenizer_object_leads_to_the_same_vocabulary() -> None:
    backend = byte_level()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    ours = OurTokenizer(backend, eos_token_ids=[0, 1])
    plain, hugging_face, own = (vocab_of(tokenizer) for tokenizer in (backend, fast, ours))
    assert plain.token_bytes == hugging_face.token_bytes == own.token_bytes
    assert plain.eos_token_ids == own.eos_token_ids == {0, 1}
    assert hugging_face.eos_token_ids == {1}
    assert vocab_of(backend) is plain


def test_sequences_share_a_grammar_but_not_their_place() -> None:
    grammar = compiled({"enum": ["ab", "cd"]})
    first, second = grammar.matcher(), grammar.matcher()
    start = second.fill_mask().copy()
    first.accept(grammar.vocab.token_bytes.index(b'"'))
    twin = first.copy()
    first.fill_mask()[:] = 0
    assert (second.fill_mask() == start).all()
    assert twin.accept(grammar.vocab.token_bytes.index(b"a")) and first.accept(grammar.vocab.token_bytes.index(b"c"))


def test_mask_is_as_wide_as_the_logits() -> None:
    tokenizer = byte_level()
    size = tokenizer.get_vocab_size()
    for width in (size, size + 1, size + 63):
        mask = compile_json_schema({}, tokenizer, vocab_size=width).matcher().fill_mask()
        assert mask.dtype == np.uint32 and mask.shape == ((width + 31) // 32,)
        assert not any(has_bit(mask, token) for token in range(size, mask.size * 32))
    with pytest.raises(ValueError, match="vocab_size"):
        compile_json_schema({}, tokenizer, vocab_size=size - 10)


def test_special_and_added_tokens_are_no_text() -> None:
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.add_tokens([AddedToken("hello", normalized=False)])
    tokenizer.add_special_tokens(["<|tool|>"])
    grammar = compile_json_schema({"type": "string"}, tokenizer)
    matcher = grammar.matcher()
    assert matcher.accept(grammar.vocab.token_bytes.index(b'"'))
    for name in ("hello", "<|tool|>", "<|im_end|>", "<|endoftext|>"):
        assert not has_bit(matcher.fill_mask(), tokenizer.token_to_id(name))
        assert not matcher.accept(tokenizer.token_to_id(name))
    assert grammar.vocab.eos_token_ids == {tokenizer.token_to_id(n) for n in ("<|im_end|>", "<|endoftext|>")}


def test_sentencepiece_tokens_have_their_exact_bytes() -> None:
    tokenizer = sentencepiece_like()
    found = token_bytes(tokenizer)
    assert found[tokenizer.token_to_id("<0xE2>")] == b"\xe2"
    assert found[tokenizer.token_to_id("▁{")] == b" {"
    assert found[tokenizer.token_to_id("é")] == "é".encode()
    assert found[tokenizer.token_to_id("<unk>")] is None and found[tokenizer.token_to_id("</s>")] is None


def test_a_tokenizer_without_exact_bytes_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(ValueError, match="exact bytes"):
        vocab_of(words, eos_token_ids=[1])
    with pytest.raises(ValueError, match="no tokenizer"):
        vocab_of("gpt2")


def poor_tokenizer(missing: bytes) -> Tokenizer:
    """Byte-level, without a token of its own for the bytes in ``missing``; they only stand in longer tokens."""
    visible = {byte: char for char, byte in BYTE_LEVEL.items()}
    vocab = {"<|endoftext|>": 0}
    singles = [bytes([byte]) for byte in range(256) if byte not in missing]
    longer = [
        b"\\u00",
        b'{"',
        b'"}',
        b"]]",
        b"[[",
        b"[1",
        b"true",
        b"tr",
        b"12345",
        b"-1",
        b"\xf0\x9f",
        b"\xe2",
        b"\xc3",
    ]
    for piece in [*singles, *longer]:
        vocab.setdefault("".join(visible[byte] for byte in piece), len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize("missing", [b"e", b"\\", b"\x9f\xa9\xc3", b"0123456789abcdefABCDEF", b"u", b"]", b"}", b","])
def test_missing_bytes_never_lead_into_a_dead_end(missing: bytes) -> None:
    """Where a byte has no token of its own, longer tokens that would need it later on are not allowed to begin."""
    tokenizer = poor_tokenizer(missing)
    vocab = vocab_of(tokenizer, eos_token_ids=[0])
    generated = 0
    for seed in range(30):
        try:
            grammar = compile_json_schema(random_schema(seed), tokenizer, eos_token_ids=[0])
        except SchemaError:
            continue  # everything that satisfies the schema would need the missing byte
        text = generate(grammar, seed, free_tokens=30)
        assert accepts_text(grammar, text)
        generated += 1
    assert generated >= 5
    assert not vocab.alphabet & frozenset(missing) - {0xE2, 0xC3}


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 300_000
    monkeypatch.setattr(machine, "MAX_HELD_BYTES", limit)
    monkeypatch.setattr(token_masks, "MAX_READINGS_BYTES", limit)
    schema = {"type": "array", "items": {"type": "string", "maxLength": 300}}
    grammar = compiled(schema, machine="reference")
    most = 0
    for seed in range(4):
        generate(grammar, seed, free_tokens=300)
        most = max(most, grammar.machine.nbytes())
    assert most > limit, "the limit was reached"
    assert most < 4 * limit, "positions, masks, readings, and a little for what is in use"


def test_masks_stay_exact_when_an_ambiguous_schema_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level doubles the ways in which the text may be meant, beyond what the machine keeps."""
    for module in (closure, machine):
        monkeypatch.setattr(module, "MAX_THREADS", 64)
    branch = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    others = [branch | {"additionalProperties": {"type": kind}} for kind in ("null", "boolean")]
    grammar = compiled({"anyOf": [*others, {"type": "string"}]}, machine="reference")
    matcher = grammar.matcher()
    for byte in b'{"a":' * 8 + b'"x':
        assert matcher.accept(grammar.vocab.token_bytes.index(bytes([byte])))
    assert grammar.machine.pruned
    for piece in (b'"', b"}"):
        assert allowed_ids(matcher).tolist() == [t for t in range(grammar.vocab.size) if matcher.copy().accept(t)]
        assert matcher.accept(grammar.vocab.token_bytes.index(piece))
    assert generate(grammar, 1).startswith(('{"a"', '"'))

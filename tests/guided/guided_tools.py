"""Small tokenizers made on the spot, strict judges, and drivers that play the part of a (hostile) model."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from minillm_serve.guided import CompiledGrammar, JsonOptions, Matcher, compile_json_schema
from minillm_serve.guided.grammar.network import UNBOUNDED_COST

_CORPUS = [
    '{"name": "Ana", "age": 31, "tags": ["a", "b"], "ok": true, "none": null, "x": [1, 2.5, -3e+10]}',
    '{"name":"Ana","age":31,"tags":["a","b"],"ok":true,"none":null,"nested":{"k":{"deep":[[],{}]}}}',
    "The quick brown fox jumps over the lazy dog. El veloz murciélago hindú comía feliz cardillo y kiwi. 😀😃",
    '"\\u00e9\\n\\t\\"quoted\\"" {"a": {"b": ""}}, [{"c": ""}], ":", "},',
]


@cache
def byte_level(vocab_size: int = 700) -> Tokenizer:
    """GPT-2 style byte-level BPE with every byte as a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = [text[i : i + n] for text in _CORPUS for n in (4, 9) for i in range(0, len(text), 3)]
    tokenizer.train_from_iterator(pieces * 3, trainer)
    return tokenizer


@cache
def sentencepiece_like() -> Tokenizer:
    """BPE with visible spaces and <0xHH> byte fallback, as Llama 2's."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in [*map(chr, range(0x21, 0x7F)), "▁", "é", "ñ", '{"', '":', '▁"', '",', "▁{", '"}', "▁▁", "ab", "▁a"]:
        vocab.setdefault(piece, len(vocab))
    merges = [
        ("{", '"'),
        ('"', ":"),
        ("▁", '"'),
        ('"', ","),
        ("▁", "{"),
        ('"', "}"),
        ("▁", "▁"),
        ("a", "b"),
        ("▁", "a"),
    ]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def compiled(schema: Any, tokenizer: Tokenizer | None = None, **options: Any) -> CompiledGrammar:
    """``options``: fields of JsonOptions, and ``machine``."""
    machine = options.pop("machine", "auto")
    return compile_json_schema(schema, tokenizer or byte_level(), options=JsonOptions(**options), machine=machine)


# -- judges ------------------------------------------------------------------------------------------------------------


def strict_loads(text: str) -> Any:
    """json.loads that refuses NaN, infinities and repeated keys."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(items)) != len(items):
            raise ValueError(f"repeated key among {[key for key, _ in items]}")
        return dict(items)

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, object_pairs_hook=pairs, parse_constant=refuse)


def allowed_ids(matcher: Matcher, budget: int | None = None) -> np.ndarray:
    mask = matcher.fill_mask(budget)
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def has_bit(mask: np.ndarray, token: int) -> bool:
    return bool(mask[token // 32] >> (token % 32) & 1)


# -- drivers -----------------------------------------------------------------------------------------------------------


def text_of(grammar: CompiledGrammar, ids: list[int]) -> bytes:
    return b"".join(grammar.vocab.token_bytes[token] for token in ids)


def generate(grammar: CompiledGrammar, seed: int, free_tokens: int = 60, limit: int = 3_000) -> str:
    """A model that picks at random among the allowed tokens, and after a while wants to come to an end."""
    rng = random.Random(seed)
    matcher, ids = grammar.matcher(), []
    while True:
        allowed = allowed_ids(matcher).tolist()
        assert allowed, f"dead end after {text_of(grammar, ids)!r}"
        assert len(ids) < limit, f"no end in sight after {text_of(grammar, ids)[:300]!r}"
        token = rng.choice(allowed) if len(ids) < free_tokens else closing_token(matcher, rng)
        if rng.random() < 0.4 and len(ids) < free_tokens:  # structure is rare among hundreds of letters
            token = rng.choice([t for t in allowed if _has_structure(grammar, t)] or allowed)
        assert matcher.accept(token)
        if token in grammar.vocab.eos_token_ids:
            return text_of(grammar, ids).decode()
        ids.append(token)


def _has_structure(grammar: CompiledGrammar, token: int) -> bool:
    return any(byte in b'{}[]",:\\-.eE0' for byte in grammar.vocab.token_bytes[token] or b"")


def closing_token(matcher: Matcher, rng: random.Random) -> int:
    """A token on the shortest way to the end: one that makes good at least one byte of what is still to come."""
    grammar, cost = matcher.grammar, matcher.cost()
    if matcher.is_complete():
        return min(grammar.vocab.eos_token_ids)
    assert cost < UNBOUNDED_COST, "the shortest completion is not known"
    nearer = [token for token in allowed_ids(matcher, cost - 1).tolist() if token not in grammar.vocab.eos_token_ids]
    assert nearer, f"no token leads to the end within {cost} bytes"
    return rng.choice(nearer)


def accepts_ids(grammar: CompiledGrammar, ids: list[int]) -> bool:
    """Are these tokens, then the end, allowed? Checks on the way that mask and accept agree on each."""
    matcher = grammar.matcher()
    for token in ids:
        bit = has_bit(matcher.fill_mask(), token)
        assert matcher.accept(token) == bit
        if not bit:
            return False
    complete = matcher.is_complete()
    assert complete == has_bit(matcher.fill_mask(), min(grammar.vocab.eos_token_ids))
    return complete


def accepts_text(grammar: CompiledGrammar, text: str) -> bool:
    """The same question for bytes, without masks."""
    matcher = grammar.matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete()


def tokenisations(grammar: CompiledGrammar, text: str, seed: int = 0) -> list[list[int]]:
    """The text as single bytes, greedily longest-first, and in a random mix of token lengths."""
    by_bytes: dict[bytes, int] = {}
    for token, piece in enumerate(grammar.vocab.token_bytes):
        if piece:
            by_bytes.setdefault(piece, token)
    longest = max(map(len, by_bytes))
    rng = random.Random(seed)
    data = text.encode()

    def split(pick: Any) -> list[int]:
        ids, place = [], 0
        while place < len(data):
            lengths = [
                n for n in range(1, longest + 1) if data[place : place + n] in by_bytes and place + n <= len(data)
            ]
            length = pick(lengths)
            ids.append(by_bytes[data[place : place + length]])
            place += length
        return ids

    return [split(min), split(max), split(rng.choice), split(rng.choice)]


def dumps_all(value: Any) -> list[str]:
    """Every writing of ``value`` that the default whitespace policy promises to accept."""
    return [
        json.dumps(value, ensure_ascii=ascii_only, separators=separators)
        for ascii_only in (True, False)
        for separators in (None, (",", ":"))
    ]

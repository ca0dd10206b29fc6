"""Tokenizers rebuilt from GGUF metadata cut text as the originals do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tokenizers
from tiny_model import CORPUS
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from minillm_serve.model.gguf_tokenizer import build_tokenizer, gguf_tokenizer
from minillm_serve.model.loader import CheckpointError

TEXTS = [
    "The capital of France is", "don't we'll I'M", "1234567890, 3.14", "   many    spaces\n\n\n\ttabs\t\t x", "",
    "¿Dónde está la caché? ñandú", "日本語 🙂", "e\u0301 \u00e9", "def f(x):\n    return x**2\n",
    " leading and trailing ",
]  # fmt: skip
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD_RULES = {  # as the two families publish them in their tokenizer.json
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST,
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST,
}


def byte_level(pre: str) -> tokenizers.Tokenizer:
    """A trained tokenizer that cuts text as ``pre`` says, with two control tokens in front."""
    original = tokenizers.Tokenizer(models.BPE())
    if pre in WORD_RULES:
        original.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORD_RULES[pre]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        original.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre == "qwen2":
        original.normalizer = normalizers.NFC()
    original.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    original.train_from_iterator(CORPUS * 3, trainer)
    return original


def metadata_of(original: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    model = json.loads(original.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in ("<s>", "</s>") else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
def test_byte_level_tokenizers_cut_as_the_original(pre):
    original = byte_level(pre)
    rebuilt = build_tokenizer(metadata_of(original, pre))
    for text in TEXTS:
        if pre != "llama-bpe":  # which takes a whole word that is a token, whatever the merges would make of it
            assert rebuilt.encode(text).ids == original.encode(text).ids, text
        expected = original.decode(original.encode(text).ids)
        assert rebuilt.decode(rebuilt.encode(text).ids) == expected, text
        cut = [word for word, _ in rebuilt.pre_tokenizer.pre_tokenize_str(text)]
        assert cut == [word for word, _ in original.pre_tokenizer.pre_tokenize_str(text)], text


def sentencepiece_metadata(add_space: bool) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """A SentencePiece-style BPE whose merges are known, and the file's view of it: only tokens and their scores."""
    original = tokenizers.SentencePieceBPETokenizer(unk_token="<unk>", add_prefix_space=add_space)
    original.train_from_iterator(
        CORPUS * 3, vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    vocab = original.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    size = len(tokens)
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    return original, {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(id) for id in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (size - 3) + [6] * 256,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": add_space,
    }


@pytest.mark.parametrize("add_space", [True, False])
def test_sentencepiece_merges_come_back_from_scores(add_space):
    original, metadata = sentencepiece_metadata(add_space)
    rebuilt = gguf_tokenizer(metadata, [])
    for text in ("Once upon a time there was", "the scheduler gives every request its share", "Count to ten: 1, 2, 3"):
        expected = [id for word in original.encode(text).tokens for id in [original.token_to_id(word)]]
        assert rebuilt.encode(text) == expected
        assert rebuilt.encode_prompt(text) == [1, *expected]
    for text in TEXTS:
        assert rebuilt.decode(rebuilt.encode(text)) == text
    assert rebuilt.encode("☃")[-3:] == [rebuilt.backend.token_to_id(f"<0x{byte:02X}>") for byte in "☃".encode()]
    assert rebuilt.eos_token_ids == {2}


def test_control_tokens_are_special_and_user_defined_ones_are_text():
    metadata = metadata_of(byte_level("gpt-2"), "gpt-2")
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "<tool>"]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"], 4]
    last = len(metadata["tokenizer.ggml.tokens"]) - 1
    tokenizer = gguf_tokenizer(metadata, [])
    assert tokenizer.encode("<tool>") == [last]
    assert tokenizer.decode([0, last, 1]) == "<tool>"
    assert 0 not in tokenizer.encode("<s>")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tokenizer.ggml.model": "bert"}, "'bert' is not supported"),
        ({"tokenizer.ggml.pre": "tekken"}, "gpt2/tekken is not supported"),
        ({"tokenizer.ggml.pre": None}, "gpt2/None is not supported"),
        ({"tokenizer.ggml.tokens": []}, "no vocabulary"),
        ({"tokenizer.ggml.token_type": [1]}, "one number for each token"),
        ({"tokenizer.ggml.merges": ["ab"]}, "pairs of tokens"),
        ({"tokenizer.ggml.merges": ["a nothing-like-this"]}, "do not fit"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "eos token is number 1000000"),
        ({"tokenizer.ggml.add_eos_token": True}, "EOS token"),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None}, "names none"),
        ({"tokenizer.ggml.model": "llama"}, "scores"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused_by_name(change, sentence):
    metadata = metadata_of(byte_level("gpt-2"), "gpt-2") | change
    with pytest.raises(CheckpointError, match=sentence):
        gguf_tokenizer({key: value for key, value in metadata.items() if value is not None}, [])

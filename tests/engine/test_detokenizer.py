"""Streamed text only grows, is never half a character, and ends exactly where a stop string says."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import SPECIAL_TOKENS, train_tokenizer

from minillm_serve.engine.detokenizer import Detokenizer, StreamFactory, WindowStream
from minillm_serve.model.tokenizer import Tokenizer

BACKEND = train_tokenizer(512)
STREAMS = StreamFactory(Tokenizer(BACKEND, ()))
# This raw encoder reads a control token's spelling as the token, which decoding then leaves out.
TEXT = st.text(max_size=40).filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))
ANY_IDS = st.lists(st.integers(0, BACKEND.get_vocab_size() - 1), max_size=30)


def sentencepiece() -> tokenizers.Tokenizer:
    """A tokenizer in Llama 2's manner: a visible space, whole words, and bytes for what is in no word."""
    words = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁once", "▁upon", "on", "ce", "é", "▁é"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={w: i for i, w in enumerate(words)}, merges=[], unk_token="<unk>", byte_fallback=True
        )
    )
    backend.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    return backend


def decode(ids, skip=True):
    return BACKEND.decode(list(ids), skip_special_tokens=skip)


def encode(text):
    return BACKEND.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_pieces_add_up_to_the_whole_text(text):
    detokenizer, seen = Detokenizer(STREAMS()), ""
    for token in encode(text):
        assert detokenizer.push([token]) is None
        assert detokenizer.text.startswith(seen), "released text changed"
        assert "\ufffd" not in detokenizer.text or "\ufffd" in text, "half a character was released"
        seen = detokenizer.text
    detokenizer.finish()
    assert detokenizer.text == text


@settings(max_examples=300, deadline=None)
@given(ANY_IDS, st.booleans(), st.integers(1, 4))
def test_any_token_ids_even_broken_utf8_end_as_plain_decoding(ids, skip, group):
    """A random model writes invalid bytes and control tokens; nothing may be lost or doubled, however it comes."""
    detokenizer, seen = Detokenizer(STREAMS(skip)), ""
    for start in range(0, len(ids), group):
        detokenizer.push(ids[start : start + group])
        assert detokenizer.text.startswith(seen)
        seen = detokenizer.text
    detokenizer.finish()
    assert detokenizer.text == decode(ids, skip)
    assert len(detokenizer) == len(ids)


def test_ids_beyond_the_tokenizer_are_no_text():
    """A model may have more rows than its tokenizer has tokens."""
    detokenizer = Detokenizer(STREAMS())
    detokenizer.push([*encode("a"), 10_000, *encode("b")])
    detokenizer.finish()
    assert detokenizer.text == "ab"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["once", "upon", "é", "日", "🙂"]), max_size=8))
def test_a_tokenizer_whose_words_have_spaces_streams_through_a_window(words):
    backend = sentencepiece()
    vocabulary = backend.get_vocab()
    ids = []
    for word in words:
        known = vocabulary.get(f"▁{word}")
        ids += [known] if known else [vocabulary["▁"], *(vocabulary[f"<0x{byte:02X}>"] for byte in word.encode())]
    assert isinstance(StreamFactory(Tokenizer(backend, ()))(), WindowStream)
    detokenizer, seen = Detokenizer(WindowStream(backend, True)), ""
    for token in ids:
        detokenizer.push([token])
        assert detokenizer.text.startswith(seen) and "\ufffd" not in detokenizer.text
        seen = detokenizer.text
    detokenizer.finish()
    assert detokenizer.text == backend.decode(ids) == " ".join(words)


def test_a_window_stays_short_whatever_is_written():
    """Bytes that never form a character are not held for ever: each further token costs the same."""
    backend = sentencepiece()
    stream = WindowStream(backend, True)
    broken = backend.get_vocab()["<0xFF>"]
    text = "".join(stream.push([broken]) for _ in range(200)) + stream.flush()
    assert text == "\ufffd" * 200 and len(stream._ids) < 10


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc ", max_size=30),
    st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 6),
)
def test_text_ends_at_the_first_stop_string(text, stops, group, include, min_tokens):
    """Before it, or behind it when it is to be seen; one within the first min_tokens tokens does not count."""
    ids = encode(text)
    detokenizer = Detokenizer(STREAMS(), stops, min_tokens=min_tokens, include_stop=include)
    hit, seen = None, ""
    for start in range(0, len(ids), group):
        hit = detokenizer.push(ids[start : start + group])
        assert detokenizer.text.startswith(seen), "released text changed"
        seen = detokenizer.text
        if hit:
            break
    hit = hit or detokenizer.finish()
    # The reference reads token by token and looks for a stop string that ends in the newest one.
    for count in range(min_tokens + 1, len(detokenizer) + 1):
        now, before = decode(ids[:count]), len(decode(ids[: count - 1]))
        found = [(at, s) for s in stops if (at := now.find(s, max(0, before - len(s) + 1))) >= 0]
        if found:
            at, stop = min(found, key=lambda f: (f[0] + len(f[1]), f[0]))
            assert hit == stop and detokenizer.text == now[: at + len(stop) * include]
            return
    assert hit is None and detokenizer.text == text


@pytest.mark.parametrize("text", ["stop", "xxst", "xxsto"])
def test_a_beginning_of_a_stop_string_is_held_back_until_it_is_decided(text):
    detokenizer = Detokenizer(STREAMS(), ["stopped"])
    detokenizer.push(encode(text))
    assert detokenizer.text == text[: text.index("st")]
    detokenizer.finish()
    assert detokenizer.text == text
    shown = Detokenizer(STREAMS(), ["stopped"], include_stop=True)
    shown.push(encode(text))
    assert shown.text == text, "nothing needs to be held back when the stop string is shown"

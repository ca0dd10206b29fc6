"""Streamed text only grows, is never half a character, and ends exactly before a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import SPECIAL_TOKENS, train_tokenizer

from minillm_serve.engine.detokenizer import Detokenizer

TOKENIZER = train_tokenizer(512)
# This raw encoder reads a control token's spelling as the token, which decoding then leaves out.
TEXT = st.text(max_size=40).filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))


def decode(ids):
    return TOKENIZER.decode(list(ids), skip_special_tokens=True)


def encode(text):
    return TOKENIZER.encode(text, add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_pieces_add_up_to_the_whole_text(text):
    detokenizer, seen = Detokenizer(decode), ""
    for token in encode(text):
        assert detokenizer.push([token]) is None
        assert detokenizer.text.startswith(seen), "released text changed"
        assert "\ufffd" not in detokenizer.text or "\ufffd" in text, "half a character was released"
        seen = detokenizer.text
    detokenizer.finish()
    assert detokenizer.text == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(3, TOKENIZER.get_vocab_size() - 1), max_size=30))
def test_any_token_ids_even_broken_utf8_end_as_plain_decoding(ids):
    """A random model writes invalid bytes; nothing may be lost or doubled."""
    detokenizer, seen = Detokenizer(decode), ""
    for token in ids:
        detokenizer.push([token])
        assert detokenizer.text.startswith(seen)
        seen = detokenizer.text
    detokenizer.finish()
    assert detokenizer.text == decode(ids)


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc ", max_size=30),
    st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 4),
)
def test_text_ends_before_the_first_stop_string(text, stops, group):
    ids = encode(text)
    detokenizer = Detokenizer(decode, stops)
    hit = None
    for start in range(0, len(ids), group):
        hit = detokenizer.push(ids[start : start + group])
        assert not any(stop in detokenizer.text for stop in stops), "a stop string was released"
        if hit:
            break
    hit = hit or detokenizer.finish()
    seen = decode(ids[: len(detokenizer)])
    places = [seen.find(stop) for stop in stops if stop in seen]
    if places:
        assert hit in stops and detokenizer.text == seen[: min(places)]
    else:
        assert hit is None and detokenizer.text == text


@pytest.mark.parametrize("text", ["stop", "xxst", "xxsto"])
def test_a_beginning_of_a_stop_string_is_held_back_until_it_is_decided(text):
    detokenizer = Detokenizer(decode, ["stopped"])
    detokenizer.push(encode(text))
    assert detokenizer.text == text[: text.index("st")]
    detokenizer.finish()
    assert detokenizer.text == text

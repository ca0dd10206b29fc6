"""Text that is known in advance gets the tokens that the tokenizer itself would give, whatever comes after it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import CORPUS, train_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from minillm_serve.engine.retokenise import Retokeniser
from minillm_serve.guided.automaton.vocab import token_bytes
from minillm_serve.model.tokenizer import Tokenizer as OurTokenizer

PIECES = [
    '{"',
    '"name"',
    '": ',
    '", "',
    "age",
    "país",
    " ",
    "  ",
    "\n",
    "1",
    "36",
    "'re",
    "'",
    "e",
    "}",
    "日本",
    "🙂",
    "ñ",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=8)
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def split_into_words() -> Tokenizer:
    """A byte-level tokenizer that splits as GPT-2 does: what follows decides where white space and ``'re`` end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, "we're they're \n\n    x", "  日本語 " * 9], trainer)
    return tokenizer


def sentencepiece() -> Tokenizer:
    """A tokenizer in the manner of Llama 2: one space before every text, bytes for what it does not know."""
    vocabulary = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *'abcdenamge{}",:1369',
        '":',
        '{"',
        "na",
        "me",
    ]
    ids = {piece: token for token, piece in enumerate(dict.fromkeys(vocabulary))}
    merges = [('"', ":"), ("{", '"'), ("n", "a"), ("m", "e")]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


BACKENDS = {"whole texts": lambda: train_tokenizer(512), "words": split_into_words, "SentencePiece": sentencepiece}


@pytest.fixture(scope="module", params=BACKENDS)
def case(request):
    tokenizer = OurTokenizer(BACKENDS[request.param](), [0])
    return tokenizer, Retokeniser(tokenizer, token_bytes(tokenizer.backend)), request.param


@settings(max_examples=400, deadline=None)
@given(text=TEXT, following=TEXT)
def test_every_longer_text_begins_with_the_tokens_given(case, text, following):
    tokenizer, retokenise, kind = case
    tokens = list(retokenise(b"", text.encode()))
    spelled = b"".join(map(retokenise.bytes_of, tokens))
    assert text.encode().startswith(spelled)
    spelled.decode()  # never half a character
    if kind == "SentencePiece":  # by itself each text gets a space; after a line end it does not
        whole = tokenizer.encode("\n" + text + following)
        skipped = len(tokenizer.encode("\n"))
        assert whole[skipped : skipped + len(tokens)] == tokens
    else:
        assert tokenizer.encode(text + following)[: len(tokens)] == tokens


@settings(max_examples=200, deadline=None)
@given(before=TEXT, text=TEXT, following=TEXT)
def test_a_token_given_out_before_stays_and_the_rest_follows_from_it(case, before, text, following):
    """Where the tokenizer would not merge the two, the tokens are those of the whole."""
    tokenizer, retokenise, kind = case
    known = tokenizer.encode(before)
    if not known:
        return
    last = retokenise.bytes_of(known[-1])
    tokens = list(retokenise(last, text.encode()))
    assert text.encode().startswith(b"".join(map(retokenise.bytes_of, tokens)))
    try:
        whole = tokenizer.encode(last.decode() + text + following)
    except UnicodeDecodeError:
        return
    if whole[:1] == known[-1:] and kind != "SentencePiece":  # which begins any text of its own with a space
        assert whole[1 : 1 + len(tokens)] == tokens


def test_most_of_a_known_text_is_given_out():
    tokenizer = OurTokenizer(split_into_words(), [0])
    retokenise = Retokeniser(tokenizer, token_bytes(tokenizer.backend))
    for text in ('{"name": "', '", "age": ', '"}\n', "país"):
        spelled = b"".join(map(retokenise.bytes_of, retokenise(b"", text.encode())))
        assert len(text.encode()) - len(spelled) <= 4, (text, spelled)


def test_text_that_ends_inside_a_character_is_given_out_up_to_it(case):
    _, retokenise, _ = case
    text = "año 日".encode()[:-1]
    spelled = b"".join(map(retokenise.bytes_of, retokenise(b"", text)))
    assert "año 日".startswith(spelled.decode())


def test_text_after_half_a_character_completes_it(case):
    _, retokenise, _ = case
    first, rest = "🙂".encode()[:2], "🙂".encode()[2:] + b"abc"
    tokens = retokenise(first, rest)
    assert rest.startswith(b"".join(map(retokenise.bytes_of, tokens)))

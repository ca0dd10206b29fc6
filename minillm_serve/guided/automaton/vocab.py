"""The tokenizer's vocabulary as bytes, and as a trie over those bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np

from minillm_serve.guided.automaton import stored
from minillm_serve.guided.automaton.trie import Trie

_COMMON_EOS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<eos>", "<|end|>")
_SPACE_MARK = "\u2581"  # SentencePiece's visible space


class Vocab:
    """Token bytes and their trie.

    token_bytes: per id, None for what may not stand in text (special, added and control tokens, holes). trie: see
    :class:`Trie`. alphabet: bytes that are tokens themselves. key: names the vocabulary among files on disk, None if
    it was not made from a tokenizer.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        eos_token_ids: frozenset[int],
        vocab_size: int | None = None,
        *,
        trie: Trie | None = None,
        key: str | None = None,
    ):
        self.size = len(token_bytes) if vocab_size is None else vocab_size
        if self.size < len(token_bytes):
            if any(token_bytes[self.size :]):
                raise ValueError(f"vocab_size is {self.size}, but the tokenizer has {len(token_bytes)} tokens")
            token_bytes = token_bytes[: self.size]
        if not eos_token_ids or not all(0 <= token < self.size for token in eos_token_ids):
            raise ValueError(f"guided decoding needs end-of-text ids below {self.size}, got {sorted(eos_token_ids)}")
        self.eos_token_ids = frozenset(eos_token_ids)
        self.token_bytes = [*token_bytes, *[None] * (self.size - len(token_bytes))]
        for token in eos_token_ids:
            self.token_bytes[token] = None
        self.words = (self.size + 31) // 32
        self.eos_mask = self.pack(np.array(sorted(eos_token_ids)))
        self.alphabet = frozenset(text[0] for text in self.token_bytes if text is not None and len(text) == 1)
        if not self.alphabet & frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789"):
            raise ValueError("the tokenizer has no single-byte token for any letter or digit: no text can be ensured")
        self.trie = Trie.of(self.token_bytes) if trie is None else trie
        self.key = key
        self.memo: dict[Any, Any] = {}  # what machines keep with the vocabulary; at most one entry a kind of thing

    def pack(self, tokens: np.ndarray) -> np.ndarray:
        """Token ids (or a bool array [size]) -> uint32 [words], bit t % 32 of word t // 32."""
        flags = np.zeros(self.words * 32, dtype=bool)
        if tokens.dtype == bool:
            flags[: self.size] = tokens
        else:
            flags[tokens] = True
        return np.packbits(flags, bitorder="little").view("<u4").astype(np.uint32, copy=False)

    # -- the trie as lists, for code that walks it node by node ----------------------------------------------------

    @cached_property
    def byte(self) -> list[int]:
        return self.trie.byte.tolist()

    @cached_property
    def depth(self) -> list[int]:
        return self.trie.depth.tolist()

    @cached_property
    def parent(self) -> list[int]:
        return self.trie.parent.tolist()

    @cached_property
    def skip(self) -> list[int]:
        return self.trie.skip.tolist()

    @cached_property
    def tokens(self) -> list[tuple[int, ...]]:
        """[nodes] the ids that end at each node."""
        first, tokens = self.trie.first.tolist(), self.trie.tokens.tolist()
        return [tuple(tokens[low:high]) for low, high in pairwise(first)]

    @cached_property
    def top(self) -> dict[int, int]:
        """First byte -> its node."""
        return {self.byte[node]: node for node in np.flatnonzero(self.trie.depth == 1).tolist()}

    @cached_property
    def token_node(self) -> np.ndarray:
        """[size] the node at which each token ends, -1 for one without text."""
        found = np.full(self.size, -1, dtype=np.int64)
        found[self.trie.tokens] = np.repeat(np.arange(len(self.trie.byte)), np.diff(self.trie.first))
        return found

    @cached_property
    def levels(self) -> list[np.ndarray]:
        """The nodes of each depth."""
        return [np.flatnonzero(self.trie.depth == level) for level in range(1, int(self.trie.depth.max()) + 1)]

    def path(self, node: int) -> bytes:
        """The bytes from the root of the trie to ``node``."""
        found = bytearray()
        while node >= 0:
            found.append(self.byte[node])
            node = self.parent[node]
        return bytes(reversed(found))


# -- from a tokenizer -------------------------------------------------------------------------------------------------

_known: OrderedDict[tuple, tuple[Any, Vocab]] = OrderedDict()
_known_lock = Lock()
_MAX_KNOWN = 4


def vocab_of(tokenizer: Any, vocab_size: int | None = None, eos_token_ids: Any = None) -> Vocab:
    """The vocabulary of our Tokenizer, of a ``tokenizers.Tokenizer`` or of a transformers fast tokenizer.

    The last few are kept. Raises ValueError for a kind of tokenizer whose tokens have no exact bytes.
    """
    candidates = (getattr(tokenizer, name, None) for name in ("backend_tokenizer", "backend"))
    backend = next((found for found in candidates if hasattr(found, "to_str")), tokenizer)
    if not hasattr(backend, "to_str"):
        raise ValueError(f"{type(tokenizer).__name__} is no tokenizer of the `tokenizers` library and wraps none")
    eos = frozenset(_eos_ids(tokenizer, backend) if eos_token_ids is None else eos_token_ids)
    key = (id(backend), backend.get_vocab_size(), vocab_size, eos)
    from minillm_serve.guided.automaton import native  # which is built upon this module

    with _known_lock:
        if key not in _known:
            # Holding the backend keeps its id from being given to another object.
            _known[key] = (backend, _load_or_make(backend, eos, vocab_size))
            native.prepare(_known[key][1])
            while len(_known) > _MAX_KNOWN:
                _known.popitem(last=False)
        _known.move_to_end(key)
        return _known[key][1]


def _eos_ids(tokenizer: Any, backend: Any) -> set[int]:
    for name in ("eos_token_ids", "eos_token_id"):
        ids = getattr(tokenizer, name, None)
        if isinstance(ids, int):
            return {ids}
        if ids:
            return set(ids)
    return {token for name in _COMMON_EOS if (token := backend.token_to_id(name)) is not None}


def _load_or_make(backend: Any, eos: frozenset[int], vocab_size: int | None) -> Vocab:
    """The vocabulary of a tokenizer, kept on disk under what it was made from."""
    text = backend.to_str()
    key = hashlib.sha256(f"{sorted(eos)} {vocab_size} {text}".encode()).hexdigest()[:32]
    arrays = stored.load("vocab", key)
    if arrays is not None:
        pieces = _split(arrays.pop("bytes"), arrays.pop("ends"), arrays.pop("present"))
        return Vocab(pieces, eos, vocab_size, trie=Trie(**arrays), key=key)
    vocab = Vocab(token_bytes(backend, text), eos, vocab_size, key=key)
    pieces = [text or b"" for text in vocab.token_bytes]
    joined = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    present = np.array([text is not None for text in vocab.token_bytes])
    ends = np.cumsum([len(text) for text in pieces], dtype=np.int64)
    stored.save("vocab", key, {"bytes": joined, "ends": ends, "present": present, **vars(vocab.trie)})
    return vocab


def _split(joined: np.ndarray, ends: np.ndarray, present: np.ndarray) -> list[bytes | None]:
    text, start, found = joined.tobytes(), 0, []
    for end, is_text in zip(ends.tolist(), present.tolist(), strict=True):
        found.append(text[start:end] if is_text else None)
        start = end
    return found


def token_bytes(backend: Any, spec_text: str | None = None) -> list[bytes | None]:
    """The exact bytes each token id adds to the text; None for special, added and unknown tokens."""
    spec = json.loads(spec_text or backend.to_str())
    decoders = _kinds(spec.get("decoder")) | _kinds(spec.get("pre_tokenizer"))
    if "ByteLevel" in decoders:
        convert = _from_byte_level
    elif decoders & {"Metaspace", "ByteFallback"}:
        convert = _from_sentencepiece
    else:
        raise ValueError("the tokens of this tokenizer have no exact bytes; byte-level BPE and SentencePiece work")
    vocabulary = backend.get_vocab(with_added_tokens=True)
    excluded = set(backend.get_added_tokens_decoder())
    for name in (spec["model"].get("unk_token"), "<unk>", "<s>", "</s>", "<pad>"):
        if name in vocabulary:
            excluded.add(vocabulary[name])
    if isinstance(spec["model"].get("unk_id"), int):
        excluded.add(spec["model"]["unk_id"])
    found: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    for piece, token in vocabulary.items():
        if token not in excluded:
            found[token] = convert(piece) or None
    return found


def _kinds(part: Any) -> set[str]:
    """The type names in a (possibly nested) decoder or pre-tokenizer description."""
    if isinstance(part, list):
        return set().union(*map(_kinds, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    return {part.get("type", "")} | set().union(*(_kinds(value) for value in part.values()))


def _from_sentencepiece(piece: str) -> bytes | None:
    fallback = re.fullmatch("<0x([0-9A-Fa-f]{2})>", piece) if piece.startswith("<0x") else None
    if fallback:
        return bytes.fromhex(fallback[1])
    return piece.replace(_SPACE_MARK, " ").encode()


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's visible stand-ins for bytes: printable Latin-1 stands for itself, the rest follows from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in visible}
    hidden = (byte for byte in range(256) if byte not in visible)
    return alphabet | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


BYTE_LEVEL = _byte_level_alphabet()


def _from_byte_level(piece: str) -> bytes | None:
    try:
        return bytes([BYTE_LEVEL[char] for char in piece])
    except KeyError:
        return None

"""Token ids to text, one step at a time: never half a UTF-8 character, never the beginning of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import tokenizers

from minillm_serve.guided.automaton.vocab import BYTE_LEVEL
from minillm_serve.model.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what a decoder writes where bytes do not (yet) form a character
MAX_UNDECIDED = 4  # a character has at most four bytes, hence tokens: a longer row of REPLACEMENT will stay one


class TextStream(Protocol):
    """Decodes one sequence piece by piece; the pieces add up to the decoding of the whole."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that is certain now and was not before."""

    def flush(self) -> str:
        """No more ids will come: the text that was held back."""


class TokenBytes(dict[int, bytes]):
    """The bytes of each token of a byte-level tokenizer, worked out when it is first met."""

    def __init__(self, backend: tokenizers.Tokenizer, skip_special_tokens: bool):
        super().__init__()
        self._backend = backend
        added = backend.get_added_tokens_decoder() if skip_special_tokens else {}
        self._skipped = {token for token, content in added.items() if content.special}

    def __missing__(self, token: int) -> bytes:
        text = self._backend.id_to_token(token)
        if text is None or token in self._skipped:
            found = b""
        elif all(character in BYTE_LEVEL for character in text):
            found = bytes(BYTE_LEVEL[character] for character in text)
        else:
            found = text.encode()
        self[token] = found
        return found


class ByteLevelStream:
    """For byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM), where each token stands for bytes, whatever its neighbours."""

    def __init__(self, table: TokenBytes):
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, ids: Sequence[int]) -> str:
        table = self._table
        return self._decode(b"".join([table[token] for token in ids]))

    def flush(self) -> str:
        return self._decode(b"", final=True)


class WindowStream:
    """For every other tokenizer: decodes a short window twice, so that a word gets the space its neighbours give it."""

    def __init__(self, backend: tokenizers.Tokenizer, skip_special_tokens: bool):
        self._decode = partial(backend.decode, skip_special_tokens=skip_special_tokens)
        self._ids: list[int] = []
        self._read = 0  # ids before this are out already; they only give the others their context

    def push(self, ids: Sequence[int]) -> str:
        self._ids.extend(ids)
        full = self._decode(self._ids)
        if full.endswith(REPLACEMENT) and len(self._ids) - self._read < MAX_UNDECIDED:
            return ""
        new = full[len(self._decode(self._ids[: self._read])) :]
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return new

    def flush(self) -> str:
        return self._decode(self._ids)[len(self._decode(self._ids[: self._read])) :]


class StreamFactory:
    """Makes the streams of one tokenizer, of the kind that fits it."""

    def __init__(self, tokenizer: Tokenizer):
        self._backend = tokenizer.backend
        byte_level = isinstance(self._backend.decoder, tokenizers.decoders.ByteLevel)
        self._tables = {skip: TokenBytes(self._backend, skip) for skip in (True, False)} if byte_level else None

    def __call__(self, skip_special_tokens: bool = True) -> TextStream:
        if self._tables is None:
            return WindowStream(self._backend, skip_special_tokens)
        return ByteLevelStream(self._tables[skip_special_tokens])


class Detokenizer:
    """The growing text of one sequence.

    ``text`` only ever grows, and what it holds is final: the end of ``text`` is held back while it could still
    change (an unfinished character) or belong to a stop string. ``finish`` releases what is held.

    stop: strings that end the text, looked for after the first ``min_tokens`` tokens only. The text ends before the
    stop string, or with it if ``include_stop``.
    """

    def __init__(
        self, stream: TextStream, stop: Sequence[str] = (), *, min_tokens: int = 0, include_stop: bool = False
    ):
        self._stream = stream
        self._stop = tuple(stop)
        self._longest_beginning = max(map(len, self._stop), default=1) - 1
        self._min_tokens = min_tokens
        self._include_stop = include_stop
        self._count = 0
        self._raw = ""  # all text, stop strings included
        self._searched = 0  # no stop string ends in _raw before this
        self._released = 0  # length of `text` within _raw
        self.stopped_by: str | None = None

    def __len__(self) -> int:
        """Tokens pushed so far."""
        return self._count

    @property
    def text(self) -> str:
        return self._raw[: self._released]

    def push(self, ids: Sequence[int]) -> str | None:
        """Add tokens. Returns the stop string that ended the text, if one did."""
        if self._stop and self._count < self._min_tokens < self._count + len(ids):
            border = self._min_tokens - self._count
            self.push(ids[:border])
            ids = ids[border:]
        self._count += len(ids)
        return self._grow(self._stream.push(ids), final=False)

    def finish(self) -> str | None:
        """No more tokens will come: release everything. Returns the stop string that ended the text, if one did."""
        return self._grow(self._stream.flush(), final=True)

    def _grow(self, new: str, final: bool) -> str | None:
        if self.stopped_by is not None:
            return self.stopped_by
        self._raw += new
        if self._stop and self._count > self._min_tokens and (found := self._find()) is not None:
            start, self.stopped_by = found
            self._released = start + (len(self.stopped_by) if self._include_stop else 0)
            return self.stopped_by
        self._searched = len(self._raw)
        held = 0 if final or self._include_stop or not self._longest_beginning else self._partial_stop()
        self._released = len(self._raw) - held
        return None

    def _find(self) -> tuple[int, str] | None:
        """Where the stop string starts that is the first to end in the text not searched yet, and which one it is.

        The first to end, so that it does not matter how many tokens come at a time.
        """
        found = []
        for stop in self._stop:
            start = self._raw.find(stop, max(0, self._searched - len(stop) + 1))
            if start >= 0:
                found.append((start + len(stop), start, stop))
        return min(found)[1:] if found else None

    def _partial_stop(self) -> int:
        """Length of the longest end of the unreleased text that begins a stop string."""
        tail = self._raw[self._released :]
        for length in range(min(len(tail), self._longest_beginning), 0, -1):
            end = tail[-length:]
            for stop in self._stop:
                if len(stop) > length and stop.startswith(end):
                    return length
        return 0

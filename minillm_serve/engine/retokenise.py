"""Tokens for text that is known before it is generated: those that the tokenizer itself would give.

The end of a known text is not final: what follows may merge with it (``"`` and ``,`` into ``",``). Only tokens are
given out with which every longer text begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

from minillm_serve.model.tokenizer import Tokenizer

MAX_KNOWN = 4096  # answers kept; a schema has few places from which text is forced


class Retokeniser:
    """token_bytes: for each id the bytes it stands for, None or empty for control tokens. Safe to call from threads."""

    def __init__(self, tokenizer: Tokenizer, token_bytes: Sequence[bytes | None]):
        self._backend = tokenizer.backend
        self._token_bytes = token_bytes
        self._pieces = {text for text in token_bytes if text}
        self._sorted = sorted(self._pieces)
        self._longest = max(map(len, self._sorted), default=0)
        self._known: OrderedDict[tuple[bytes, bytes], tuple[int, ...]] = OrderedDict()
        self._lock = Lock()

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; none for a control token."""
        return self._token_bytes[token] or b""

    def __call__(self, before: bytes, text: bytes) -> tuple[int, ...]:
        """Tokens of a beginning of ``text``, as far as it is certain. before: the last token, already given out."""
        key = before, text
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        tokens = self._certain(before, text)
        with self._lock:
            self._known[key] = tokens
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return tokens

    def _certain(self, before: bytes, text: bytes) -> tuple[int, ...]:
        """What the encodings of all longer texts have in common.

        In each of them some token reaches over the end of ``text``, or begins there. The tokens before that one are
        the encoding of the text up to its start: a prefix of a byte-pair encoding is the encoding of its own text.
        """
        common: list[int] | None = None
        for start in self._starts(text):
            tokens = self._encode(before, text[:start])
            common = tokens if common is None else _common_prefix(common, tokens)
            if not common:
                return ()
        return tuple(self._whole_characters(before, common or []))

    def _starts(self, text: bytes) -> list[int]:
        """Where a token may start that reaches over the end of ``text``, or begins there; last first.

        A start inside a character stands for the starts of the tokens that may end there: only whole characters can
        be encoded.
        """
        found: set[int] = set()
        seen = {len(text), *self._overhanging(text)}
        pending = list(seen)
        while pending:
            start = pending.pop()
            if _is_boundary(text, start):
                found.add(start)
                continue
            earlier = {s for s in range(max(0, start - self._longest), start) if text[s:start] in self._pieces} - seen
            seen |= earlier
            pending += earlier
        return sorted(found, reverse=True)

    def _overhanging(self, text: bytes) -> Iterable[int]:
        for start in range(max(0, len(text) - self._longest), len(text)):
            beginning = text[start:]
            place = bisect_right(self._sorted, beginning)
            if place < len(self._sorted) and self._sorted[place].startswith(beginning):
                yield start

    def _encode(self, before: bytes, text: bytes) -> list[int]:
        """Tokens of ``text`` after ``before``, or by itself where the two would merge; [] where none spell it exactly.

        After a line end is for tokenizers that put a space before a text by itself (SentencePiece).
        """
        for context in dict.fromkeys((before, b"", b"\n")):
            try:
                tokens = self._backend.encode((context + text).decode(), add_special_tokens=False).ids
            except UnicodeDecodeError:
                continue
            for beginning in (context, b" " + context):
                rest = self._after(tokens, beginning)
                if rest is not None and b"".join(map(self.bytes_of, rest)) == text:
                    return rest
        return []

    def _after(self, tokens: list[int], beginning: bytes) -> list[int] | None:
        """The tokens after those that spell ``beginning``; None where one reaches over its end."""
        spelled, count = b"", 0
        while len(spelled) < len(beginning) and count < len(tokens):
            spelled += self.bytes_of(tokens[count])
            count += 1
        return tokens[count:] if spelled == beginning else None

    def _whole_characters(self, before: bytes, tokens: list[int]) -> list[int]:
        """The tokens up to the last one that ends a character."""
        spelled, whole = before, 0
        for count, token in enumerate(tokens, start=1):
            spelled += self.bytes_of(token)
            if _ends_whole(spelled):
                whole = count
        return tokens[:whole]


def _is_boundary(text: bytes, place: int) -> bool:
    """Whether no character of UTF-8 text is cut at ``place``."""
    if place < len(text):
        return text[place] & 0xC0 != 0x80
    return _ends_whole(text)


def _ends_whole(text: bytes) -> bool:
    """Whether the last character of UTF-8 text is all there."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back == length
    return True


def _common_prefix(a: list[int], b: list[int]) -> list[int]:
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return a[:place]
    return a[: min(len(a), len(b))]

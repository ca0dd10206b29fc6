"""How a known value may be written in JSON: every spelling that some ``json.dumps`` setting gives it."""

from __future__ import annotations

from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

EXACT_INTEGERS = 10**15  # below this an integer survives the way through a float, so 3 may be written 3.0


def string_texts(text: str) -> tuple[bytes, ...]:
    """The spellings of a JSON string, with its quotes: those of ``json.dumps`` with and without ``ensure_ascii``."""
    raw = encode_basestring(text)
    if raw.isascii() and "\x7f" not in raw:
        return (raw.encode(),)
    return raw.encode(), encode_basestring_ascii(text).encode()


def scalar_texts(value: Any, point_zero: bool = True) -> list[bytes]:
    """The spellings of a number, a boolean or null; ``point_zero``: may an integer be written 1.0?"""
    if value is None:
        return [b"null"]
    if isinstance(value, bool):
        return [b"true" if value else b"false"]
    texts = {repr(value)}
    if value == int(value):
        if not point_zero:
            return [str(int(value)).encode()]
        texts.add(str(int(value)))
        if abs(value) < EXACT_INTEGERS**2 and float(value) == value:
            texts |= {repr(float(value)), f"{int(value)}.0"}
    return [text.encode() for text in sorted(texts)]

"""How a known value may be written in JSON: every spelling that some ``json.dumps`` setting gives it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minillm_serve.guided.text.dfa import Dfa, Steps

QUOTE = b'"'
EXACT_INTEGERS = 10**15  # below this an integer survives the way through a float, so 3 may be written 3.0
_SHORT = {'"': b'"', "\\": b"\\", "\b": b"b", "\f": b"f", "\n": b"n", "\r": b"r", "\t": b"t"}


def char_spellings(char: str) -> list[Steps]:
    """The byte paths that spell one character inside a JSON string (hexadecimal digits in either case)."""
    code = ord(char)
    if char in _SHORT:
        short: list[Steps] = [[b"\\", _SHORT[char]]]
        return short if code >= 0x20 else [*short, _unicode_escape(code)]
    if code < 0x20:
        return [_unicode_escape(code)]
    raw = [bytes([byte]) for byte in char.encode()]
    if code < 0x7F:
        return [raw]
    if code < 0x10000:
        return [raw, _unicode_escape(code)]
    high, low = divmod(code - 0x10000, 0x400)
    return [raw, [*_unicode_escape(0xD800 + high), *_unicode_escape(0xDC00 + low)]]


def _unicode_escape(unit: int) -> Steps:
    return [b"\\", b"u", *(bytes({ord(digit), ord(digit.upper())}) for digit in f"{unit:04x}")]


def is_spellable(text: str, alphabet: frozenset[int]) -> bool:
    """Can the contents of this string be written with bytes of ``alphabet`` alone?"""
    return all(
        any(all(alphabet.intersection(allowed) for allowed in spelling) for spelling in char_spellings(char))
        for char in text
    )


def add_string(dfa: Dfa, state: int, text: str, char_states: dict[tuple[int, str], int]) -> int:
    """Lead from ``state`` (inside a string) through every spelling of ``text``; shares common prefixes."""
    for char in text:
        known = char_states.get((state, char))
        if known is None:
            spellings = char_spellings(char)
            known = dfa.add_path(state, spellings[0])
            for spelling in spellings[1:]:
                dfa.add_path(state, spelling, end=known)
            char_states[state, char] = known
        state = known
    return state


def scalar_texts(value: Any) -> list[bytes]:
    """The spellings of a number, a boolean or null."""
    if value is None:
        return [b"null"]
    if isinstance(value, bool):
        return [b"true" if value else b"false"]
    texts = {repr(value)}
    if value == int(value):
        texts.add(str(int(value)))
        if abs(value) < EXACT_INTEGERS**2 and float(value) == value:
            texts |= {repr(float(value)), f"{int(value)}.0"}
    return [text.encode() for text in sorted(texts)]


def literals(values: Iterable[Any]) -> Dfa:
    """One of the scalar ``values``, in any of its spellings."""
    dfa, char_states = Dfa(), {}
    for value in values:
        if isinstance(value, str):
            inside = dfa.add_path(dfa.start, [QUOTE])
            dfa.finals[dfa.add_path(add_string(dfa, inside, value, char_states), [QUOTE])] = ()
        else:
            for text in scalar_texts(value):
                dfa.finals[dfa.add_path(dfa.start, [bytes([byte]) for byte in text])] = ()
    return dfa

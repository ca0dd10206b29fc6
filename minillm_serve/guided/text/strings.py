"""JSON strings byte by byte: well-formed UTF-8, every escape, surrogate pairs, lengths in code points.

Free strings are *dense* leaves: inside one nearly every token is possible, so their masks come from one vectorised
pass over the vocabulary (see masks.py) instead of a walk.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

DEAD, OPEN, BODY, END = 0, 1, 2, 3
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_HEX = b"0123456789abcdefABCDEF"
_TAIL = range(0x80, 0xC0)


@dataclass(frozen=True, eq=False)
class CharTable:
    """The automaton of string contents.

    table: [states, 256] uint8, 0 where the byte is not allowed. begins: [states, 256] uint8, 1 where the byte begins a
    code point. BODY is between two characters, OPEN before the first quote, END behind the last.
    """

    table: np.ndarray
    begins: np.ndarray

    @classmethod
    @lru_cache(maxsize=8)
    def over(cls, alphabet: frozenset[int]) -> CharTable:
        """The table without states from which no single-byte tokens (``alphabet``) lead back to BODY or END."""
        table = _table()
        while True:
            usable = np.zeros(len(table), dtype=bool)
            usable[[BODY, END]] = True
            columns = sorted(alphabet)
            for _ in table:
                usable |= (usable[table[:, columns]] & (table[:, columns] != DEAD)).any(axis=1)
            usable[OPEN] = True
            pruned = np.where(usable[table], table, DEAD).astype(np.uint8)
            if (pruned == table).all():
                break
            table = pruned
        begins = np.zeros_like(table)
        begins[BODY] = table[BODY] != DEAD
        begins[BODY, _QUOTE] = 0
        return cls(table, begins)


def _table() -> np.ndarray:
    rows: dict[Any, dict[int, Any]] = {}

    def on(state: Any, symbols: Collection[int], target: Any) -> None:
        rows.setdefault(state, {}).update(dict.fromkeys(symbols, target))

    on("open", b'"', "body")
    on("body", [b for b in range(0x20, 0x80) if b not in (_QUOTE, _BACKSLASH)], "body")
    on("body", b'"', "end")
    on("body", b"\\", "escape")
    on("escape", b'"\\/bfnrt', "body")
    on("escape", b"u", "u")
    on("u", [b for b in _HEX if b not in b"dD"], "hex3")  # the first digit decides what may follow
    on("u", b"dD", "ud")
    on("ud", b"01234567", "hex2")
    on("ud", b"89abAB", "high2")  # a high surrogate, which a low one must follow; a lone low one has no edge
    for name, target in (("hex3", "hex2"), ("hex2", "hex1"), ("hex1", "body"), ("high2", "high1"), ("high1", "pair")):
        on(name, _HEX, target)
    on("pair", b"\\", "pair\\")
    on("pair\\", b"u", "pairu")
    on("pairu", b"dD", "paird")
    on("paird", b"cdefCDEF", "hex2")
    on("body", range(0xC2, 0xE0), "tail1")  # Unicode 16, table 3-7: well-formed UTF-8
    on("body", b"\xe0", "e0")
    on("body", [*range(0xE1, 0xED), 0xEE, 0xEF], "tail2")
    on("body", b"\xed", "ed")
    on("body", b"\xf0", "f0")
    on("body", b"\xf1\xf2\xf3", "tail3")
    on("body", b"\xf4", "f4")
    on("e0", range(0xA0, 0xC0), "tail1")
    on("ed", range(0x80, 0xA0), "tail1")
    on("f0", range(0x90, 0xC0), "tail2")
    on("f4", range(0x80, 0x90), "tail2")
    for name, target in (("tail3", "tail2"), ("tail2", "tail1"), ("tail1", "body")):
        on(name, _TAIL, target)
    numbers = {"open": OPEN, "body": BODY, "end": END}
    for name in rows:
        numbers.setdefault(name, len(numbers) + 1)
    table = np.zeros((len(numbers) + 1, 256), dtype=np.uint8)
    for name, row in rows.items():
        for byte, target in row.items():
            table[numbers[name], byte] = numbers[target]
    return table


_OPENING: Collection[int] = (_QUOTE,)
_ALL_BYTES: Collection[int] = range(256)


class _CharLeaf:
    """What the two kinds of free string share; a state's element 0 is the place in the character table."""

    chars: CharTable

    def next_bytes(self, state: tuple) -> Collection[int]:
        return _OPENING if state[0] == OPEN else () if state[0] == END else _ALL_BYTES


@dataclass(frozen=True)
class StringLeaf(_CharLeaf):
    """A free string; state: (place, code points still needed, code points still allowed or None)."""

    chars: CharTable
    min_length: int = 0
    max_length: int | None = None
    dense = True

    @property
    def start(self) -> tuple:
        return (OPEN, self.min_length, self.max_length)

    def step(self, state: tuple, byte: int) -> tuple | None:
        place, needed, room = state
        target = int(self.chars.table[place, byte])
        if target == DEAD or (target == END and needed):
            return None
        if self.chars.begins[place, byte]:
            if room == 0:
                return None
            needed, room = max(needed - 1, 0), None if room is None else room - 1
        return (target, needed, room)

    def follow(self, state: tuple) -> tuple | None:
        return () if state[0] == END else None

    def limits(self, state: tuple) -> tuple[int, int | None]:
        return state[1], state[2]


@dataclass(frozen=True)
class KeyLeaf(_CharLeaf):
    """The name of a further property: any string but those that ``members`` already has or had.

    state: (place, text decoded so far, bytes of the character being written). Names are compared as decoded, so
    ``"a"`` and ``"\\u0061"`` are one name. ``members.after_key(name)`` says what comes next.
    """

    chars: CharTable
    members: Any
    dense = True

    @property
    def start(self) -> tuple:
        return (OPEN, "", b"")

    def step(self, state: tuple, byte: int) -> tuple | None:
        place, text, partial = state
        target = int(self.chars.table[place, byte])
        if target == DEAD or (target == END and self.members.is_taken(text)):
            return None
        if target == END or place == OPEN:
            return (target, text, b"")
        partial += bytes([byte])
        return (target, text + decode(partial), b"") if target == BODY else (target, text, partial)

    def follow(self, state: tuple) -> tuple | None:
        return self.members.after_key(state[1]) if state[0] == END else None

    def limits(self, state: tuple) -> tuple[int, int | None]:
        return 0, None


def decode(contents: bytes) -> str:
    """The text that complete string contents (without the quotes) stand for."""
    return json.loads(b'"' + contents + b'"')

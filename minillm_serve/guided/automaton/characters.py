"""How characters are spelled: well-formed UTF-8, and inside a JSON string its escapes and surrogate pairs.

A *place* is (state, value): a state of the table and the bits of the character that are known so far. ``(BODY, 0)`` is
between two characters. The table serves one text (leaf states) and a whole vocabulary at once (token masks).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

DEAD, OPEN, BODY, END = 0, 1, 2, 3
Place = tuple[int, int]
BETWEEN: Place = (BODY, 0)

IMPOSSIBLE = 255
_HEX = b"0123456789abcdefABCDEF"
_SHORT = {b'"': 0x22, b"\\": 0x5C, b"/": 0x2F, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9}
_PAIR_OFFSET = (0x10000 >> 10) - 0xD800  # makes of a high surrogate the upper bits of the code point
_NOTHING = np.array([IMPOSSIBLE], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class CharTable:
    """target: [states, 256] uint8, DEAD where the byte is not allowed. A byte makes of the value
    ``(value << shift[state]) + add[state, byte]``; on arrival in BODY that is the code point.
    rows, shifts: the same as lists. symbols: the bytes that each state allows.
    """

    target: np.ndarray
    add: np.ndarray
    shift: np.ndarray
    rows: list[list[tuple[int, int]]]
    shifts: list[int]
    symbols: list[bytes]

    def step(self, place: Place, byte: int) -> Place:
        """The place after one more byte, with the code point as its value in BODY; (DEAD, ...) if there is none."""
        state, value = place
        target, add = self.rows[state][byte]
        return target, (value << self.shifts[state]) + add


@lru_cache(maxsize=2)
def char_table(quoted: bool) -> CharTable:
    """The table for the contents of a JSON string with its quotes, or for bare text."""
    rows: dict[str, dict[int, tuple[str, int]]] = {name: {} for name in ("dead", "open", "body", "end")}
    shifts: dict[str, int] = {}

    def on(state: str, symbols: Collection[int], target: str, base: int = 0, shift: int = 0) -> None:
        """The n-th symbol's value is ``base`` + n."""
        shifts[state] = shift
        row = rows.setdefault(state, {})
        row.update({byte: (target, base + place) for place, byte in enumerate(symbols)})

    def hexadecimal(state: str, digits: range, target: str, base: int = 0, shift: int = 4) -> None:
        on(state, [ord(f"{digit:x}") for digit in digits], target, digits.start + base, shift)
        on(state, [ord(f"{digit:X}") for digit in digits], target, digits.start + base, shift)

    if quoted:
        on("open", b'"', "body")
        on("body", b'"', "end")
        on("body", range(0x20, 0x22), "body", 0x20)
        on("body", range(0x23, 0x5C), "body", 0x23)
        on("body", range(0x5D, 0x80), "body", 0x5D)
        on("body", b"\\", "escape")
        for symbol, code in _SHORT.items():
            on("escape", symbol, "body", code)
        on("escape", b"u", "u")
        hexadecimal("u", range(16), "hex3")
        hexadecimal("u", range(0xD, 0xE), "ud")  # the second digit decides: a surrogate, or not
        hexadecimal("ud", range(8), "hex2")
        hexadecimal("ud", range(8, 0xC), "high2")  # a low surrogate must follow; one alone has no edge
        for name, target in (("hex3", "hex2"), ("hex2", "hex1"), ("hex1", "body"), ("high2", "high1")):
            hexadecimal(name, range(16), target)
        hexadecimal("high1", range(16), "pair", _PAIR_OFFSET)
        on("pair", b"\\", "pair\\")
        on("pair\\", b"u", "pairu")
        on("pairu", b"d", "low3")
        on("pairu", b"D", "low3")
        hexadecimal("low3", range(0xC, 0x10), "low2", -0xC, shift=2)
        hexadecimal("low2", range(16), "low1")
        hexadecimal("low1", range(16), "body")
    else:
        on("body", range(0x80), "body")
    _utf8(on)
    return _packed(rows, shifts)


def _utf8(on: Any) -> None:
    """Unicode 16, table 3-7: the well-formed byte sequences."""
    on("body", range(0xC2, 0xE0), "tail1", 0x02)
    on("body", b"\xe0", "e0", 0x0)
    on("body", range(0xE1, 0xED), "tail2", 0x1)
    on("body", b"\xed", "ed", 0xD)
    on("body", b"\xee\xef", "tail2", 0xE)
    on("body", b"\xf0", "f0", 0x0)
    on("body", b"\xf1\xf2\xf3", "tail3", 0x1)
    on("body", b"\xf4", "f4", 0x4)
    on("e0", range(0xA0, 0xC0), "tail1", 0x20, 6)
    on("ed", range(0x80, 0xA0), "tail1", 0x00, 6)
    on("f0", range(0x90, 0xC0), "tail2", 0x10, 6)
    on("f4", range(0x80, 0x90), "tail2", 0x00, 6)
    for name, target in (("tail3", "tail2"), ("tail2", "tail1"), ("tail1", "body")):
        on(name, range(0x80, 0xC0), target, 0, 6)


def _packed(rows: dict[str, dict[int, tuple[str, int]]], shifts: dict[str, int]) -> CharTable:
    numbers = {name: number for number, name in enumerate(rows)}
    target = np.zeros((len(rows), 256), dtype=np.uint8)
    add = np.zeros((len(rows), 256), dtype=np.int32)
    for name, row in rows.items():
        for byte, (to, value) in row.items():
            target[numbers[name], byte], add[numbers[name], byte] = numbers[to], value
    pairs = [list(zip(*columns, strict=True)) for columns in zip(target.tolist(), add.tolist(), strict=True)]
    shift = [shifts.get(name, 0) for name in rows]
    symbols = [np.flatnonzero(row).astype(np.uint8).tobytes() for row in target]
    return CharTable(target, add, np.array(shift, dtype=np.int32), pairs, shift, symbols)


# -- what single-byte tokens can spell ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Spellings:
    """The bytes that each code point still needs, in runs: from starts[i] up to starts[i + 1] - 1 it is costs[i].

    IMPOSSIBLE where a code point cannot be completed by single-byte tokens. starts[0] is 0.
    """

    starts: np.ndarray
    costs: np.ndarray

    @property
    def is_empty(self) -> bool:
        return bool((self.costs == IMPOSSIBLE).all())

    def cost(self, code: int) -> int:
        return int(self.costs[np.searchsorted(self.starts, code, side="right") - 1])


@lru_cache(maxsize=1024)
def spellings(place: Place, quoted: bool, alphabet: frozenset[int]) -> Spellings:
    """What can be spelled from ``place`` on by the bytes of ``alphabet``, each code point as short as possible."""
    table, columns = char_table(quoted), np.array(sorted(alphabet))
    complete: list[tuple[int, np.ndarray]] = []  # (length, code points), in order of length
    ahead = {place[0]: np.array([place[1]])}  # after ``length`` bytes: the values with which each state is reached
    for length in range(1, 13):
        behind, ahead = ahead, {}
        for state, values in behind.items():
            for target in np.unique(table.target[state, columns]).tolist():
                digits = np.unique(table.add[state, columns[table.target[state, columns] == target]])
                reached = ((values[:, None] << table.shifts[state]) + digits[None, :]).ravel()
                if target == BODY:
                    complete.append((length, reached))
                elif target not in (DEAD, OPEN, END):
                    ahead[target] = np.concatenate([ahead[target], reached]) if target in ahead else reached
    return _runs(complete) if complete else Spellings(np.zeros(1, dtype=np.int64), _NOTHING)


def _runs(complete: list[tuple[int, np.ndarray]]) -> Spellings:
    """The shortest length of each code point, in runs."""
    low = min(int(codes.min()) for _, codes in complete)
    high = max(int(codes.max()) for _, codes in complete)
    costs = np.full(high - low + 3, IMPOSSIBLE, dtype=np.uint8)  # with the gaps before and behind
    for length, codes in reversed(complete):
        costs[codes - low + 1] = length
    starts = np.flatnonzero(np.diff(costs)) + 1
    found = Spellings(np.concatenate([[0], starts + low - 1]), np.concatenate([_NOTHING, costs[starts]]))
    return Spellings(found.starts[1:], found.costs[1:]) if found.starts[1] == 0 else found

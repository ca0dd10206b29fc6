"""Reading the text of a grammar: characters with their places, and what the dialects share (escapes, numbers)."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NoReturn

from minillm_serve.guided.budget import spend
from minillm_serve.guided.grammar.syntax import MAX_LENGTH, MAX_REPEAT, Place, refuse
from minillm_serve.guided.text.chars import MAX_CODE_POINT

_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "0": 0x00, "a": 0x07, "b": 0x08, "f": 0x0C, "v": 0x0B}
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}
_PLAIN = {quote: re.compile(rf"[^{quote}\\\n]+") for quote in "\"'"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_HEX = frozenset("0123456789abcdefABCDEF")


class Scanner:
    """The text, and how far it is read."""

    def __init__(self, text: str):
        if len(text) > MAX_LENGTH:
            raise refuse(Place(1, 1), f"a grammar of more than {MAX_LENGTH} characters", "unsupported")
        spend(4 * len(text), "grammar")
        self.text, self.position = text, 0
        self._lines = [0, *(place + 1 for place, char in enumerate(text) if char == "\n")]

    def place(self, position: int | None = None) -> Place:
        position = self.position if position is None else position
        line = bisect_right(self._lines, position)
        return Place(line, position - self._lines[line - 1] + 1)

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        raise refuse(self.place(position), problem)

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def peek(self, length: int = 1) -> str:
        return self.text[self.position : self.position + length]

    def take(self, expected: str) -> bool:
        """Read ``expected`` if it stands here."""
        if not self.text.startswith(expected, self.position):
            return False
        self.position += len(expected)
        return True

    def expect(self, expected: str, problem: str) -> None:
        if not self.take(expected):
            self.fail(f"{problem}: expected {expected!r}, found {self.shown()}")

    def shown(self) -> str:
        return "the end" if self.at_end else repr(self.peek())

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Read what ``pattern`` matches here, which may be nothing."""
        found = pattern.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return found[0] if found else ""

    def word(self, first: str, rest: str) -> str:
        """The longest name that stands here ("" if none): a character of ``first``, then those of ``rest``."""
        start = self.position
        if self.peek() and self.peek() in first:
            self.position += 1
            while self.peek() and self.peek() in rest:
                self.position += 1
        return self.text[start : self.position]

    def number(self) -> int | None:
        """A count of repetitions, None if there is none here."""
        start = self.position
        digits = self.word("0123456789", "0123456789")
        if not digits:
            return None
        if len(digits) > 7 or int(digits) > MAX_REPEAT:
            self.fail(f"a count above {MAX_REPEAT}", start)
        return int(digits)

    def quoted(self, quote: str, what: str) -> str:
        """The text up to the closing ``quote``, from behind the opening one on."""
        plain, found = _PLAIN[quote], []
        while not self.take(quote):
            start = self.position
            text = self.skip(plain) or chr(self.character(quote, what))
            if _SURROGATE.search(text):
                self.fail("a lone surrogate is not a character", start)
            found.append(text)
        return "".join(found)

    def character(self, end: str, what: str) -> int:
        """One character of a literal or class, maybe escaped; ``end`` closes it and cannot stand here."""
        start, char = self.position, self.peek()
        if not char or char == "\n":
            self.fail(f"{what} is not closed: expected {end!r}")
        self.position += 1
        if char != "\\":
            return self._scalar(ord(char), start)
        char = self.peek()
        self.position += 1
        if char in _HEX_LENGTHS:
            digits = self.peek(_HEX_LENGTHS[char])
            if len(digits) != _HEX_LENGTHS[char] or not _HEX.issuperset(digits):
                self.fail(f"the escape \\{char} wants {_HEX_LENGTHS[char]} hexadecimal digits", start)
            self.position += len(digits)
            return self._scalar(int(digits, 16), start)
        if char in _CONTROLS:
            return _CONTROLS[char]
        if not char or char.isalnum() or char == "\n":
            self.fail(f"the escape \\{char} is not known", start)
        return ord(char)

    def _scalar(self, code: int, start: int) -> int:
        if code > MAX_CODE_POINT or 0xD800 <= code < 0xE000:
            self.fail(f"U+{code:04X} is not a character", start)
        return code

    def bounds(self, low: int | None, high: int | None, start: int) -> tuple[int, int | None]:
        """Check the counts of a repetition."""
        if low is None and high is None:
            self.fail("a count is expected here", start)
        if high is not None and high < (low or 0):
            self.fail("a repetition whose second count is less than its first", start)
        return low or 0, high

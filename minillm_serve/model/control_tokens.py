"""Control tokens written by users stay text, also after a chat template has been through with them.

A private-use character that no user's string holds, the mark, is put inside each control token that a user wrote, and
inside pieces at the edge of a string from which a template could put one together. What the template itself writes has
no mark in it and becomes control tokens; then the marks are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

_PRIVATE_USE = range(0xE000, 0xF8FF)
_PRIVATE = re.compile("[\ue000-\uf8ff]|\\\\u[ef][0-9a-f]{3}", re.IGNORECASE)


class ControlTokens:
    """ids: the text of each control token -> its id."""

    def __init__(self, ids: Mapping[str, int]):
        self.ids = dict(ids)
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._any = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self._heads = {token[:length] for token in self.ids for length in range(2, len(token))}
        self._tails = {token[-length:] for token in self.ids for length in range(2, len(token))}
        self._longest = max(map(len, self.ids), default=0)

    def split(self, text: str) -> list[str]:
        """The text in pieces: control tokens, and what stands between them."""
        return [text] if self._any is None else self._any.split(text)

    def guard(self, value: Any, mark: str) -> Any:
        """A copy of ``value`` with the mark inside whatever might become a control token, in keys and values."""
        if isinstance(value, str):
            return self._mark(value, mark)
        if isinstance(value, Mapping):
            return {self.guard(key, mark): self.guard(item, mark) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.guard(item, mark) for item in value]
        return value

    def guard_message(self, message: Mapping[str, Any], mark: str) -> dict[str, Any]:
        """The same for a message; in its role, around which templates build tokens (``<|user|>``), only whole ones."""
        role = message.get("role")
        guarded = self.guard(message, mark)
        return guarded | {"role": self._mark_whole(role, mark)} if isinstance(role, str) else guarded

    def _mark(self, text: str, mark: str) -> str:
        text = self._mark_whole(text, mark)
        lengths = range(min(self._longest - 1, len(text)), 1, -1)
        if any(text[:length] in self._tails for length in lengths):
            text = text[0] + mark + text[1:]
        for length in lengths:
            if text[-length:] in self._heads:
                at = len(text) - length + 1
                return text[:at] + mark + text[at:]
        return text

    def _mark_whole(self, text: str, mark: str) -> str:
        return text if self._any is None else self._any.sub(partial(_inside, mark), text)


def _inside(mark: str, found: re.Match[str]) -> str:
    token = found[0]
    return token[0] + mark + token[1:]


def unused_characters(value: Any) -> Iterator[str]:
    """Private-use characters that no string in ``value`` holds, neither as they are nor as JSON escapes."""
    seen = {found.lower() for text in strings_in(value) for found in _PRIVATE.findall(text)}
    return (chr(code) for code in _PRIVATE_USE if chr(code) not in seen and escaped(chr(code)) not in seen)


def without(text: str, mark: str) -> str:
    """``text`` without the mark, in whichever spelling a template left it."""
    return text.replace(mark, "").replace(escaped(mark), "")


def escaped(character: str) -> str:
    """How JSON in ASCII spells it."""
    return f"\\u{ord(character):04x}"


def strings_in(value: Any) -> Iterator[str]:
    """All strings in a JSON-like value, keys included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)

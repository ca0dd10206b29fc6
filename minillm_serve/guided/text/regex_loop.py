"""The commonest pattern of all, ``^[set]{m,n}$``: one set of characters, counted. It needs no construction.

Its automaton is a chain that can be written down.
"""

from __future__ import annotations

from dataclasses import dataclass

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_reduce import reduced
from minillm_serve.guided.text.codepoints import Ranges, partition
from minillm_serve.guided.text.regex_ast import Assertion, Chars, Repeat, Sequence, Tree

MAX_STATES = 20_000


@dataclass(frozen=True)
class Loop:
    """``low`` to ``high`` (None: any number) characters of ``chars``, and nothing else."""

    chars: Ranges
    low: int
    high: int | None

    def counted(self, keyword: str, path: str) -> CharDfa:
        """The automaton with the count. Raises :class:`SchemaError` if the count is too large."""
        last = self.low if self.high is None else self.high
        if last >= MAX_STATES:
            raise SchemaError(keyword, path, f"a pattern that counts to {last}; it may count to {MAX_STATES - 1}")
        spend(last, keyword, path)
        bounds, classes, members = partition([self.chars])
        numbers = range(1, last + 1)
        rows = [tuple([number if member else -1 for member in members]) for number in numbers]
        rows.append(tuple([last if member and self.high is None else -1 for member in members]))
        tags = [-1] * self.low + [0] * (last + 1 - self.low)
        if not any(members):
            return reduced(bounds, classes, rows, tags)
        return CharDfa(bounds, classes, tuple(rows), tuple(tags))


def loop_of(tree: Tree) -> Loop | None:
    """What ``tree`` counts between ``^`` and ``$``; None if it is of another shape."""
    match tree:
        case Sequence((Assertion("^"), Repeat(Chars(one), low, high), Assertion("$" | "z"))):
            return Loop(one, low, high)
        case Sequence((Assertion("^"), Chars(one), Assertion("$" | "z"))):
            return Loop(one, 1, 1)
    return None

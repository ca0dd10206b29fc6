"""Finite automata over code points: what a pattern, a format or a set of names says about a string's characters."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

MAX_CODE_POINT = 0x10FFFF


@dataclass(frozen=True, eq=False)
class CharDfa:
    """A deterministic automaton over Unicode code points; state 0 is the start.

    bounds: ascending code points, bounds[0] == 0; interval i holds bounds[i] up to bounds[i + 1] - 1 (the last one up
    to U+10FFFF). classes: [len(bounds)] the class of each interval. rows: [states][classes] the next state, -1 for
    none. tags: [states] -1 where the text may not end, else the tag with which it ends (0 unless a caller needs to
    know which of several languages was met). Trimmed: from every state some end can be reached; surrogates (U+D800 to
    U+DFFF) are never asked for.
    """

    bounds: tuple[int, ...]
    classes: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    tags: tuple[int, ...]

    def step(self, state: int, code: int) -> int:
        """The state after one more code point, -1 for none."""
        return self.rows[state][self.classes[bisect_right(self.bounds, code) - 1]]

    def match(self, text: str) -> int:
        """The tag with which the whole of ``text`` is accepted, -1 if it is not."""
        state = 0
        for char in text:
            state = self.step(state, ord(char))
            if state < 0:
                return -1
        return self.tags[state]

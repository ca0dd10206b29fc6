"""What is left of a grammar once everything regular is an automaton: leaves, and how rules put them together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

from minillm_serve.guided.grammar.network import UNBOUNDED_COST
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import from_words, is_empty, subtract


@dataclass(frozen=True, eq=False)
class Leaf:
    """Characters to read, never none: one of ``words``, or else what ``dfa`` accepts."""

    dfa: CharDfa | None
    words: tuple[str, ...] = ()

    @cached_property
    def cost(self) -> int:
        """Bytes of the shortest text."""
        if self.dfa is None:
            return min(len(word.encode()) for word in self.words)
        return _shortest(self.dfa)


@dataclass(frozen=True, eq=False)
class Series:
    """One after the other; none of them: the empty text."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Either:
    """One of them; none of them: nothing can be read."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Many:
    """``low`` to ``high`` times (None: any number of times)."""

    body: Expression
    low: int
    high: int | None


@dataclass(frozen=True, eq=False)
class Call:
    """The rule of that name."""

    rule: str


@dataclass(frozen=True, eq=False)
class Embedded:
    """A state of the network that was made by someone else; height, cost: what it needs at least."""

    state: int
    height: int
    cost: int
    label: str


Expression = Leaf | Series | Either | Many | Call | Embedded

NOTHING = Either(())
NONE = Series(())


def nonempty(dfa: CharDfa) -> Expression:
    """What an automaton accepts, with the empty text as an alternative of its own."""
    if is_empty(dfa):
        return NOTHING
    if dfa.tags[0] < 0:
        return Leaf(dfa)
    rest = subtract(dfa, from_words([""]), keyword="grammar")
    return NONE if is_empty(rest) else Either((NONE, Leaf(rest)))


def _shortest(dfa: CharDfa) -> int:
    """Bytes of the shortest text that an automaton accepts (Dijkstra 1959)."""
    widths = [4] * len(dfa.rows[0])
    for first, number in zip(dfa.bounds, dfa.classes, strict=True):
        widths[number] = min(widths[number], 1 + (first >= 0x80) + (first >= 0x800) + (first >= 0x10000))
    done: set[int] = set()
    queue = [(0, 0)]
    while queue:
        distance, state = heappop(queue)
        if dfa.tags[state] >= 0:
            return distance
        if state not in done:
            done.add(state)
            for number, target in enumerate(dfa.rows[state]):
                if target >= 0 and target not in done:
                    heappush(queue, (distance + widths[number], target))
    return UNBOUNDED_COST

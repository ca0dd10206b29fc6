"""Finite automata over bytes: the leaves of the grammar."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property

Steps = Sequence[bytes]  # a path of bytes; each element holds the bytes allowed at that place


class Dfa:
    """A deterministic automaton over bytes that need not be minimal.

    edges[state]: byte -> state. finals[state]: the tag with which a text ends in this state. A final state may have
    edges: the text may then end here or go on.
    """

    def __init__(self) -> None:
        self.edges: list[dict[int, int]] = [{}]
        self.finals: dict[int, int] = {}
        self.start: int = 0

    @cached_property
    def triples(self) -> array[int]:
        """(state, byte, target) of every edge, one after another. Asked for once the automaton is finished."""
        return array("i", [n for state, row in enumerate(self.edges) for edge in row.items() for n in (state, *edge)])

    # -- construction --------------------------------------------------------------------------------------------

    def new_state(self) -> int:
        self.edges.append({})
        return len(self.edges) - 1

    def add_path(self, state: int, steps: Steps, end: int | None = None) -> int:
        """Lead from ``state`` along ``steps``, sharing states that exist; the last step goes to ``end`` if given."""
        for place, allowed in enumerate(steps):
            target = self.edges[state].get(allowed[0])
            if end is not None and place == len(steps) - 1:
                target = end
            elif target is None:
                target = self.new_state()
            for byte in allowed:
                self.edges[state][byte] = target
            state = target
        return state

    def trimmed(self, alphabet: frozenset[int]) -> Dfa | None:
        """Without the states that cannot reach an end by bytes of ``alphabet``; None when nothing is left.

        Edges on other bytes stay when they lead to a live state: a longer token may cross them, and from there
        single-byte tokens lead on. So a walk that stays in the automaton never meets a dead end.
        """
        sources: list[list[int]] = [[] for _ in self.edges]
        for state, row in enumerate(self.edges):
            for byte, target in row.items():
                if byte in alphabet:
                    sources[target].append(state)
        live, stack = set(self.finals), list(self.finals)
        while stack:
            for source in sources[stack.pop()]:
                if source not in live:
                    live.add(source)
                    stack.append(source)
        if self.start not in live:
            return None
        for state, row in enumerate(self.edges):
            if any(target not in live for target in row.values()):
                self.edges[state] = {byte: target for byte, target in row.items() if target in live}
        return self


def literal(*texts: bytes, follow: int = 0) -> Dfa:
    """Exactly one of ``texts``, all of them ending with the tag ``follow``."""
    dfa = Dfa()
    for text in texts:
        dfa.finals[dfa.add_path(dfa.start, [bytes([byte]) for byte in text])] = follow
    return dfa

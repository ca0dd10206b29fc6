"""Finite automata over bytes: the leaves of the grammar."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import Any

Steps = Sequence[bytes]  # a path of bytes; each element holds the bytes allowed at that place


class Dfa:
    """A deterministic automaton over bytes that need not be minimal.

    edges[state]: byte -> state. finals[state]: the grammar symbols that come next when the leaf ends in this state
    (``()`` when the leaf is just over). A final state may have edges: the text may then end here or go on.
    """

    dense = False

    def __init__(self) -> None:
        self.edges: list[dict[int, int]] = [{}]
        self.finals: dict[int, tuple[Any, ...]] = {}
        self.start: int = 0

    # -- use -----------------------------------------------------------------------------------------------------

    def step(self, state: int, byte: int) -> int | None:
        return self.edges[state].get(byte)

    def follow(self, state: int) -> tuple[Any, ...] | None:
        """What comes next if the leaf ends here; None if it may not end here."""
        return self.finals.get(state)

    @cached_property
    def triples(self) -> array[int]:
        """(state, byte, target) of every edge, one after another. Asked for once the automaton is finished."""
        return array("i", [n for state, row in enumerate(self.edges) for edge in row.items() for n in (state, *edge)])

    def next_bytes(self, state: int) -> Collection[int]:
        return self.edges[state].keys()

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


def literal(*texts: bytes, follow: tuple[Any, ...] = ()) -> Dfa:
    """Exactly one of ``texts``."""
    dfa = Dfa()
    for text in texts:
        dfa.finals[dfa.add_path(dfa.start, [bytes([byte]) for byte in text])] = follow
    return dfa


def materialise(start: Any, step: Any, final: Any, symbols: Iterable[int]) -> Dfa:
    """Spell out an automaton that is given by functions on hashable states."""
    dfa, numbers, queue = Dfa(), {start: 0}, [start]
    for state in queue:
        if final(state):
            dfa.finals[numbers[state]] = ()
        for byte in symbols:
            target = step(state, byte)
            if target is None:
                continue
            if target not in numbers:
                numbers[target] = dfa.new_state()
                queue.append(target)
            dfa.edges[numbers[state]][byte] = numbers[target]
    return dfa

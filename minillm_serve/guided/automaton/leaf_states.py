"""Where a text stands in a leaf that reads bytes as they are: one of some literals, or a byte automaton."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from minillm_serve.guided.automaton.forbidden import (
    UNREACHABLE,
    Forbidden,
    begins_forbidden,
    cheapest,
    is_forbidden,
    symbols_after,
)
from minillm_serve.guided.grammar.network import Bytes, Literals
from minillm_serve.guided.text.dfa import Dfa

State = tuple[int, bytes | None]  # of the automaton; the bytes read so far, where they must be remembered
MAX_WEIGHTINGS = 64


class ByteLeaf:
    """The automaton of a ``Literals`` or ``Bytes`` leaf. Its states are live: an end can be reached from each.

    Live means by single bytes of ``alphabet``; an edge on another byte stays if it leads to a live state, for a
    longer token may cross it.
    """

    is_text = False

    def __init__(self, leaf: Literals | Bytes, alphabet: frozenset[int]):
        self.leaf, self.alphabet = leaf, alphabet
        if isinstance(leaf, Literals):
            self.edges, self.finals = _trie(leaf)
            self._first = 0
        else:
            self.edges, self.finals, self._first = leaf.dfa.edges, leaf.dfa.finals, leaf.dfa.start
        self._sources: list[list[int]] = [[] for _ in self.edges]
        for state, row in enumerate(self.edges):
            for byte, target in row.items():
                if byte in alphabet:
                    self._sources[target].append(state)
        self._weighted: dict[tuple[int, ...], list[int]] = {}
        self._live = self._distances(None)

    def start(self, remember: bool, forbidden: Forbidden) -> State | None:
        state = (self._first, b"" if remember else None)
        return state if self._is_live(state, forbidden) else None

    def step(self, state: State, byte: int, forbidden: Forbidden) -> State | None:
        """The state after one more byte; None when no allowed text goes on like this."""
        place, text = state
        target = self.edges[place].get(byte, -1)
        if target < 0 or self._live[target] >= UNREACHABLE:
            return None
        if text is None:
            return (target, None)
        found = (target, text + bytes([byte]))
        return found if self._is_live(found, forbidden) else None

    def end(self, state: State, forbidden: Forbidden) -> int:
        """The tag with which the leaf may end here, -1 if it may not."""
        place, text = state
        tag = self.finals.get(place, -1)
        return -1 if tag >= 0 and text is not None and is_forbidden(text, forbidden) else tag

    def goes_on(self, state: State, forbidden: Forbidden) -> bool:
        """Can anything more be read?"""
        return any(self.step(state, byte, forbidden) is not None for byte in self.edges[state[0]])

    def next_bytes(self, state: State) -> Sequence[int]:
        """The bytes that can come next, and perhaps some that cannot."""
        return list(self.edges[state[0]])

    def text(self, state: State) -> bytes:
        assert state[1] is not None, "only remembered text is asked for"
        return state[1]

    def cost(self, state: State, forbidden: Forbidden, weights: tuple[int, ...]) -> int:
        """Bytes of the shortest way to an end, with what comes after an end of each tag."""
        table = self._weighted.get(weights)
        if table is None:
            if len(self._weighted) >= MAX_WEIGHTINGS:
                self._weighted.clear()
            table = self._weighted[weights] = self._distances(weights)
        if state[1] is None or not begins_forbidden(state[1], forbidden):
            return table[state[0]]
        return self._around(state, forbidden, table, weights)

    def describe(self, state: State) -> str:
        ahead = sorted(self.edges[state[0]])
        if not isinstance(self.leaf, Literals):
            return f"bytes {_shown(bytes(ahead))}"
        choices, queue = [], [(state[0], b"")]
        while queue and len(choices) < 4:
            place, rest = queue.pop()
            if place in self.finals:
                choices.append(repr(rest.decode(errors="replace")))
            queue += [(self.edges[place][byte], rest + bytes([byte])) for byte in sorted(self.edges[place])[::-1]]
        return " | ".join([*choices, "..."] if queue else choices)

    # -- liveness and distances ----------------------------------------------------------------------------------

    def _distances(self, weights: tuple[int, ...] | None) -> list[int]:
        """Per state: bytes to an end and then ``weights[tag]`` more (Dijkstra 1959, from all ends at once)."""
        table = [UNREACHABLE] * len(self.edges)
        queue = []
        for state, tag in self.finals.items():
            table[state] = 0 if weights is None else weights[tag]
            queue.append((table[state], state))
        heapq.heapify(queue)
        while queue:
            distance, state = heapq.heappop(queue)
            if distance > table[state]:
                continue
            for source in self._sources[state]:
                if distance + 1 < table[source]:
                    table[source] = distance + 1
                    heapq.heappush(queue, (distance + 1, source))
        return table

    def _is_live(self, state: State, forbidden: Forbidden) -> bool:
        if self._live[state[0]] >= UNREACHABLE:
            return False
        if state[1] is None or not begins_forbidden(state[1], forbidden):
            return True
        return self._around(state, forbidden, self._live, None) < UNREACHABLE

    def _around(self, start: State, forbidden: Forbidden, table: list[int], weights: tuple[int, ...] | None) -> int:
        """The distance of a state whose text is the beginning of a forbidden one."""

        def ways(state: State) -> tuple[int, list[tuple[int, Any]]]:
            place, text = state
            contested = {symbol[0] for symbol in symbols_after(text, forbidden)}
            tag = self.end(state, forbidden)
            leaving = [] if tag < 0 else [0 if weights is None else weights[tag]]
            staying = []
            for byte, target in self.edges[place].items():
                if byte not in self.alphabet:
                    continue
                if byte in contested:
                    staying.append((1, (target, text + bytes([byte]))))
                else:
                    leaving.append(1 + table[target])
            return min(leaving, default=UNREACHABLE), staying

        enough = UNREACHABLE - 1 if weights is None else 0
        return cheapest(start, ways, lambda state: table[state[0]], enough)


def without_ends(leaf: Literals | Bytes, closed: tuple[int, ...]) -> Literals | Bytes:
    """The leaf without the ends that have these tags."""
    if isinstance(leaf, Literals):
        kept = [(text, tag) for text, tag in zip(leaf.texts, leaf.tags, strict=True) if tag not in closed]
        return Literals(tuple(text for text, _ in kept), tuple(tag for _, tag in kept))
    dfa = Dfa()
    dfa.edges, dfa.start = leaf.dfa.edges, leaf.dfa.start
    dfa.finals = {state: tag for state, tag in leaf.dfa.finals.items() if tag not in closed}
    return Bytes(dfa)


def _trie(leaf: Literals) -> tuple[list[dict[int, int]], dict[int, int]]:
    edges: list[dict[int, int]] = [{}]
    finals: dict[int, int] = {}
    for text, tag in zip(leaf.texts, leaf.tags, strict=True):
        state = 0
        for byte in text:
            target = edges[state].get(byte)
            if target is None:
                target = edges[state][byte] = len(edges)
                edges.append({})
            state = target
        finals[state] = tag
    return edges, finals


def _shown(symbols: bytes) -> str:
    text = "".join(chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}" for byte in symbols[:16])
    return f"[{text}{'...' if len(symbols) > 16 else ''}]"

"""Tokens inside a text: one leaf against the whole vocabulary in a few vectorised passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minillm_serve.guided.automaton.characters import BETWEEN, BODY, DEAD, END
from minillm_serve.guided.automaton.forbidden import UNREACHABLE, Forbidden, symbols_after
from minillm_serve.guided.automaton.lengths import Distances, UnknownDistances
from minillm_serve.guided.automaton.text_states import State, TextLeaf, cheapest_of
from minillm_serve.guided.automaton.vocabulary_pass import SpelledVocab, TrieLevels


@dataclass(eq=False)
class Reading:
    """costs: [tokens with text] bytes from behind the token to an end of the leaf, UNREACHABLE for a token that does
    not stay in it; 0 for one that ends with it. ends: nodes at which the leaf may be over. tags: [ends]."""

    costs: np.ndarray
    ends: np.ndarray
    tags: np.ndarray


class TextPass:
    """One leaf over one spelled vocabulary; the forbidden texts are left to :func:`contested`."""

    def __init__(self, leaf: TextLeaf, spelled: SpelledVocab):
        self.leaf, self.spelled = leaf, spelled
        self.longest = int(spelled.chars.max(initial=0))
        bounds, classes = np.array(leaf.dfa.bounds), np.array(leaf.dfa.classes)
        self._class = classes[np.searchsorted(bounds, spelled.code, side="right") - 1]
        self._tags = np.array(leaf.dfa.tags)
        self._prices: np.ndarray | None = None

    @property
    def trie(self) -> TrieLevels:
        return self.spelled.trie

    def counted(self, count: int) -> int:
        """The least count with the same tokens: far from both limits every count is alike."""
        low, high = self.leaf.leaf.min_length, self.leaf.leaf.max_length
        if self.leaf.leaf.dfa is None and low - count > self.longest:
            return 0
        if high is None or count < low:
            return count
        return low if high - count > self.leaf.lives.free_from() + self.longest else count

    def read(self, dfa: int, count: int, distances: Distances | UnknownDistances) -> Reading:
        """From the language's state ``dfa``, with ``count`` characters read before the start."""
        spelled, leaf = self.spelled, self.leaf
        states = self._states(dfa)
        counts, high = count + spelled.chars, leaf.leaf.max_length
        if high is None:
            counts, possible = np.minimum(counts, leaf.leaf.min_length), states >= 0
        else:
            possible = (states >= 0) & (counts <= high)
        enough = possible & (counts >= leaf.leaf.min_length)
        ends = np.flatnonzero(enough & (spelled.state == (END if leaf.leaf.quoted else BODY)))
        ends = ends[self._tags[states[ends]] >= 0]
        judged = spelled.trie.judged
        judged = judged[possible[judged]]
        costs = np.full(len(states), UNREACHABLE, dtype=np.int64)
        for number, nodes in _by_count(judged[spelled.state[judged] == BODY], counts):
            costs[nodes] = distances.at(leaf.counted(number))[states[nodes]]
        for number, nodes in _by_count(judged[spelled.part[judged] >= 0], counts):
            if high is None or number < high:
                costs[nodes] = self._inside(nodes, states, distances.at(leaf.counted(number + 1)))
        if leaf.leaf.quoted:
            costs[ends] = 0
        if not spelled.trie.has_every_byte:
            for level in spelled.trie.levels[1:]:
                costs[level[costs[spelled.trie.parent[level]] >= UNREACHABLE]] = UNREACHABLE
            ends = ends[costs[ends] < UNREACHABLE]
        return Reading(costs[spelled.trie.token_nodes], ends, self._tags[states[ends]])

    def _states(self, dfa: int) -> np.ndarray:
        """[nodes] the language's state, -1 where no text leads."""
        spelled = self.spelled
        if self.leaf.leaf.dfa is None:
            return np.where(spelled.state == DEAD, -1, 0)
        states = np.full(len(spelled.state) + 1, -1, dtype=np.int64)
        states[-1] = dfa
        for level in spelled.trie.levels:
            before = states[spelled.trie.parent[level]]
            moved = np.where(spelled.code[level] < 0, before, self.leaf.rows[before, self._class[level]])
            states[level] = np.where((before < 0) | (spelled.state[level] == DEAD), -1, moved)
        return states[:-1]

    def _inside(self, nodes: np.ndarray, states: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Distances from inside a character; ``ahead``: those behind it."""
        if self._prices is None:
            parts = self.spelled.parts
            self._prices = np.array([cheapest_of(self.leaf.levels(place)) for place in parts])
        targets = self.leaf.rows[states[nodes]]
        behind = np.where(targets >= 0, ahead[targets], UNREACHABLE) + self._prices[self.spelled.part[nodes]]
        return np.minimum(behind.min(axis=1), UNREACHABLE)


def _by_count(nodes: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The nodes that have the same count, together."""
    mine = counts[nodes]
    for number in np.unique(mine).tolist():
        yield number, nodes[mine == number]


@dataclass(eq=False)
class Contested:
    """Nodes whose text is the beginning of a forbidden one (``states``), and those that it closes to (``dead``)."""

    states: dict[int, State]
    dead: list[int]


NOT_CONTESTED = Contested({}, [])


def contested(leaf: TextLeaf, spelled: SpelledVocab, start: State, forbidden: Forbidden) -> Contested:
    """The few nodes for which the forbidden texts make a difference; what leaves their beginnings is free again."""
    trie, found = spelled.trie, Contested({}, [])
    queue = [(len(trie.byte), start)]
    while queue:
        above, state = queue.pop()
        wanted = _critical_bytes(leaf, state, forbidden)
        for node in _children(spelled, above):
            byte = int(trie.byte[node])
            if wanted is not None and byte not in wanted:
                continue
            target = leaf.step(state, byte, forbidden)
            if target is None:
                if leaf.table.step(state.place, byte)[0] != DEAD:
                    found.dead.append(node)
            elif target.place[0] != END and leaf.may_meet(target, forbidden):
                found.states[node] = target
                if trie.has_children[node]:
                    queue.append((node, target))
    return found


def _critical_bytes(leaf: TextLeaf, state: State, forbidden: Forbidden) -> set[int] | None:
    """The bytes by which the text may become, or stay the beginning of, a forbidden one; None: perhaps any."""
    if state.place != BETWEEN:
        return None
    bytes_ahead = {symbol.encode(errors="surrogatepass")[0] for symbol in symbols_after(state.text, forbidden)}
    return bytes_ahead | {ord('"'), ord("\\")} if leaf.leaf.quoted else bytes_ahead


def _children(spelled: SpelledVocab, node: int) -> list[int]:
    trie = spelled.trie
    if node == len(trie.byte):
        return trie.levels[0].tolist()
    found, child, end = [], node + 1, int(trie.skip[node])
    while child < end:
        found.append(child)
        child = int(trie.skip[child])
    return found

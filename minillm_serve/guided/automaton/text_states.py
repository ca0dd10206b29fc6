"""Where a text stands in a leaf that reads characters: a JSON string, or bare text, in a language of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from minillm_serve.guided.automaton.characters import (
    BETWEEN,
    BODY,
    DEAD,
    END,
    IMPOSSIBLE,
    OPEN,
    Place,
    char_table,
    spellings,
)
from minillm_serve.guided.automaton.forbidden import (
    UNREACHABLE,
    Forbidden,
    Words,
    begins_forbidden,
    cheapest,
    is_forbidden,
    symbols_after,
)
from minillm_serve.guided.automaton.lengths import Distances, UnknownDistances
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import Text
from minillm_serve.guided.text.chars import CharDfa

ANY_TEXT = CharDfa((0,), (0,), ((0,),), (0,))
MAX_WEIGHTINGS = 16
MAX_PLACES = 4_096


class State(NamedTuple):
    """place: in the character being spelled. dfa: state of the language. count: characters read, as far as it matters.
    text: the decoded characters, None where they need not be known."""

    place: Place
    dfa: int
    count: int
    text: str | None


class TextLeaf:
    """The automaton of a ``Text`` leaf. Its states are live: an end that is not forbidden can be reached from each."""

    is_text = True

    def __init__(self, leaf: Text, alphabet: frozenset[int]):
        self.leaf, self.alphabet = leaf, alphabet
        self.dfa = leaf.dfa or ANY_TEXT
        self.table = char_table(leaf.quoted)
        self.excluded = Words(leaf.excluded)
        self.rows = np.array(self.dfa.rows, dtype=np.int64).reshape(len(self.dfa.tags), -1)
        self._bounds = np.array(self.dfa.bounds)
        self._classes = np.array(self.dfa.classes)
        self._closing = 0 if not leaf.quoted else 1 if ord('"') in alphabet else UNREACHABLE
        self._levels: dict[Place, np.ndarray] = {}
        self._live_places: dict[State, bool] = {}
        self._open_ends: dict[tuple[int, int], bool] = {}
        self._weighted: dict[tuple[int, ...], Distances | UnknownDistances] = {}
        self.lives = self._distances(None)

    # -- moving --------------------------------------------------------------------------------------------------

    def start(self, remember: bool, forbidden: Forbidden) -> State | None:
        place = (OPEN, 0) if self.leaf.quoted else BETWEEN
        text = "" if remember or self.leaf.excluded else None
        state = State(place, 0, 0, text)
        return state if self._is_live(state, forbidden) else None

    def step(self, state: State, byte: int, forbidden: Forbidden) -> State | None:
        """The state after one more byte; None when no allowed text goes on like this."""
        place, value = self.table.step(state.place, byte)
        if place == DEAD:
            return None
        if place == END:
            return state._replace(place=(END, 0)) if self._may_end(state, forbidden) >= 0 else None
        if place != BODY:
            found = state._replace(place=(place, value))
        elif state.place[0] == OPEN:
            found = state._replace(place=BETWEEN)
        else:
            target = self.dfa.step(state.dfa, value)
            if target < 0:
                return None
            text = None if state.text is None else state.text + chr(value)
            found = State(BETWEEN, target, self.counted(state.count + 1), text)
        return found if self._is_live(found, forbidden) else None

    def counted(self, count: int) -> int:
        """A count, or one that leads to the same and stands for many."""
        return min(count, self.leaf.min_length) if self.leaf.max_length is None else count

    def end(self, state: State, forbidden: Forbidden) -> int:
        """The tag with which the leaf may end here, -1 if it may not."""
        if self.leaf.quoted:
            return self.dfa.tags[state.dfa] if state.place[0] == END else -1
        return self._may_end(state, forbidden)

    def goes_on(self, state: State, forbidden: Forbidden) -> bool:
        """Can anything more be read?"""
        if state.place[0] == END:
            return False
        if self.leaf.quoted or state.place != BETWEEN:
            return True  # it is live, and not at an end
        if self.may_meet(state, forbidden):
            return any(self.step(state, byte, forbidden) is not None for byte in self.next_bytes(state))
        key = (state.dfa, state.count)
        if key not in self._open_ends:
            if len(self._open_ends) >= MAX_PLACES:
                self._open_ends.clear()
            plain = state._replace(text=None)
            self._open_ends[key] = any(self.step(plain, byte, ()) is not None for byte in self.next_bytes(plain))
        return self._open_ends[key]

    def next_bytes(self, state: State) -> Sequence[int]:
        """The bytes that can come next, and perhaps some that cannot."""
        return self.table.symbols[state.place[0]]

    def text(self, state: State) -> str:
        assert state.text is not None, "only remembered text is asked for"
        return state.text

    def describe(self, state: State) -> str:
        kind = "string" if self.leaf.quoted else "text"
        if self.leaf.dfa is not None:
            kind += f", state {state.dfa} of {len(self.dfa.tags)}"
        if self.leaf.min_length or self.leaf.max_length is not None:
            kind += f", {state.count} characters"
        return f"{kind} {state.text!r}" if state.text else kind

    # -- liveness and distances ----------------------------------------------------------------------------------

    def cost(self, state: State, forbidden: Forbidden, weights: tuple[int, ...]) -> int:
        """Bytes of the shortest way to an end, with what comes after an end of each tag."""
        if state.place[0] == END:
            return weights[self.dfa.tags[state.dfa]]
        return self._cost(state, forbidden, weights)

    def may_meet(self, state: State, forbidden: Forbidden) -> bool:
        """Is the text so far the beginning of one that is forbidden?"""
        return state.text is not None and begins_forbidden(state.text, forbidden)

    def plain_cost(self, place: Place, dfa: int, count: int, distances: Distances | UnknownDistances) -> int:
        """The distance from a place when nothing is forbidden."""
        if place == BETWEEN:
            return int(distances.at(count)[dfa])
        if place[0] == OPEN:
            return int(distances.at(count)[dfa]) + self._closing
        ahead = distances.at(self.counted(count + 1)) if self._has_room(count) else None
        if ahead is None:
            return UNREACHABLE
        prices, targets = cheapest_of(self.levels(place)), self.rows[dfa]
        return int(min((np.where(targets >= 0, ahead[targets], UNREACHABLE) + prices).min(), UNREACHABLE))

    def levels(self, place: Place) -> np.ndarray:
        """[classes, 16]: how many code points of a class are that many bytes from being complete."""
        found = self._levels.get(place)
        if found is None:
            if len(self._levels) >= MAX_PLACES:
                self._levels.clear()
            spelled = spellings(place, self.leaf.quoted, self.alphabet)
            starts = np.union1d(self._bounds, spelled.starts)
            classes = self._classes[np.searchsorted(self._bounds, starts, side="right") - 1]
            costs = spelled.costs[np.searchsorted(spelled.starts, starts, side="right") - 1]
            sizes = np.diff(starts, append=0x110000)
            found = self._levels[place] = np.zeros((self.rows.shape[1], 16), dtype=np.int64)
            possible = costs != IMPOSSIBLE
            np.add.at(found, (classes[possible], costs[possible]), sizes[possible])
        return found

    def weighted(self, weights: tuple[int, ...] | None) -> Distances | UnknownDistances:
        """The distances with what comes after an end of each tag (None: 0), built when first asked for."""
        if weights is None:
            return self.lives
        if weights not in self._weighted:
            if len(self._weighted) >= MAX_WEIGHTINGS:
                self._weighted.clear()
            try:
                self._weighted[weights] = self._distances(weights)
            except SchemaError:
                self._weighted[weights] = UnknownDistances(self.lives)
        return self._weighted[weights]

    def _distances(self, weights: tuple[int, ...] | None) -> Distances:
        after = [-1 if tag < 0 else 0 if weights is None else weights[tag] for tag in self.dfa.tags]
        ends = np.array([UNREACHABLE if cost < 0 else min(cost + self._closing, UNREACHABLE) for cost in after])
        prices = cheapest_of(self.levels(BETWEEN))
        return Distances(self.rows, prices, ends, self.leaf.min_length, self.leaf.max_length)

    def _has_room(self, count: int) -> bool:
        return self.leaf.max_length is None or count < self.leaf.max_length

    def _may_end(self, state: State, forbidden: Forbidden) -> int:
        """The tag with which the characters may end here, -1 if they may not."""
        if state.place != BETWEEN or state.count < self.leaf.min_length:
            return -1
        if state.text is not None and is_forbidden(state.text, forbidden):
            return -1
        return self.dfa.tags[state.dfa]

    def _is_live(self, state: State, forbidden: Forbidden) -> bool:
        if self.leaf.max_length is not None and state.count > self.leaf.max_length:
            return False
        if self.may_meet(state, forbidden):
            return self._cost(state, forbidden, None) < UNREACHABLE
        if state.place[0] in (OPEN, BODY):
            return bool(self.lives.at(state.count)[state.dfa] < UNREACHABLE)
        key = state._replace(text=None)
        live = self._live_places.get(key)
        if live is None:
            if len(self._live_places) >= MAX_PLACES:
                self._live_places.clear()
            live = self._live_places[key] = self.plain_cost(*key[:3], self.lives) < UNREACHABLE
        return live

    def _cost(self, start: State, forbidden: Forbidden, weights: tuple[int, ...] | None) -> int:
        distances = self.weighted(weights)
        if start.place[0] == OPEN:
            return min(self._closing + self._cost(start._replace(place=BETWEEN), forbidden, weights), UNREACHABLE)
        if not self.may_meet(start, forbidden):
            return self.plain_cost(*start[:3], distances)

        def ways(state: State) -> tuple[int, list[tuple[int, Any]]]:
            tag = self._may_end(state, forbidden)
            leaving = UNREACHABLE if tag < 0 else self._closing + (0 if weights is None else weights[tag])
            if not self._has_room(state.count):
                return leaving, []
            spelled = spellings(state.place, self.leaf.quoted, self.alphabet)
            left, targets, staying = self.levels(state.place).copy(), self.rows[state.dfa], []
            count = self.counted(state.count + 1)
            for symbol in symbols_after(state.text, forbidden):
                code = ord(symbol)
                cost = spelled.cost(code)
                if cost == IMPOSSIBLE:
                    continue
                number = self.dfa.classes[bisect_right(self.dfa.bounds, code) - 1]
                left[number, cost] -= 1
                if targets[number] >= 0:
                    target = State(BETWEEN, int(targets[number]), count, state.text + symbol)
                    staying.append((cost, target))
            ahead = np.where(targets >= 0, distances.at(count)[targets], UNREACHABLE) + cheapest_of(left)
            return min(leaving, int(ahead.min())), staying

        enough = UNREACHABLE - 1 if weights is None else 0
        return cheapest(start, ways, lambda state: self.plain_cost(*state[:3], distances), enough)


def cheapest_of(levels: np.ndarray) -> np.ndarray:
    """[classes]: the bytes of the cheapest code point of each class, UNREACHABLE for a class that has none."""
    return np.where(levels.any(axis=1), (levels > 0).argmax(axis=1), UNREACHABLE)


def without_text_ends(leaf: Text, closed: tuple[int, ...]) -> Text:
    """The leaf without the ends that have these tags; its automaton is no longer trimmed."""
    dfa = leaf.dfa or ANY_TEXT
    return replace(leaf, dfa=replace(dfa, tags=tuple(-1 if tag in closed else tag for tag in dfa.tags)))

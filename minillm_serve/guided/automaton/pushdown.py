"""The pushdown automaton: configurations (leaf, place in the leaf, stack) and the sets of them that a text leads to.

A set of configurations is one :class:`State` of a lazily built deterministic automaton over bytes. Every configuration
can be completed (dead ones are never made), so a state that is not None always has a way to the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minillm_serve.guided.grammar.old_grammar import Members, Value
from minillm_serve.guided.text.strings import CharTable

MAX_CONFIGS = 1_000
MAX_STATES = 4_096
_MISSING = object()


class Stack:
    """An immutable linked list of symbols, top first; ``depth`` counts the objects and arrays in it."""

    __slots__ = ("_hash", "depth", "rest", "symbol")

    def __init__(self, symbol: Any, rest: Stack | None):
        self.symbol, self.rest = symbol, rest
        self.depth: int = (rest.depth if rest else 0) + getattr(symbol, "container", False)
        self._hash = hash((symbol, rest))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        a, b = self, other
        while a is not b:
            if not isinstance(a, Stack) or not isinstance(b, Stack) or a._hash != b._hash or a.symbol != b.symbol:
                return False
            a, b = a.rest, b.rest
        return True


Config = tuple[Any, Any, Stack | None]  # (leaf, its state, what comes after the leaf)


class State:
    """All configurations that one text may have led to. ``complete``: the text may end here."""

    __slots__ = ("_automaton", "_next", "complete", "configs")

    def __init__(self, automaton: Automaton, configs: tuple[Config, ...], complete: bool):
        self._automaton, self.configs, self.complete = automaton, configs, complete
        self._next: dict[int, State | None] = {}

    def step(self, byte: int) -> State | None:
        """The state after one more byte; None when no valid text goes on like this."""
        found = self._next.get(byte, _MISSING)
        if found is _MISSING:
            found = self._next[byte] = self._automaton.step(self.configs, byte)
        return found  # type: ignore[return-value]

    def next_bytes(self) -> set[int]:
        """The bytes that can come next (at most a few too many)."""
        return set().union(*(leaf.next_bytes(place) for leaf, place, _ in self.configs))


class Automaton:
    """The states of one grammar, made as texts reach them and shared by all its sequences."""

    def __init__(self, start: Value, chars: CharTable):
        self.chars = chars
        self.pruned = False  # True once a state had more than MAX_CONFIGS configurations and was cut
        self._states: dict[tuple[frozenset, bool], State] = {}
        found = _Found()
        self._open((start,), None, found)
        self.start = self._intern(found)

    def step(self, configs: Iterable[Config], byte: int) -> State | None:
        found = _Found()
        for leaf, place, rest in configs:
            target = leaf.step(place, byte)
            if target is not None:
                self._arrive(leaf, target, rest, found)
        return self._intern(found)

    def after(self, symbols: tuple[Any, ...], rest: Stack | None) -> State | None:
        """The state in which ``symbols`` and then ``rest`` are still to come."""
        found = _Found()
        self._open(symbols, rest, found)
        return self._intern(found)

    def only(self, configs: Iterable[Config]) -> State | None:
        """The state of some of a state's configurations."""
        found = _Found()
        found.configs = dict.fromkeys(configs)
        return self._intern(found)

    def _arrive(self, leaf: Any, place: Any, rest: Stack | None, found: _Found) -> None:
        if leaf.next_bytes(place):
            found.configs[leaf, place, rest] = None
        symbols = leaf.follow(place)
        if symbols is not None:
            self._open(symbols, rest, found)

    def _open(self, symbols: tuple[Any, ...], rest: Stack | None, found: _Found) -> None:
        """Expand until a leaf is on top of every stack, or the stack is empty: the text is complete."""
        for symbol in reversed(symbols):
            rest = Stack(symbol, rest)
        if rest is None:
            found.complete = True
            return
        top, below = rest.symbol, rest.rest
        if isinstance(top, Members):
            alternatives = top.expand(below.depth if below else 0, self.chars)
        elif hasattr(top, "expand"):
            alternatives = top.expand(below.depth if below else 0)
        else:
            found.configs[top, top.start, below] = None
            return
        for alternative in alternatives:
            self._open(alternative, below, found)

    def _intern(self, found: _Found) -> State | None:
        if not found.configs and not found.complete:
            return None
        configs = tuple(found.configs)
        if len(configs) > MAX_CONFIGS:
            self.pruned, configs = True, configs[:MAX_CONFIGS]
        key = (frozenset(configs), found.complete)
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= MAX_STATES:
                self._states.clear()
            state = self._states[key] = State(self, configs, found.complete)
        return state


class _Found:
    """What an expansion has led to so far; a dict keeps the order of the schema."""

    __slots__ = ("complete", "configs")

    def __init__(self) -> None:
        self.configs: dict[Config, None] = {}
        self.complete = False

"""Syntax tree -> nondeterministic automaton (Thompson 1968), whose conditions are gates that stand in the way.

A state reads a character, or is a gate (an assertion: passed without reading, if it holds here), or is the end, or
splits into several ways. Splits are not kept: what can be reached through them is a set of the other three kinds,
written as the bits of an integer.
"""

from __future__ import annotations

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.codepoints import Ranges, of
from minillm_serve.guided.text.regex_ast import EMPTY, Assertion, Chars, Choice, Look, Repeat, Sequence, Tree

MAX_STATES = 20_000

START, END, BOUNDARY, INSIDE, AHEAD, BEHIND = "^", "$", "b", "B", "ahead", "behind"
ACCEPT = 0  # the position that is the end


class Nfa:
    """The automaton of one tree.

    Positions are the states that are no splits; position 0 is the end. sets[i]: the characters that position i reads
    (None for a gate and for the end). gates[i]: (kind, number of the look-around) of a gate. entry: the first state.
    """

    def __init__(self, tree: Tree, over: bool, keyword: str, path: str):
        self.over = over
        self.keyword = keyword
        self.path = path
        self.sets: list[Ranges | None] = [None]
        self.gates: dict[int, tuple[str, int]] = {}
        self.looks: list[Look] = []
        self._next: list[int] = [0]  # position -> the state behind it
        self._position_of: list[int] = [ACCEPT]  # state -> its position, -1 for a split
        self._ways: dict[int, list[int]] = {}  # split -> where it leads
        self._reach: dict[int, int] = {0: 1 << ACCEPT}
        self.entry = self._build(tree, 0)

    # -- construction, from the end to the beginning -------------------------------------------------------------

    def _state(self, position: int) -> int:
        self._position_of.append(position)
        if len(self._position_of) > MAX_STATES:
            raise SchemaError(self.keyword, self.path, f"a pattern of more than {MAX_STATES} states when spelled out")
        return len(self._position_of) - 1

    def _read(self, one: Ranges, then: int) -> int:
        self.sets.append(one)
        self._next.append(then)
        return self._state(len(self.sets) - 1)

    def _gate(self, kind: str, then: int, look: int = -1) -> int:
        self.sets.append(None)
        self._next.append(then)
        self.gates[len(self.sets) - 1] = (kind, look)
        return self._state(len(self.sets) - 1)

    def _split(self, ways: list[int]) -> int:
        state = self._state(-1)
        self._ways[state] = ways
        return state

    def _build(self, tree: Tree, then: int) -> int:
        """The state from which ``tree`` is read, to go on in state ``then``."""
        match tree:
            case Chars(one):
                return self._read(one, then)
            case Sequence(parts):
                for part in reversed(parts):
                    then = self._build(part, then)
                return then
            case Choice(parts):
                return self._split([self._build(part, then) for part in parts])
            case Repeat(body, low, high):
                return self._build_repeat(body, low, high, then)
            case Assertion(kind):
                gate = self._gate(END if kind == "z" else kind, then)
                if kind == END and self.over:  # Python's $ also holds before a line end that ends the text
                    return self._split([gate, self._read(of("\n"), self._gate(END, 0))])
                return gate
            case Look(_, _, behind):
                self.looks.append(tree)
                return self._gate(BEHIND if behind else AHEAD, then, len(self.looks) - 1)
        raise AssertionError(tree)

    def _build_repeat(self, body: Tree, low: int, high: int | None, then: int) -> int:
        if body == EMPTY or high == 0:
            return then
        spend(2 * (low + (high or low)), self.keyword, self.path)
        if high is None:
            loop = self._split([then])
            self._ways[loop].append(self._build(body, loop))
            if low == 0:
                return loop
            entry = self._build(body, loop)
            low -= 1
        else:
            entry = then
            for _ in range(high - low):
                entry = self._split([then, self._build(body, entry)])
        for _ in range(low):
            entry = self._build(body, entry)
        return entry

    # -- use -----------------------------------------------------------------------------------------------------

    def after(self, position: int) -> int:
        """The positions (as bits) that can be reached behind ``position`` without reading or passing a gate."""
        return self.reach(self._next[position])

    def reach(self, state: int) -> int:
        """The positions (as bits) that can be reached from a state without reading or passing a gate."""
        known = self._reach.get(state)
        if known is not None:
            return known
        found, seen, stack = 0, {state}, [state]
        while stack:
            current = stack.pop()
            known = self._reach.get(current)
            if known is not None:
                found |= known
            elif self._position_of[current] >= 0:
                found |= 1 << self._position_of[current]
            else:
                ways = [way for way in self._ways[current] if way not in seen]
                seen.update(ways)
                stack.extend(ways)
        spend(len(seen), self.keyword, self.path)
        self._reach[state] = found
        return found

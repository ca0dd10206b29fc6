"""Nondeterministic automaton -> deterministic one: the subset construction (Rabin and Scott 1959), with look-around.

A state of the result is a set of positions that the text may have reached, and what is still owed: each lookahead that
was passed is an automaton of its own, which runs on beside the positions and has to accept the rest of the text. So a
state is a set of pairs (promises, positions). A lookbehind is an automaton that has run beside them from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text import unicode_sets
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import class_ranges
from minillm_serve.guided.text.chars_reduce import NOTHING, reduced
from minillm_serve.guided.text.codepoints import Ranges, partition
from minillm_serve.guided.text.regex_nfa import ACCEPT, AHEAD, BEHIND, BOUNDARY, END, INSIDE, START, Nfa

MAX_STATES = 20_000
MAX_CELLS = 1_000_000  # states times classes of characters

NONWORD, WORD, UNSURE = 0, 1, 2  # UNSURE: a word character in Python, none in ECMA 262
_DONE = 1 << ACCEPT

Promises = frozenset[tuple[int, int]]  # (automaton, its state), each of which has to accept the rest of the text
Pairs = dict[Promises, int]
_NONE: Promises = frozenset()


@dataclass(frozen=True)
class Context:
    """Where in the text the automaton starts: at its start, or behind a character of this kind."""

    at_start: bool = True
    kind: int = NONWORD


@dataclass(frozen=True)
class _Here:
    """What gates can know of the place between two characters. next_kind: None while the next one is not known."""

    at_start: bool
    at_end: bool
    kind: int
    next_kind: int | None
    behind: tuple[int, ...]


class Determiniser:
    """ahead[i]: for lookahead i, the automaton of the texts that may follow, by context; behind[i]: for lookbehind i,
    the automaton of the texts that may stand before."""

    def __init__(self, nfa: Nfa, ahead: dict[int, dict[Context, CharDfa]], behind: dict[int, CharDfa]):
        self.nfa = nfa
        self.promised: list[CharDfa] = []
        self.ahead = {
            look: {context: self._add_promised(dfa) for context, dfa in by_context.items()}
            for look, by_context in ahead.items()
        }
        self.behind_numbers = {look: number for number, look in enumerate(behind)}
        self.behind = list(behind.values())
        self._gate_bits = _bits_of(nfa.gates)
        self._bits = {
            kind: _bits_of(gate for gate, (its_kind, _) in nfa.gates.items() if its_kind == kind)
            for kind in (START, END, BOUNDARY, INSIDE, AHEAD, BEHIND)
        }
        self._word_bits = self._bits[BOUNDARY] | self._bits[INSIDE]
        self._settled = ~(self._bits[START] | self._bits[AHEAD] | self._bits[BEHIND])  # without gates that are decided
        self._tells_words = bool(self._word_bits) or any(len(by_context) > 1 for by_context in ahead.values())
        self._follow: dict[int, int] = {}
        self._alphabet()
        late = self._word_bits | self._bits[END]
        # What a gate that is not decided yet, or one behind it, will have to know of the place before it:
        self._kind_bits = late if self._tells_words else 0
        self._late_start = bool(self._bits[INSIDE]) or any(nfa.after(gate) & self._bits[START] for gate in _each(late))

    def _add_promised(self, dfa: CharDfa) -> int:
        self.promised.append(dfa)
        return len(self.promised) - 1

    def _alphabet(self) -> None:
        """Classes of characters that the positions, the look-around and the word boundaries do not tell apart."""
        sets: dict[Ranges, int] = {}
        positions: list[list[int]] = []
        for position, one in enumerate(self.nfa.sets):
            if one is not None:
                number = sets.setdefault(one, len(sets))
                if number == len(positions):
                    positions.append([])
                positions[number].append(position)
        position_bits = [_bits_of(places) for places in positions]
        others = [*self.promised, *self.behind]
        classes_of = [[sets.setdefault(one, len(sets)) for one in class_ranges(dfa)] for dfa in others]
        words = ()
        if self._tells_words:
            words = tuple(sets.setdefault(unicode_sets.shorthand("w", over), len(sets)) for over in (False, True))
        self.bounds, self.classes, members = partition(list(sets))
        self.match = [sum(bits for number, bits in enumerate(position_bits) if held >> number & 1) for held in members]
        self.class_in = [
            [next(c for c, number in enumerate(numbers) if held >> number & 1) for held in members]
            for numbers in classes_of
        ]
        self.kinds = [
            NONWORD if not words or not held >> words[1] & 1 else WORD if held >> words[0] & 1 else UNSURE
            for held in members
        ]
        beside: dict[tuple, int] = {}
        self._beside = [  # what a class means to all but the positions
            beside.setdefault((kind, *[column[number] for column in self.class_in]), len(beside))
            for number, kind in enumerate(self.kinds)
        ]

    # -- the construction ----------------------------------------------------------------------------------------

    def run(self, context: Context, search: bool = True) -> CharDfa:
        """The automaton of the texts that begin with a match (``search``: in which there is one), from ``context`` on.

        What follows the match may be anything, unless the pattern says otherwise.
        """
        nfa = self.nfa
        entry = nfa.reach(nfa.entry)
        self._restart = entry & ~self._bits[START] if search else 0
        behind = tuple(0 for _ in self.behind)
        here = _Here(context.at_start, False, context.kind, None, behind)
        start = self._key(self._close({_NONE: entry}, here), here)
        if start is None:
            return NOTHING
        numbers: dict[object, int] = {start: 0}
        queue = [start]
        rows: list[list[int]] = []
        tags: list[int] = []
        for key in queue:
            spend(4 * len(self.match), nfa.keyword, nfa.path)
            row = []
            for target in self._targets(key):
                if target is None:
                    row.append(-1)
                    continue
                number = numbers.get(target)
                if number is None:
                    number = numbers[target] = len(queue)
                    queue.append(target)
                row.append(number)
            rows.append(row)
            tags.append(0 if self._accepts(key) else -1)
            if len(queue) > MAX_STATES or len(queue) * len(self.match) > MAX_CELLS:
                raise SchemaError(nfa.keyword, nfa.path, f"a pattern whose automaton has more than {len(queue)} states")
        return reduced(self.bounds, self.classes, rows, tags)

    def _key(self, pairs: Pairs, here: _Here) -> tuple | None:
        """The state that these pairs are; None if nothing can follow."""
        free = pairs.get(_NONE, 0)
        if free & _DONE:
            return _FOUND
        if len(pairs) > 1:
            pairs = {
                owed: _DONE if bits & _DONE else bits & ~free if owed else bits
                for owed, bits in pairs.items()
                if not owed or bits & ~free
            }
        waits = any(bits & self._kind_bits for bits in pairs.values())
        if not any(pairs.values()) and not self._restart:
            return None
        return (
            frozenset(pairs.items()),
            here.kind if waits else NONWORD,
            here.at_start and self._late_start,
            here.behind,
        )

    def _targets(self, key: tuple) -> Iterator[tuple | None]:
        """For each class of characters the state behind it. Classes that do the same here are looked at once."""
        pairs, kind, at_start, behind = key
        if key == _FOUND:
            yield from [_FOUND] * len(self.match)
            return
        now = list(pairs)
        word = any(bits & self._word_bits for _, bits in pairs)
        known: dict[tuple, tuple | None] = {}
        for number, match in enumerate(self.match):
            if word:
                here = _Here(at_start, False, kind, self.kinds[number], behind)
                now = list(self._close(dict(pairs), here).items())
            matched = [bits if bits & _DONE else bits & match for _, bits in now]
            signature = (self._beside[number], *matched)
            if signature not in known:
                known[signature] = self._target(zip(now, matched, strict=True), behind, number)
            yield known[signature]

    def _target(self, now: Iterable[tuple[tuple[Promises, int], int]], behind: tuple, number: int) -> tuple | None:
        """The state behind one character, of which these positions take it."""
        moved: Pairs = {_NONE: self._restart} if self._restart else {}
        for (owed, _), matched in now:
            still = self._advance(owed, number) if matched else None
            if still is not None:
                followed = _DONE if matched & _DONE else self._after(matched)
                moved[still] = moved.get(still, 0) | followed
        if not moved:
            return None
        then = _Here(False, False, self.kinds[number], None, self._advance_behind(behind, number))
        return self._key(self._close(moved, then), then)

    def _accepts(self, key: tuple) -> bool:
        pairs, kind, at_start, behind = key
        here = _Here(at_start, True, kind, NONWORD, behind)
        return any(
            bits & _DONE and all(self.promised[number].tags[state] >= 0 for number, state in owed)
            for owed, bits in self._close(dict(pairs), here).items()
        )

    def _after(self, positions: int) -> int:
        followed = self._follow.get(positions)
        if followed is None:
            size = positions.bit_count() * (1 + positions.bit_length() // 2_000)
            spend(2 * size, self.nfa.keyword, self.nfa.path)
            followed = 0
            for position in _each(positions):
                followed |= self.nfa.after(position)
            self._follow[positions] = followed
        return followed

    def _advance(self, owed: Promises, number: int) -> Promises | None:
        """What is owed behind a character; None if a promise is broken."""
        still = []
        for promise, state in owed:
            dfa = self.promised[promise]
            target = dfa.rows[state][self.class_in[promise][number]]
            if target < 0:
                return None
            if not _is_kept(dfa, target):
                still.append((promise, target))
        return frozenset(still)

    def _advance_behind(self, behind: tuple[int, ...], number: int) -> tuple[int, ...]:
        if not behind:
            return behind
        offset = len(self.promised)
        return tuple(
            -1 if state < 0 else dfa.rows[state][self.class_in[offset + index][number]]
            for index, (dfa, state) in enumerate(zip(self.behind, behind, strict=True))
        )

    # -- gates ---------------------------------------------------------------------------------------------------

    def _close(self, pairs: Pairs, here: _Here) -> Pairs:
        """Pass every gate that is known to be open here; drop those that are decided."""
        if not any(bits & self._gate_bits for bits in pairs.values()):
            return pairs
        todo, closed = list(pairs.items()), {}
        while todo:
            owed, bits = todo.pop()
            fresh = bits & ~closed.get(owed, 0)
            closed[owed] = closed.get(owed, 0) | fresh
            for gate in _each(fresh & self._gate_bits):
                opened = self._open(gate, owed, here)
                if opened is not None:
                    todo.append((opened, self.nfa.after(gate)))
        return {owed: bits & self._settled for owed, bits in closed.items() if bits & self._settled}

    def _open(self, gate: int, owed: Promises, here: _Here) -> Promises | None:
        """What is owed behind the gate; None if it is shut, or not known to be open yet."""
        kind, look = self.nfa.gates[gate]
        if kind == AHEAD:
            by_context = self.ahead[look]
            promise = by_context.get(Context(here.at_start, here.kind))
            if promise is None:
                promise = by_context[Context()]
            if not any(tag >= 0 for tag in self.promised[promise].tags):
                return None
            return owed if _is_kept(self.promised[promise], 0) else owed | {(promise, 0)}
        if kind == BEHIND:
            number = self.behind_numbers[look]
            state = here.behind[number]
            is_there = state >= 0 and self.behind[number].tags[state] >= 0
            return owed if is_there != self.nfa.looks[look].negative else None
        if kind in (BOUNDARY, INSIDE):
            return owed if self._word_gate(kind, here) else None
        return owed if (here.at_start if kind == START else here.at_end) else None

    def _word_gate(self, kind: str, here: _Here) -> bool:
        """Does ``\\b`` (``\\B``) hold here in every dialect or, over, in some one?"""
        left, right = here.kind, here.next_kind
        if right is None:
            return False
        if kind == INSIDE and here.at_start and here.at_end:
            return self.nfa.over  # in the empty text \\B holds in ECMA 262 and, up to version 3.13, not in Python
        surely = left == right if kind == INSIDE else {left, right} == {NONWORD, WORD}
        return surely or (self.nfa.over and UNSURE in (left, right) and left != right)


_FOUND = (frozenset({(_NONE, _DONE)}), NONWORD, False, ())


def _is_kept(dfa: CharDfa, state: int) -> bool:
    """Does the automaton accept whatever follows?"""
    return dfa.tags[state] >= 0 and all(target == state for target in dfa.rows[state])


def _bits_of(positions: Iterable[int]) -> int:
    bits = 0
    for position in positions:
        bits |= 1 << position
    return bits


def _each(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low

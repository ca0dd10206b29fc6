"""Which tokens may come next: a position against the vocabulary's trie.

Sparse leaves (punctuation, names, constants, numbers) allow few bytes: the trie is walked from the allowed ones.
Inside a text nearly every token may be possible: there the whole vocabulary is read at once, and only tokens that end
the text and go on depend on the rest of the stack. Those are few, and walked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from minillm_serve.guided.automaton.characters import BODY, Place, char_table
from minillm_serve.guided.automaton.forbidden import UNREACHABLE, Forbidden
from minillm_serve.guided.automaton.text_masks import NOT_CONTESTED, Contested, Reading, TextPass, contested
from minillm_serve.guided.automaton.text_states import State, TextLeaf
from minillm_serve.guided.automaton.vocabulary_pass import SpelledVocab, TrieLevels

if TYPE_CHECKING:
    from minillm_serve.guided.automaton.machine import ReferenceMachine
    from minillm_serve.guided.automaton.positions import LeafKey, Position, Thread

MAX_PASSES = 64
MAX_READINGS_BYTES = 16 << 20
_ESCAPE = char_table(True).rows[BODY][ord("\\")][0]
_DENSE = (BODY, _ESCAPE)  # other places inside a character allow few bytes


class TokenMasks:
    """Computes the masks of one machine, and keeps what several of its positions share."""

    def __init__(self, machine: ReferenceMachine):
        self.machine, self.vocab = machine, machine.vocab
        self._passes: OrderedDict[tuple[LeafKey, Place], TextPass] = OrderedDict()
        self._readings: OrderedDict[tuple[LeafKey, Place, int, int], tuple[Reading, np.ndarray]] = OrderedDict()

    def fill(self, position: Position, budget: int | None = None) -> np.ndarray:
        """The mask of ``position``: uint32 [words]. budget: only tokens after which so many bytes are enough."""
        exact = self.machine.pruned
        bits = self._fill(position, budget, exact)
        if self.machine.pruned and not exact:  # threads were cut on the way: the parts no longer add up to the whole
            bits = self._fill(position, budget, exact=True)
        return bits | self.vocab.eos_mask if position.complete else bits

    def _fill(self, position: Position, budget: int | None, exact: bool) -> np.ndarray:
        """``exact`` walks the trie with the whole position; otherwise texts are taken apart from the rest."""
        tokens: list[int] = []
        bits = np.zeros(self.vocab.words, dtype=np.uint32)
        dense = [] if exact else [thread for thread in position.threads if self._is_dense(thread)]
        for thread in dense:
            bits |= self._inside_text(thread, budget, tokens)
        sparse = [thread for thread in position.threads if thread not in dense] if dense else position.threads
        if sparse:
            rest = self.machine.position_of(sparse) if dense else position
            top = self.vocab.top
            self._walk(rest, [top[byte] for byte in self.machine.possible_bytes(rest) if byte in top], budget, tokens)
        return bits | self.vocab.pack(np.array(tokens, dtype=np.int64)) if tokens else bits

    def _walk(self, position: Position, starts: Iterable[int], budget: int | None, tokens: list[int]) -> None:
        """Add the tokens in the subtrees of ``starts`` that ``position`` allows; it stands before their first byte."""
        vocab, machine = self.vocab, self.machine
        for start in starts:
            node, end, base = start, vocab.skip[start], vocab.depth[start]
            positions = [position]  # positions[d]: before the byte of a node at depth base + d
            while node < end:
                level = vocab.depth[node] - base
                target = machine.step(positions[level], vocab.byte[node])
                if target is None:
                    node = vocab.skip[node]
                    continue
                if vocab.tokens[node] and (budget is None or machine.cost(target) <= budget):
                    tokens += vocab.tokens[node]
                positions[level + 1 :] = [target]
                node += 1

    # -- inside texts --------------------------------------------------------------------------------------------

    def _is_dense(self, thread: Thread) -> bool:
        leaf = self.machine.leaf(thread)
        if not isinstance(leaf, TextLeaf) or thread.state.place[0] not in _DENSE:
            return False
        return leaf.leaf.quoted or not thread.unique  # a bare text that must be new ends nearly everywhere

    def _inside_text(self, thread: Thread, budget: int | None, tokens: list[int]) -> np.ndarray:
        """Tokens that stay in the thread's text or end with it; those that go on behind it are added to ``tokens``."""
        leaf, forbidden = self.machine.leaf(thread), self.machine.forbidden(thread)
        assert isinstance(leaf, TextLeaf)
        reader = self._pass(thread, leaf)
        if budget is None:
            reading, bits = self._plain(thread, reader)
        else:
            reading = reader.read(*thread.state[1:3], leaf.weighted(self.machine.weights(thread.targets)))
            room = budget - self.machine.return_cost(thread.frame)
            bits = self.vocab.pack(reader.trie.tokens[reading.costs <= room])
        met = NOT_CONTESTED
        if leaf.may_meet(thread.state, forbidden):
            met = contested(leaf, reader.spelled, thread.state, forbidden)
        inside = _Inside(thread, leaf, forbidden, reader, reading, met, budget)
        refused = self._refused(inside)
        ends = self._open_ends(inside)
        if self._ends_apart(inside):  # these tokens are judged by what follows the text
            refused.append(reader.trie.tokens[np.isin(reader.trie.token_nodes, reading.ends)])
            tokens += self._just_ending(inside, ends)
        if refused:
            bits = bits & ~self.vocab.pack(np.concatenate(refused))
        self._behind(inside, ends, tokens)
        return bits

    def _plain(self, thread: Thread, reader: TextPass) -> tuple[Reading, np.ndarray]:
        """The thread's reading when nothing is forbidden, and its mask; shared by all threads in the same state."""
        state: State = thread.state
        key = (thread.leaf, state.place, state.dfa, reader.counted(state.count))
        if key not in self._readings:
            reading = reader.read(state.dfa, key[3], reader.leaf.lives)
            bits = self.vocab.pack(reader.trie.tokens[reading.costs < UNREACHABLE])
            kept = np.ones(len(reading.ends), dtype=bool)
            if not reader.leaf.leaf.quoted:
                kept = reader.trie.has_children[reading.ends]
            self._readings[key] = (Reading(reading.costs[:0], reading.ends[kept], reading.tags[kept]), bits)
            while len(self._readings) > 1 and self._readings_bytes() > MAX_READINGS_BYTES:
                self._readings.popitem(last=False)
        self._readings.move_to_end(key)
        return self._readings[key]

    def _refused(self, inside: _Inside) -> list[np.ndarray]:
        """The tokens that could only become forbidden texts, or would cost too much because of them."""
        thread, leaf, met = inside.thread, inside.leaf, inside.met
        refused = [inside.reader.trie.tokens_below(node) for node in met.dead]
        if inside.budget is not None:
            room = inside.budget - self.machine.return_cost(thread.frame)
            weights = self.machine.weights(thread.targets)
            refused += [
                np.array(self.vocab.tokens[node], dtype=np.int64)
                for node, state in met.states.items()
                if self.vocab.tokens[node] and leaf.cost(state, inside.forbidden, weights) > room
            ]
        return refused

    def _open_ends(self, inside: _Inside) -> list[np.ndarray]:
        """[tags] the nodes at which the text may be over with each tag."""
        leaf, met, reading, trie = inside.leaf, inside.met, inside.reading, inside.reader.trie
        allowed = np.zeros(len(trie.byte), dtype=bool)
        allowed[reading.ends] = True
        for node in met.dead:
            allowed[node : trie.skip[node]] = False
        if not leaf.leaf.quoted:
            allowed[[node for node, state in met.states.items() if leaf.end(state, inside.forbidden) < 0]] = False
        open_ends = allowed[reading.ends]
        return [reading.ends[open_ends & (reading.tags == tag)] for tag in range(len(inside.thread.targets))]

    def _ends_apart(self, inside: _Inside) -> bool:
        """Does it depend on what follows a string whether it may end?"""
        if not inside.leaf.leaf.quoted:
            return False
        thread, look_ahead = inside.thread, self.machine.closure.look_ahead
        kinds = np.unique(inside.reading.tags).tolist()
        unsure = thread.unique and any(look_ahead(thread.targets[tag], thread.frame)[1] for tag in kinds)
        return unsure or inside.budget is not None

    def _just_ending(self, inside: _Inside, ends: list[np.ndarray]) -> list[int]:
        """The tokens that end the text, if what then must follow is possible and within the budget."""
        found: list[int] = []
        for tag, nodes in enumerate(ends):
            same = None if inside.thread.unique else self.machine.after(inside.thread.targets[tag], inside.thread.frame)
            for node in nodes.tolist():
                if self.vocab.tokens[node]:
                    after = self._after_text(inside, node) if inside.thread.unique else same
                    if after and (inside.budget is None or self.machine.cost(after) <= inside.budget):
                        found += self.vocab.tokens[node]
        return found

    def _behind(self, inside: _Inside, ends: list[np.ndarray], tokens: list[int]) -> None:
        """Add the tokens that end the text and go on."""
        trie, machine, thread = inside.reader.trie, self.machine, inside.thread
        for tag, nodes in enumerate(ends):
            after = machine.after(thread.targets[tag], thread.frame) if len(nodes) else None
            if after is None:
                continue
            here = np.zeros(len(trie.byte) + 1, dtype=bool)
            here[nodes] = True
            follows = np.zeros(256, dtype=bool)
            follows[list(machine.possible_bytes(after))] = True
            starts = np.flatnonzero(here[trie.parent] & follows[trie.byte]).tolist()
            if not thread.unique:
                self._walk(after, starts, inside.budget, tokens)
                continue
            for parent, siblings in groupby(starts, key=lambda start: int(trie.parent[start])):
                position = self._after_text(inside, parent)
                if position is not None:
                    self._walk(position, siblings, inside.budget, tokens)

    def _after_text(self, inside: _Inside, node: int) -> Position | None:
        """The position behind the thread's text, when the bytes on the way to ``node`` have ended it."""
        state: State | None = inside.thread.state
        for byte in self.vocab.path(node):
            if state is not None:
                state = inside.leaf.step(state, byte, inside.forbidden)
        if state is None:
            return None
        tag = inside.leaf.end(state, inside.forbidden)
        over = self.machine.closure.over(inside.thread._replace(state=state), inside.leaf, tag)
        return None if over is None else self.machine.after(*over)

    def _pass(self, thread: Thread, leaf: TextLeaf) -> TextPass:
        key = (thread.leaf, thread.state.place)
        if key not in self._passes:
            self._passes[key] = TextPass(leaf, _spelled_vocab(TrieLevels.of(self.vocab), leaf.leaf.quoted, key[1]))
            if len(self._passes) > MAX_PASSES:
                self._passes.popitem(last=False)
        self._passes.move_to_end(key)
        return self._passes[key]

    def nbytes(self) -> int:
        """Memory held, in bytes (an estimate)."""
        return len(self._passes) * len(self.vocab.byte) * 8 + self._readings_bytes()

    def _readings_bytes(self) -> int:
        return sum(bits.nbytes + 2 * reading.ends.nbytes for reading, bits in list(self._readings.values()))


@dataclass(frozen=True, eq=False)
class _Inside:
    """A thread inside a text, and what is known of the vocabulary from there."""

    thread: Thread
    leaf: TextLeaf
    forbidden: Forbidden
    reader: TextPass
    reading: Reading
    met: Contested
    budget: int | None


def _spelled_vocab(trie: TrieLevels, quoted: bool, start: Place) -> SpelledVocab:
    key = (quoted, start)
    if key not in trie.spelled:
        trie.spelled[key] = SpelledVocab.build(trie, quoted, start)
    return trie.spelled[key]

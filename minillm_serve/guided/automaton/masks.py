"""Which tokens may come next: a state of the automaton against the vocabulary's trie.

Sparse leaves (punctuation, names, constants, numbers) allow few bytes: the trie is walked from the allowed ones.
Inside a free string nearly every token is possible, whatever the schema: one vectorised pass over the whole trie per
place in the character table finds where each token ends and how many code points it begins; it is computed once per
vocabulary. Only tokens that close the string and go on depend on the rest of the stack, and they are few.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minillm_serve.guided.automaton.pushdown import Automaton, Config, Stack, State
from minillm_serve.guided.automaton.vocab import Vocab
from minillm_serve.guided.text.strings import BODY, DEAD, END, CharTable, KeyLeaf, decode

MAX_SETS = 128


def fill(automaton: Automaton, vocab: Vocab, state: State) -> np.ndarray:
    """The mask of ``state``: uint32 [words]."""
    exact = automaton.pruned
    bits = _fill(automaton, vocab, state, exact)
    if automaton.pruned and not exact:  # states were cut on the way, and the parts no longer add up to the whole
        bits = _fill(automaton, vocab, state, exact=True)
    return bits


def _fill(automaton: Automaton, vocab: Vocab, state: State, exact: bool) -> np.ndarray:
    """``exact`` walks the trie with the whole state; otherwise free strings are taken apart from the rest."""
    nodes: list[int] = []
    bits = np.zeros(vocab.words, dtype=np.uint32)
    dense = [] if exact else [config for config in state.configs if _inside_string(config)]
    for config in dense:
        bits |= _dense(automaton, vocab, config, nodes)
    rest = automaton.only(config for config in state.configs if not _inside_string(config)) if dense else state
    for byte in rest.next_bytes() if rest else ():
        if byte in vocab.top:
            top = vocab.top[byte]
            _walk(vocab, rest, top, vocab.skip[top], nodes)
    tokens = [token for node in nodes for token in vocab.tokens[node]]
    if tokens:
        bits |= vocab.pack(np.array(tokens))
    if state.complete:
        bits |= vocab.eos_mask
    return bits


def _inside_string(config: Config) -> bool:
    leaf, place, _ = config
    return leaf.dense and place[0] >= BODY


def _walk(vocab: Vocab, state: State, node: int, end: int, found: list[int]) -> None:
    """Add to ``found`` the nodes in [node, end) that ``state`` allows; the first one is a child of its place."""
    byte, depth, skip = vocab.byte, vocab.depth, vocab.skip
    if node >= end:
        return
    base = depth[node]
    states = [state]  # states[d]: the state before the byte of a node at depth base + d
    while node < end:
        level = depth[node] - base
        target = states[level].step(byte[node])
        if target is None:
            node = skip[node]
            continue
        found.append(node)
        states[level + 1 :] = [target]
        node += 1


@dataclass(eq=False)
class StringSets:
    """Where the tokens lead from one place inside a string; independent of every schema.

    place, count: [nodes] character state after the node's bytes, and code points begun. closing: nodes just behind a
    closing quote whose subtree goes on; end_count: code points begun there.
    """

    place: np.ndarray
    count: np.ndarray
    closing: np.ndarray
    packed: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    @property
    def most(self) -> int:
        return int(self.count.max())

    @classmethod
    def of(cls, vocab: Vocab, chars: CharTable, start: int) -> StringSets:
        key = (chars, start)
        if key not in vocab.memo:
            vocab.memo[key] = cls.compute(vocab, chars, start)
        return vocab.memo[key]

    @classmethod
    def compute(cls, vocab: Vocab, chars: CharTable, start: int) -> StringSets:
        place = np.zeros(len(vocab.byte), dtype=np.uint8)
        count = np.zeros(len(vocab.byte), dtype=np.int32)
        for level, nodes in enumerate(vocab.levels):
            parents, symbols = vocab.parent_array[nodes], vocab.byte_array[nodes]
            before = np.full(len(nodes), start) if level == 0 else place[parents]
            place[nodes] = chars.table[before, symbols]
            count[nodes] = chars.begins[before, symbols] + (0 if level == 0 else count[parents])
        count[place == DEAD] = 0
        goes_on = vocab.skip_array > np.arange(len(place)) + 1
        return cls(place, count, np.flatnonzero((place == END) & goes_on))

    def tokens(self, vocab: Vocab, needed: int, room: int | None) -> np.ndarray:
        """Tokens that stay in the string or end right behind its quote; uint32 [words]."""
        key = (min(needed, self.most + 1), self.most if room is None else min(room, self.most))
        if key not in self.packed:
            allowed = (self.place != DEAD) & (self.count <= key[1])
            allowed &= (self.place != END) | (self.count >= key[0])
            if len(self.packed) >= MAX_SETS:
                self.packed.clear()
            self.packed[key] = vocab.pack(allowed[vocab.token_node] & (vocab.token_node >= 0))
        return self.packed[key]

    def closings(self, needed: int, room: int | None) -> list[int]:
        """Nodes behind a closing quote that the lengths allow and from which tokens go on."""
        count = self.count[self.closing]
        allowed = (count >= needed) & (count <= (self.most if room is None else room))
        return self.closing[allowed].tolist()


def _dense(automaton: Automaton, vocab: Vocab, config: Config, nodes: list[int]) -> np.ndarray:
    """Tokens from inside a free string or a free name; those that go on behind it are added to ``nodes``."""
    leaf, place, rest = config
    sets = StringSets.of(vocab, leaf.chars, place[0])
    limits = leaf.limits(place)
    bits = sets.tokens(vocab, *limits)
    if isinstance(leaf, KeyLeaf):
        return bits & ~_names(automaton, vocab, sets, leaf, place, rest, nodes)
    target = automaton.after((), rest)
    for node in sets.closings(*limits):
        _walk_on(vocab, target, node, nodes)
    return bits


def _names(
    automaton: Automaton, vocab: Vocab, sets: StringSets, leaf: KeyLeaf, place: tuple, rest: Stack, nodes: list[int]
) -> np.ndarray:
    """Closings of a free name: adds what goes on behind each to ``nodes``; returns the tokens to forbid."""
    _, text, partial = place
    forbidden: list[int] = []
    contested = leaf.members.taken_starting_with(text)
    closings = np.flatnonzero(sets.place == END).tolist() if contested else sets.closing.tolist()
    for node in closings:
        follows_colon = any(vocab.byte[child] == ord(":") for child in _children(vocab, node))
        if not (contested or follows_colon):
            continue
        name = text + decode(partial + vocab.path(node)[:-1])
        if contested and leaf.members.is_taken(name):
            forbidden += vocab.tokens[node]
        elif follows_colon:
            _walk_on(vocab, automaton.after(leaf.members.after_key(name), rest), node, nodes)
    return vocab.pack(np.array(forbidden, dtype=np.int64))


def _children(vocab: Vocab, node: int) -> list[int]:
    found, child = [], node + 1
    while child < vocab.skip[node]:
        found.append(child)
        child = vocab.skip[child]
    return found


def _walk_on(vocab: Vocab, state: State | None, node: int, nodes: list[int]) -> None:
    """Walk the subtree below ``node``, whose bytes have led to ``state``."""
    if state is not None:
        _walk(vocab, state, node + 1, vocab.skip[node], nodes)

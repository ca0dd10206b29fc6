"""A whole vocabulary read at once: where each token leads from a place among the characters of a text.

One pass over the trie, level by level, spells out the characters of every token; it does not depend on the schema and
is kept with the vocabulary. A language of characters (a pattern, a length) then needs one more pass over those.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minillm_serve.guided.automaton.characters import BODY, DEAD, END, OPEN, Place, char_table
from minillm_serve.guided.automaton.vocab import Vocab


@dataclass(eq=False)
class TrieLevels:
    """The vocabulary's trie as the passes need it: with one more node behind the last, which stands for the root.

    byte, parent, skip: [nodes] int64. levels: the nodes of each depth. token_nodes: [tokens with text] by node;
    tokens: their ids. spelled: what has been spelled out so far, by (quoted, start).
    """

    vocab: Vocab
    byte: np.ndarray
    parent: np.ndarray
    skip: np.ndarray
    levels: list[np.ndarray]
    token_nodes: np.ndarray
    tokens: np.ndarray
    spelled: dict[tuple[bool, Place], SpelledVocab] = field(default_factory=dict)

    @classmethod
    def of(cls, vocab: Vocab) -> TrieLevels:
        if "levels" not in vocab.memo:
            trie = vocab.trie
            byte, parent, skip = (part.astype(np.int64) for part in (trie.byte, trie.parent, trie.skip))
            levels = [np.flatnonzero(trie.depth == depth) for depth in range(1, int(trie.depth.max()) + 1)]
            token_nodes = np.repeat(np.arange(len(byte)), np.diff(trie.first))
            parent[parent < 0] = len(byte)
            vocab.memo["levels"] = cls(vocab, byte, parent, skip, levels, token_nodes, trie.tokens)
        return vocab.memo["levels"]

    def tokens_below(self, node: int) -> np.ndarray:
        """The tokens whose bytes lead through ``node`` or end there."""
        first = self.vocab.trie.first
        return self.tokens[first[node] : first[self.skip[node]]]

    @cached_property
    def judged(self) -> np.ndarray:
        """The nodes where it is asked whether the text can still be completed: those at which tokens end.

        But all of them if some byte is no token: then a token may lead through a place that could not be completed.
        """
        return np.unique(self.token_nodes) if self.has_every_byte else np.arange(len(self.byte))

    @cached_property
    def has_every_byte(self) -> bool:
        return len(self.vocab.alphabet) == 256

    @cached_property
    def has_children(self) -> np.ndarray:
        return self.skip > np.arange(len(self.byte)) + 1


@dataclass(eq=False)
class SpelledVocab:
    """Where each node's bytes lead from ``start``.

    state: [nodes] of the character table. value: [nodes] bits of the character begun. code: [nodes] the code point
    that is complete with this byte, -1 if none is. chars: [nodes] code points complete. part: [nodes] number of the
    node's place in ``parts`` where it lies inside a character.
    """

    trie: TrieLevels
    state: np.ndarray
    value: np.ndarray
    code: np.ndarray
    chars: np.ndarray
    part: np.ndarray
    parts: list[Place]

    @classmethod
    def build(cls, trie: TrieLevels, quoted: bool, start: Place) -> SpelledVocab:
        table, nodes = char_table(quoted), len(trie.byte)
        state = np.full(nodes + 1, DEAD, dtype=np.int64)
        value = np.zeros(nodes + 1, dtype=np.int64)
        code = np.full(nodes, -1, dtype=np.int64)
        chars = np.zeros(nodes + 1, dtype=np.int64)
        state[nodes], value[nodes] = start
        for level in trie.levels:
            above, symbols = trie.parent[level], trie.byte[level]
            before = state[above]
            after = table.target[before, symbols]
            reached = (value[above] << table.shift[before]) + table.add[before, symbols]
            complete = (after == BODY) & (before != OPEN)
            state[level], code[level] = after, np.where(complete, reached, -1)
            value[level] = np.where((after == BODY) | (after == END) | (after == DEAD), 0, reached)
            chars[level] = chars[above] + complete
        part, parts = _parts(state[:nodes], value[:nodes], trie)
        return cls(trie, state[:nodes], value[:nodes], code, chars[:nodes], part, parts)


def _parts(state: np.ndarray, value: np.ndarray, trie: TrieLevels) -> tuple[np.ndarray, list[Place]]:
    """Numbers for the places inside a character, of the nodes that are judged."""
    inside = np.zeros(len(state), dtype=bool)
    inside[trie.judged] = True
    inside &= state > END
    keys, numbers = np.unique((state << 32 | value)[inside], return_inverse=True)
    part = np.full(len(state), -1, dtype=np.int64)
    part[inside] = numbers
    return part, [(int(key) >> 32, int(key) & 0xFFFFFFFF) for key in keys]

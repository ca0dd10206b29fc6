"""What the engine holds: one compiled grammar per schema, one matcher per sequence."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from minillm_serve.guided.automaton.masks import fill
from minillm_serve.guided.automaton.pushdown import Automaton, State
from minillm_serve.guided.automaton.vocab import Vocab
from minillm_serve.guided.grammar.old_grammar import Value
from minillm_serve.guided.text.strings import CharTable

MAX_MASKS = 256


class CompiledGrammar:
    """A schema bound to a vocabulary. Shared by every sequence that asks for the schema; its caches are bounded."""

    def __init__(self, start: Value, chars: CharTable, vocab: Vocab):
        self.vocab = vocab
        self.automaton = Automaton(start, chars)
        self._masks: OrderedDict[State, np.ndarray] = OrderedDict()

    @property
    def vocab_size(self) -> int:
        return self.vocab.size

    def matcher(self) -> Matcher:
        """A matcher at the beginning of the text."""
        return Matcher(self)

    def mask(self, state: State) -> np.ndarray:
        """The shared, read-only mask of a state: uint32 [ceil(V / 32)]."""
        mask = self._masks.get(state)
        if mask is None:
            mask = self._masks[state] = fill(self.automaton, self.vocab, state)
            if len(self._masks) > MAX_MASKS:
                self._masks.popitem(last=False)
        else:
            self._masks.move_to_end(state)
        return mask


class Matcher:
    """Where one sequence stands in its grammar. Copying it is cheap: the state is shared, never changed."""

    __slots__ = ("_buffer", "_finished", "_state", "grammar")

    def __init__(self, grammar: CompiledGrammar):
        self.grammar = grammar
        self._state = grammar.automaton.start
        self._finished = False
        self._buffer: np.ndarray | None = None

    def fill_mask(self) -> np.ndarray:
        """Tokens that may come next: uint32 [ceil(V / 32)], bit t % 32 of word t // 32; valid until the next call.

        The bit of each end-of-text id is set exactly where the text may end; after the end no other bit is.
        """
        if self._buffer is None:
            self._buffer = np.empty(self.grammar.vocab.words, dtype=np.uint32)
        self._buffer[:] = self.grammar.vocab.eos_mask if self._finished else self.grammar.mask(self._state)
        return self._buffer

    def accept(self, token_id: int) -> bool:
        """Move on by one token. False, and nothing changed, when the token is forbidden here."""
        vocab = self.grammar.vocab
        if token_id in vocab.eos_token_ids:
            self._finished = self.is_complete()
            return self._finished
        if self._finished or not 0 <= token_id < vocab.size or not vocab.token_bytes[token_id]:
            return False
        state: State | None = self._state
        for byte in vocab.token_bytes[token_id]:
            state = state.step(byte)
            if state is None:
                return False
        self._state = state
        return True

    def is_complete(self) -> bool:
        """May the text end here (or has it)?"""
        return self._finished or self._state.complete

    def copy(self) -> Matcher:
        """An independent matcher at the same place."""
        twin = Matcher(self.grammar)
        twin._state, twin._finished = self._state, self._finished
        return twin

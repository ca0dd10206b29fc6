"""Another compiler of schemas in the place of ours: what it says may come next, made into the engine's masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minillm_serve.guided.automaton.vocab import Vocab, vocab_of
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import UNBOUNDED_COST
from minillm_serve.params import StructuredOutputsParams


class Walker(Protocol):
    """One text under a schema, from its beginning. It knows tokens by their ids."""

    def allowed(self) -> Sequence[int]:
        """Ids of the tokens that may come next; the end token where, and only where, the text may end."""

    def accept(self, token: int) -> None:
        """Move on by a token that is allowed and is not the end."""


Compile = Callable[[Any, list[str | None], int], Walker]
"""f(schema, text of each token or None where it has none of its own, end token) -> a walker at the text's beginning."""


class PluggedCompiler:
    """Stands where :func:`minillm_serve.guided.constraints.compile_constraint` stands, for JSON schemas alone."""

    def __init__(self, compile_schema: Compile):
        self._compile = compile_schema

    def __call__(
        self,
        params: StructuredOutputsParams,
        tokenizer: Any,
        *,
        vocab_size: int | None = None,
        eos_token_ids: Iterable[int] | None = None,
    ) -> PluggedGrammar:
        """Raises :class:`SchemaError` for another kind of constraint and for what the compiler itself refuses."""
        if params.kind != "json":
            raise SchemaError(str(params.kind), "", "the guided.compile in use compiles JSON schemas alone")
        vocab = vocab_of(tokenizer, vocab_size, eos_token_ids)
        texts = [None if data is None else _text(data) for data in vocab.token_bytes]
        grammar = PluggedGrammar(partial(self._compile, params.json, texts, max(vocab.eos_token_ids)), vocab)
        try:
            grammar.matcher().fill_mask()
        except Exception as error:
            raise SchemaError("guided.compile", "", f"refused by its code: {type(error).__name__}: {error}") from error
        return grammar


class PluggedGrammar:
    """What the engine keeps of a schema: how to make a walker of it, for each sequence one."""

    def __init__(self, make_walker: Callable[[], Walker], vocab: Vocab):
        self.vocab = vocab
        self.make_walker = make_walker

    def matcher(self) -> PluggedMatcher:
        return PluggedMatcher(self)

    def nbytes(self) -> int:
        """Not known: counted as nothing."""
        return 0


class PluggedMatcher:
    """A :class:`minillm_serve.runner.guide.Matcher` around a walker; it knows no text that must come, no cost."""

    def __init__(self, grammar: PluggedGrammar):
        self.grammar = grammar
        self._walker = grammar.make_walker()
        self._taken: list[int] = []
        self._finished = False
        self._allowed: frozenset[int] | None = None

    def fill_mask(self) -> NDArray[np.uint32]:
        mask = np.zeros_like(self.grammar.vocab.eos_mask)
        self.fill_into(mask)
        return mask

    def fill_into(self, out: NDArray[np.uint32], budget: int | None = None) -> None:
        """budget: not known here, so a text is never shortened to fit."""
        bits = np.zeros(out.size * 32, np.uint8)
        bits[sorted(self._tokens())] = 1
        out[:] = np.packbits(bits, bitorder="little").view(np.uint32)

    def accept(self, token_id: int) -> bool:
        if token_id not in self._tokens():
            return False
        if token_id in self.grammar.vocab.eos_token_ids:
            self._finished = True
        else:
            self._walker.accept(token_id)
        self._taken.append(token_id)
        self._allowed = None
        return True

    def copy(self) -> PluggedMatcher:
        """An independent one at the same place, led there again: a walker need not know how to copy itself."""
        twin = PluggedMatcher(self.grammar)
        for token in self._taken:
            twin.accept(token)
        return twin

    def forced_bytes(self, limit: int = 0) -> bytes:
        return b""

    def cost(self) -> int:
        return 0 if self._finished else UNBOUNDED_COST

    @property
    def is_finished(self) -> bool:
        return self._finished

    def is_complete(self) -> bool:
        return self._finished or bool(self.grammar.vocab.eos_token_ids & self._tokens())

    def _tokens(self) -> frozenset[int]:
        if self._finished:
            return frozenset()
        if self._allowed is None:
            allowed, ends = frozenset(self._walker.allowed()), self.grammar.vocab.eos_token_ids
            if not allowed:
                raise ValueError("guided.compile allows no token at all, not even the end")
            self._allowed = allowed | ends if allowed & ends else allowed
        return self._allowed


def _text(data: bytes) -> str | None:
    """None for a token that is no whole text: half a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None

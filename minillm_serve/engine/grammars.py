"""Compiled constraints, shared by the requests that ask for the same one and bounded in memory.

A constraint is compiled before its request is scheduled, never in the step loop. A grammar lives as long as a request
needs it, however little the cache may hold.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from minillm_serve.engine.retokenise import Retokeniser
from minillm_serve.guided.constraints import compile_constraint
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import RequestError, StructuredOutputsParams
from minillm_serve.plan import RequestInit
from minillm_serve.runner.guide import Guide

MAX_GRAMMARS = 256
SWITCH_S = 1e-4  # seconds a compiling thread may keep the interpreter from another one


class GrammarCache:
    """Grammars by their constraint's key, least recently used out first. Safe to call from several threads.

    max_bytes: memory of all grammars together. jump_ahead, always_closes: what the guides of requests do.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        max_bytes: int = 256 << 20,
        *,
        jump_ahead: bool = False,
        always_closes: bool = False,
        compiler: Callable[..., Any] = compile_constraint,
    ):
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_bytes = max_bytes
        self.jump_ahead = jump_ahead
        self._always_closes = always_closes
        self._compile = compiler
        self._retokeniser: Retokeniser | None = None
        self._lock = Lock()
        self._compiling = Lock()  # one at a time: more of them would only share the interpreter, and their time with it
        self._recent: OrderedDict[str, Any] = OrderedDict()
        self._alive: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def find(self, constraint: StructuredOutputsParams) -> Any | None:
        """The compiled grammar if it is there; never compiles."""
        key = constraint.key()
        with self._lock:
            grammar = self._recent.get(key, self._alive.get(key))
            if grammar is not None:
                self._keep(key, grammar)
            return grammar

    def get(self, constraint: StructuredOutputsParams) -> Any:
        """The compiled grammar. Raises :class:`RequestError` naming what cannot be honoured, about a second at most."""
        if (grammar := self.find(constraint)) is not None:
            return grammar
        with self._compiling:
            if (grammar := self.find(constraint)) is None:
                grammar = self._compiled(constraint)
                self.put(constraint, grammar)
            return grammar

    def put(self, constraint: StructuredOutputsParams, grammar: Any) -> None:
        """Keep a grammar under its constraint's key; others that are too much go, the longest unused first."""
        key = constraint.key()
        with self._lock:
            self._keep(key, grammar)

    def _keep(self, key: str, grammar: Any) -> None:
        known = key in self._recent
        self._recent[key] = self._alive[key] = grammar
        self._recent.move_to_end(key)
        if known:
            return
        total = sum(kept.nbytes() for kept in self._recent.values())
        while len(self._recent) > 1 and (total > self._max_bytes or len(self._recent) > MAX_GRAMMARS):
            total -= self._recent.popitem(last=False)[1].nbytes()

    def closes(self, constraint: StructuredOutputsParams) -> bool:
        """Whether texts under this constraint are complete within max_tokens."""
        return self._always_closes if constraint.always_closes is None else constraint.always_closes

    def guide(self, init: RequestInit) -> Guide:
        """A guide at the beginning of the generated text; tokens generated before a preemption are for the caller."""
        params = init.params
        matcher = self.get(params.structured_outputs).matcher()
        room = sys.maxsize if init.max_total_tokens is None else init.max_total_tokens - init.num_prompt_tokens
        closes = self.closes(params.structured_outputs)
        jumps = self.jump_ahead and params.logprobs is None  # a token that was not drawn has no log-probability
        return Guide(matcher, room, closes=closes, retokeniser=self._retokeniser if jumps else None)

    def _compiled(self, constraint: StructuredOutputsParams) -> Any:
        try:
            with _short_turns():
                grammar = self._compile(constraint, self._tokenizer, vocab_size=self._vocab_size)
                if self.jump_ahead and self._retokeniser is None:
                    self._retokeniser = Retokeniser(self._tokenizer, grammar.vocab.token_bytes)
        except RequestError as error:
            if error.param in (None, "structured_outputs.json"):
                error.param = f"structured_outputs.{constraint.kind}"
            raise
        except ValueError as error:  # a tokenizer whose tokens have no exact bytes
            raise RequestError(f"this model cannot be guided: {error}", "structured_outputs") from error
        return grammar


@contextmanager
def _short_turns() -> Iterator[None]:
    """Within the block a thread that runs Python gives way to others after 0.1 ms instead of 5.

    The step thread lets the interpreter go in each of the hundreds of kernels of a step and must get it back after
    each; waiting 5 ms for it every time would stall all requests while a schema compiles.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)

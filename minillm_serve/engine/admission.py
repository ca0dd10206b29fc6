"""The front door: every request is checked here, before anything of it is scheduled, or refused with a reason."""

from __future__ import annotations

import itertools
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from minillm_serve.guided import compile_json_schema
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import RequestError, SamplingParams
from minillm_serve.request import Request
from minillm_serve.runner.batch import Grammar


class GrammarCache:
    """Compiled schemas by their text, least recently used out first. Safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, capacity: int = 64):
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._capacity = capacity
        self._lock = Lock()
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()

    def get(self, schema: str) -> Grammar:
        """The grammar of a JSON Schema text. Raises SchemaError (a RequestError) naming what cannot be honoured."""
        with self._lock:
            if schema in self._grammars:
                self._grammars.move_to_end(schema)
                return self._grammars[schema]
        grammar = compile_json_schema(schema, self._tokenizer, vocab_size=self._vocab_size)
        with self._lock:
            self._grammars[schema] = grammar
            while len(self._grammars) > self._capacity:
                self._grammars.popitem(last=False)
        return grammar


class Admission:
    """Turns prompt and parameters into a Request that is certain to be servable. Holds no request itself."""

    def __init__(
        self, tokenizer: Tokenizer, grammars: GrammarCache, vocab_size: int, max_model_len: int, kv_tokens: int
    ):
        self.tokenizer = tokenizer
        self.grammars = grammars
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self.kv_tokens = kv_tokens
        self._next_rid = itertools.count()

    def request(self, prompt: str | Sequence[int], params: SamplingParams) -> Request:
        """Raises :class:`RequestError` naming the field at fault."""
        ids = self._prompt_ids(prompt)
        total = self._total_tokens(len(ids), params)
        if any(token >= self.vocab_size for token in params.stop_token_ids):
            raise RequestError(f"stop_token_ids must be below the vocabulary size {self.vocab_size}", "stop_token_ids")
        if params.structured_outputs is not None:
            if params.ignore_eos:
                raise RequestError("ignore_eos contradicts structured_outputs, which end with EOS", "ignore_eos")
            self.grammars.get(params.structured_outputs.json_text())
        return Request(
            rid=next(self._next_rid),
            token_ids=ids,
            num_prompt_tokens=len(ids),
            params=params,
            max_total_tokens=total,
            eos_token_ids=self.tokenizer.eos_token_ids,
            seed=params.seed if params.seed is not None else secrets.randbits(63),
        )

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        ids = self.tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else list(prompt)
        if not ids:
            raise RequestError("the prompt is empty: at least one token is needed", "prompt")
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self.vocab_size:
                raise RequestError(
                    f"prompt token ids must be integers in [0, {self.vocab_size}), got {token!r}", "prompt"
                )
        return ids

    def _total_tokens(self, prompt_tokens: int, params: SamplingParams) -> int:
        """Longest this sequence may get. An explicit max_tokens that cannot be given is refused, not shortened."""
        limit = min(self.max_model_len, self.kv_tokens)
        reason = "maximum context length" if limit == self.max_model_len else "whole KV cache"
        if prompt_tokens >= limit:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens; this server's {reason} is {limit} tokens, output included",
                "prompt",
            )
        if params.max_tokens is None:
            return limit
        if prompt_tokens + params.max_tokens > limit:
            raise RequestError(
                f"{prompt_tokens} prompt tokens and max_tokens={params.max_tokens} make "
                f"{prompt_tokens + params.max_tokens}; this server's {reason} is {limit} tokens",
                "max_tokens",
            )
        return prompt_tokens + params.max_tokens

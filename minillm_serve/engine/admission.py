"""The front door: every request is checked here, before anything of it is scheduled, or refused with a reason."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.engine.detokenizer import Detokenizer, StreamFactory
from minillm_serve.engine.grammars import GrammarCache
from minillm_serve.engine.group import RequestGroup, Sample, derived_seed, sample_params
from minillm_serve.guided.grammar.network import UNBOUNDED_COST
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import PoolingParams, RequestError, SamplingParams
from minillm_serve.request import Request

EMBED = SamplingParams(temperature=0.0, max_tokens=None)
LIKELIHOOD = SamplingParams(temperature=0.0, max_tokens=None, prompt_logprobs=0)


class Admission:
    """Turns prompt and parameters into samples that are certain to be servable. Holds no request itself.

    kv_tokens: what the whole KV cache holds.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        grammars: GrammarCache,
        vocab_size: int,
        max_model_len: int,
        kv_tokens: int,
        config: EngineConfig,
    ):
        self.tokenizer = tokenizer
        self.grammars = grammars
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self.kv_tokens = kv_tokens
        self.config = config
        self._text_streams = StreamFactory(tokenizer)
        self._next_rid = itertools.count()

    def admit(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | PoolingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> RequestGroup:
        """Raises :class:`RequestError` naming the field at fault."""
        if isinstance(params, PoolingParams):
            return self._admit_pooling(prompt, params, priority, cache_salt)
        ids = self._prompt_ids(prompt)
        max_total_tokens = self._total_tokens(len(ids), params)
        self._check_token_ids(params)
        grammar = self._grammar(params, max_total_tokens - len(ids))
        self._check_priority(priority)
        rids = [next(self._next_rid) for _ in range(params.num_sequences)]
        salt = self._salt(cache_salt)
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        words = replace(params, bad_words_ids=self._bad_words_ids(params)) if params.bad_words else params
        own_params = [sample_params(words, first=True)] + [sample_params(words, first=False)] * (len(rids) - 1)
        samples = []
        for index, (rid, own) in enumerate(zip(rids, own_params, strict=True)):
            request = Request(
                rid=rid,
                token_ids=list(ids),
                num_prompt_tokens=len(ids),
                params=own,
                max_total_tokens=max_total_tokens,
                eos_token_ids=self.tokenizer.eos_token_ids,
                seed=derived_seed(seed, index),
                priority=priority,
                cache_salt=salt,
                skip_prefix_hit=own.prompt_logprobs is not None,
                group=rids[0] if len(rids) > 1 else None,
            )
            samples.append(Sample(index, request, self._detokenizer(params)))
        return RequestGroup(params, samples, grammar)

    def _admit_pooling(
        self, prompt: str | Sequence[int], pooling: PoolingParams, priority: int, cache_salt: str | None
    ) -> RequestGroup:
        """A request that ends with its prompt, every token of which is computed: none may come from the cache."""
        ids = self._prompt_ids(prompt)
        self._check_prompt_fits(len(ids), room=0)
        self._check_priority(priority)
        params = LIKELIHOOD if pooling.task == "likelihood" else EMBED
        request = Request(
            rid=next(self._next_rid),
            token_ids=list(ids),
            num_prompt_tokens=len(ids),
            params=params,
            max_total_tokens=len(ids),
            eos_token_ids=self.tokenizer.eos_token_ids,
            seed=0,
            priority=priority,
            cache_salt=self._salt(cache_salt),
            skip_prefix_hit=True,
            prompt_only=True,
        )
        return RequestGroup(params, [Sample(0, request, self._detokenizer(params))], pooling=pooling)

    def _detokenizer(self, params: SamplingParams) -> Detokenizer:
        return Detokenizer(
            self._text_streams(params.skip_special_tokens),
            params.stop,
            min_tokens=params.min_tokens,
            include_stop=params.include_stop_str_in_output,
        )

    def _salt(self, cache_salt: str | None) -> tuple[str, ...]:
        if cache_salt is None:
            return ()
        if not isinstance(cache_salt, str) or not cache_salt:
            raise RequestError(f"cache_salt must be a non-empty string, got {cache_salt!r}", "cache_salt")
        return (cache_salt,)

    def _check_priority(self, priority: int) -> None:
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise RequestError(f"priority must be an integer, got {priority!r}", "priority")
        if priority != 0 and self.config.scheduling_policy != "priority":
            raise RequestError(
                f"priority is {priority}, but this engine serves in order of arrival: leave it out, or start the "
                "engine with scheduling_policy='priority'",
                "priority",
            )

    def _check_token_ids(self, params: SamplingParams) -> None:
        named = {
            "stop_token_ids": params.stop_token_ids,
            "allowed_token_ids": params.allowed_token_ids,
            "logprob_token_ids": params.logprob_token_ids,
            "logit_bias": params.logit_bias,
            "bad_words_ids": itertools.chain.from_iterable(params.bad_words_ids),
        }
        for name, ids in named.items():
            if any(token >= self.vocab_size for token in ids or ()):
                raise RequestError(f"{name} must be below the vocabulary size {self.vocab_size}", name)
        for name in ("logprobs", "prompt_logprobs"):
            if (getattr(params, name) or 0) > self.vocab_size:
                raise RequestError(f"{name} must be at most the vocabulary size {self.vocab_size}", name)
        ends = self.tokenizer.eos_token_ids.union(params.stop_token_ids)
        if params.allowed_token_ids and params.min_tokens and ends.issuperset(params.allowed_token_ids):
            raise RequestError(
                "min_tokens forbids every one of allowed_token_ids: each of them ends the text", "min_tokens"
            )

    def _grammar(self, params: SamplingParams, room: int) -> Any | None:
        """The compiled constraint, for a text of at most ``room`` tokens.

        What else would decide which token may come, or when the text ends, is refused: the grammar does.
        """
        if params.structured_outputs is None:
            return None
        if params.ignore_eos:
            raise RequestError("ignore_eos contradicts structured_outputs, which end with EOS", "ignore_eos")
        if params.allowed_token_ids is not None:
            raise RequestError(
                "allowed_token_ids contradicts structured_outputs, whose schema says which tokens may come",
                "allowed_token_ids",
            )
        grammar = self.grammars.get(params.structured_outputs)
        if self.grammars.closes(params.structured_outputs):
            self._check_room(grammar, room)
        return grammar

    def _check_room(self, grammar: Any, room: int) -> None:
        """Only a text whose shortest form fits can be promised to close."""
        needed = grammar.matcher().cost() + 1  # and the token that ends it
        if needed > room:
            told = f"needs {needed}" if needed < UNBOUNDED_COST else "has no bound on its length"
            raise RequestError(
                f"structured_outputs.always_closes: the shortest valid text {told} tokens, the end included and one "
                f"for each byte; max_tokens leaves {room}",
                "max_tokens",
            )

    def _bad_words_ids(self, params: SamplingParams) -> tuple[tuple[int, ...], ...]:
        """Each word at the start of a text and, where that is as many other tokens, after a space (as vLLM does)."""
        found = list(params.bad_words_ids)
        for word in params.bad_words:
            bare, spaced = (tuple(self.tokenizer.encode(space + word.lstrip())) for space in ("", " "))
            found.append(bare)
            if spaced[0] != bare[0] and len(spaced) == len(bare):
                found.append(spaced)
        return tuple(found)

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
        limit, reason = self._check_prompt_fits(prompt_tokens, room=1)
        if params.max_tokens is None:
            return limit
        if prompt_tokens + params.max_tokens > limit:
            raise RequestError(
                f"{prompt_tokens} prompt tokens and max_tokens={params.max_tokens} make "
                f"{prompt_tokens + params.max_tokens}; this server's {reason} is {limit} tokens",
                "max_tokens",
            )
        return prompt_tokens + params.max_tokens

    def _check_prompt_fits(self, prompt_tokens: int, room: int) -> tuple[int, str]:
        """The most tokens a sequence may have, and why; ``room`` of them must be left after the prompt."""
        budget = self.config.max_num_batched_tokens
        if not self.config.enable_chunked_prefill and prompt_tokens > budget:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens; without chunked prefill this engine reads at most "
                f"max_num_batched_tokens={budget} in one step",
                "prompt",
            )
        limit = min(self.max_model_len, self.kv_tokens)
        reason = "maximum context length" if limit == self.max_model_len else "whole KV cache"
        if prompt_tokens + room > limit:
            included = ", output included" if room else ""
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens; this server's {reason} is {limit} tokens{included}", "prompt"
            )
        return limit, reason

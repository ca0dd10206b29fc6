"""What a user asked for, and its samples: sequences of one prompt that come back together and fail together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm_serve.engine.detokenizer import Detokenizer
from minillm_serve.engine.snapshot import Snapshot
from minillm_serve.params import PoolingParams, SamplingParams
from minillm_serve.plan import TokenLogprobs
from minillm_serve.request import CompletionOutput, FinishReason, Request, RequestMetrics, RequestOutput


def derived_seed(seed: int, index: int) -> int:
    """The seed of sample ``index``: its own for the first, which is the plain request's answer, whatever ``n`` is."""
    if index == 0:
        return seed
    return int.from_bytes(blake2b(f"{seed}:{index}".encode(), digest_size=8).digest(), "little") >> 1


def sample_params(params: SamplingParams, first: bool) -> SamplingParams:
    """What one sample is asked for on its own: ``best_of`` needs log-probabilities, the prompt's are needed once."""
    logprobs = 0 if params.logprobs is None and _ranked(params) else params.logprobs
    prompt_logprobs = params.prompt_logprobs if first else None
    if (1, None, logprobs, prompt_logprobs) == (params.n, params.best_of, params.logprobs, params.prompt_logprobs):
        return params
    return replace(params, n=1, best_of=None, logprobs=logprobs, prompt_logprobs=prompt_logprobs)


def _ranked(params: SamplingParams) -> bool:
    return params.num_sequences > params.n


class Sample:
    """One sequence and what the engine keeps beside the scheduler's request: its text and its log-probabilities."""

    def __init__(self, index: int, request: Request, detokenizer: Detokenizer):
        self.index = index
        self.request = request
        self.detokenizer = detokenizer
        self.logprobs: list[TokenLogprobs] = []
        self.cumulative_logprob = 0.0
        self._end: int | None = None  # of its token ids: where a stop string ended it before the last of them
        self._last_word: CompletionOutput | None = None
        self.booked_tokens = 0  # by token_clock.py, and when
        self.booked_at: float | None = None

    @property
    def num_tokens(self) -> int:
        """Its tokens that count: those of its output."""
        return self.request.num_generated if self._end is None else self._end - self.request.num_prompt_tokens

    def book_logprobs(self, entries: Iterable[TokenLogprobs]) -> None:
        """Those of new tokens. Tokens that came after the end of the request are not counted."""
        self._add_logprobs(list(entries)[: self.request.num_generated - len(self.logprobs)])

    def _add_logprobs(self, entries: Iterable[TokenLogprobs]) -> None:
        for entry in entries:
            self.logprobs.append(entry)
            self.cumulative_logprob += entry.logprob

    def advance(self) -> str | None:
        """Turn new tokens into text. Returns the stop string that ended it, if one did."""
        request, text = self.request, self.detokenizer
        new = request.token_ids[request.num_prompt_tokens + len(text) :]
        one_by_one = len(new) > 1 and request.params.stop
        # The token that said stop is no text (vLLM: unless stop strings are to be seen as well).
        if request.finish_reason is FinishReason.STOP and not request.params.include_stop_str_in_output:
            new = new[:-1]
        stop = self._push_each(new) if one_by_one else text.push(new)
        return text.finish() if stop is None and request.finished else stop

    def _push_each(self, tokens: Sequence[int]) -> str | None:
        """Of several tokens at once (a jump ahead, drafts), those after a stop string do not count."""
        for token in tokens:
            if (stop := self.detokenizer.push([token])) is not None:
                self._end = self.request.num_prompt_tokens + len(self.detokenizer)
                told, self.logprobs, self.cumulative_logprob = self.logprobs[: len(self.detokenizer)], [], 0.0
                self._add_logprobs(told)
                return stop
        return None

    def completion(self, index: int, params: SamplingParams) -> CompletionOutput:
        """Its output, under the number that the user sees and with what ``params`` asked for."""
        if self._last_word is not None:
            return self._last_word
        request = self.request
        asked = params.logprobs is not None
        tokens = Snapshot(request.token_ids, request.num_prompt_tokens, self._end)
        logprobs = Snapshot(self.logprobs) if asked else None
        completion = CompletionOutput(
            index,
            self.detokenizer.text,
            tokens,
            request.finish_reason,
            request.stop_reason,
            logprobs,
            self.cumulative_logprob if asked else None,
        )
        if request.finished:
            completion.token_ids = tuple(tokens)
            completion.logprobs = tuple(logprobs) if asked else None
            self._last_word = completion
        return completion

    @property
    def merit(self) -> float:
        """By what ``best_of`` ranks: cumulative log-probability, as in vLLM. A sample without tokens comes last."""
        return self.cumulative_logprob if self.logprobs else -inf


class RequestGroup:
    """One request of a user: ``n`` samples, or the ``n`` best of ``best_of``.

    rid: the engine's number for it, which is its first sample's. final_only: nobody looks at it before its end.
    grammar: its compiled constraint, held here so that it lives as long as the request. pooling: what is made of its
    prompt, where nothing is generated.
    """

    def __init__(
        self,
        params: SamplingParams,
        samples: Sequence[Sample],
        grammar: Any = None,
        pooling: PoolingParams | None = None,
    ):
        self.params = params
        self.grammar = grammar
        self.pooling = pooling
        self.samples = tuple(samples)
        self.request_id = ""
        self.prompt: str | None = None
        self._ranked = _ranked(params)
        self.final_only = self._ranked or pooling is not None
        first = self.samples[0].request
        self.rid = first.rid
        self.prompt_token_ids = tuple(first.token_ids[: first.num_prompt_tokens])
        self._prompt_logprobs: list[TokenLogprobs | None] = [None] * len(self.prompt_token_ids)
        self._hidden_sum: NDArray[np.float64] | float = 0.0

    @property
    def notes(self) -> Sequence[tuple[str, str, str]]:
        """What its constraint does not enforce: (keyword, path, why)."""
        return () if self.grammar is None else self.grammar.notes

    @property
    def rids(self) -> list[int]:
        """The scheduler's numbers of its samples."""
        return [sample.request.rid for sample in self.samples]

    @property
    def finished(self) -> bool:
        for sample in self.samples:  # noqa: SIM110 - once a step for each request: a generator would cost as much again
            if sample.request.finish_reason is None:
                return False
        return True

    @property
    def text_may_wait(self) -> bool:
        """Nobody needs the text of a token as soon as it is there: neither a reader nor the search for stop strings."""
        return self.final_only and not self.params.stop

    def label(self, index: int) -> str:
        """What a sample is called in a trace."""
        return self.request_id if len(self.samples) == 1 else f"{self.request_id}[{index}]"

    def book_prompt_logprobs(self, start: int, entries: Sequence[TokenLogprobs]) -> None:
        """Those of the prompt tokens from ``start`` on: one chunk of the prompt, after a preemption once again."""
        self._prompt_logprobs[start : start + len(entries)] = entries

    def book_pooled(self, start: int, hidden_sum: Sequence[float]) -> None:
        """The sum over the chunk that begins at prompt token ``start``; after a preemption it starts over at 0."""
        self._hidden_sum = np.array(hidden_sum) + (self._hidden_sum if start else 0.0)

    def output(self) -> RequestOutput | None:
        """What to tell the user now; None while a request is watched only at its end."""
        finished = self.finished
        if self.final_only and not finished:
            return None
        return RequestOutput(
            self.rid,
            self.request_id,
            self.prompt,
            self.prompt_token_ids,
            tuple([sample.completion(index, self.params) for index, sample in enumerate(self._chosen())]),
            finished,
            self.metrics(),
            self._described_prompt() if self.params.prompt_logprobs is not None else None,
            self._embedding() if self.pooling is not None and self.pooling.task == "embed" else None,
        )

    def _embedding(self) -> tuple[float, ...] | None:
        """None for a request that was ended before its prompt was computed."""
        if self.samples[0].request.finish_reason is not FinishReason.STOP:
            return None
        mean = self._hidden_sum / len(self.prompt_token_ids)
        if self.pooling.use_activation is not False:
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return tuple(mean.tolist())

    def _described_prompt(self) -> Sequence[TokenLogprobs | None]:
        return tuple(self._prompt_logprobs) if self.finished else Snapshot(self._prompt_logprobs)

    def _chosen(self) -> Sequence[Sample]:
        if not self._ranked:
            return self.samples
        ranked = sorted(self.samples, key=lambda sample: sample.merit, reverse=True)  # stable: ties stay in order
        return ranked[: self.params.n]

    def metrics(self) -> RequestMetrics:
        """The first sample's, from the group's first token to its last."""
        if len(self.samples) == 1:
            return self.samples[0].request.metrics
        metrics = [sample.request.metrics for sample in self.samples]
        ends = [m.finished for m in metrics]
        return replace(
            metrics[0],
            first_token=min((m.first_token for m in metrics if m.first_token is not None), default=None),
            finished=None if None in ends else max(ends),
            num_preemptions=sum(m.num_preemptions for m in metrics),
        )

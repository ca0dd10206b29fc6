"""What the engine remembers about a request, and what goes back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from minillm_serve.params import SamplingParams
from minillm_serve.plan import TokenLogprobs


class FinishReason(StrEnum):
    """Why a request ended, in OpenAI's words (``abort`` and ``error`` are vLLM's)."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass
class RequestMetrics:
    """When things happened to a request; every moment is ``time.monotonic()`` seconds, None until it happens.

    waiting_steps, waiting_s: engine steps and seconds spent in the queue, also after preemptions. num_cached_tokens:
    prompt tokens that a prefix hit spared when the request was first admitted.
    """

    arrival: float = field(default_factory=time.monotonic)
    first_scheduled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    num_preemptions: int = 0
    waiting_steps: int = 0
    waiting_s: float = 0.0
    num_cached_tokens: int = 0


@dataclass(eq=False)
class Request:
    """One sequence on its way through the engine. Only the scheduler changes it (design rule 3).

    ``token_ids`` is prompt plus generated tokens; each step moves ``num_computed`` (tokens whose keys and values
    are in the cache) toward ``num_tokens``. That one inequality is prefill, decode and resume after preemption.
    Of the plans in flight, num_planned counts the tokens they compute, num_pending those they draw: a step may be
    planned before the token that it begins with is known.

    priority: lower is more urgent (policy ``priority`` alone looks at it). cache_salt: requests share cached prefixes
    only with requests of the same salt (adapter, user); None: neither look anything up nor let others find it.
    skip_prefix_hit: compute every token even where a prefix is cached (prompt logprobs need it). group: number shared
    by the samples of one prompt, which share its blocks even where prefix caching is off. prompt_only: it ends when its
    prompt is computed; no token is drawn. num_accepted: how many of the drafts that its last step verified
    stand.
    """

    rid: int
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    max_total_tokens: int
    eos_token_ids: frozenset[int]
    seed: int
    priority: int = 0
    cache_salt: tuple[str, ...] | None = ()
    skip_prefix_hit: bool = False
    group: int | None = None
    prompt_only: bool = False
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    num_computed: int = 0
    num_planned: int = 0
    num_pending: int = 0
    num_accepted: int = 0
    arrival_step: int = 0  # steps the scheduler had made when the request came
    rank: tuple[Any, ...] = ()  # its place in every queue, by the scheduling policy; set once, on arrival
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class CompletionOutput:
    """One sample: the text generated so far (cumulative, never ending inside a UTF-8 character) and its token ids.

    token_ids: every sampled token, also one that ended the text without standing in it (EOS, a stop token).
    logprobs: one entry per token, None unless asked for; cumulative_logprob: the sum over the sampled tokens, in nats.
    stop_reason: the stop string or stop token id that ended it, None for EOS and everything else.
    A snapshot: nobody changes it once it is made.
    """

    index: int
    text: str
    token_ids: Sequence[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: Sequence[TokenLogprobs] | None = None
    cumulative_logprob: float | None = None


@dataclass(slots=True)
class RequestOutput:
    """A snapshot of one request after a step; the last one has ``finished`` True (all samples have ended).

    rid: the engine's own number of the request; request_id: the caller's name for it. outputs: the ``n`` samples, by
    index. prompt_logprobs: one entry per prompt token (the first, which nothing predicts, is None), if asked for.
    embedding: the prompt's vector, at the end of a request with PoolingParams; its one completion is empty.
    """

    rid: int
    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    finished: bool
    metrics: RequestMetrics
    prompt_logprobs: Sequence[TokenLogprobs | None] | None = None
    embedding: tuple[float, ...] | None = None

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache spared."""
        return self.metrics.num_cached_tokens


@dataclass(frozen=True)
class EmbeddingOutput:
    """One vector, and its length as vLLM calls it."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)


@dataclass(frozen=True)
class ScoringOutput:
    """How well a document answers a query, in (0, 1]."""

    score: float


@dataclass(frozen=True)
class ScoringRequestOutput:
    """What ``LLM.score`` returns for one pair (vLLM's names)."""

    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int
    finished: bool = True


@dataclass(frozen=True)
class EmbeddingRequestOutput:
    """What ``LLM.embed`` returns for one prompt (vLLM's names)."""

    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    num_cached_tokens: int
    finished: bool = True

"""What the engine remembers about a request, and what goes back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from minillm_serve.params import SamplingParams


class FinishReason(StrEnum):
    """Why a request ended, in OpenAI's words (``abort`` and ``error`` are vLLM's)."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass
class RequestMetrics:
    """When things happened to a request; every time is ``time.monotonic()`` seconds, None until it happens."""

    arrival: float = field(default_factory=time.monotonic)
    first_scheduled: float | None = None
    first_token: float | None = None
    finished: float | None = None
    num_preemptions: int = 0


@dataclass(eq=False)
class Request:
    """One sequence on its way through the engine. Only the scheduler changes it (design rule 3).

    ``token_ids`` is prompt plus generated tokens; each step moves ``num_computed`` (tokens whose keys and values
    are in the cache) toward ``num_tokens``. That one inequality is prefill, decode and resume after preemption.
    """

    rid: int
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    max_total_tokens: int
    eos_token_ids: frozenset[int]
    seed: int
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    num_computed: int = 0
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


@dataclass(frozen=True)
class CompletionOutput:
    """The text generated so far (cumulative, never ending inside a UTF-8 character) and its token ids."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(frozen=True)
class RequestOutput:
    """A snapshot of one request after a step; the last one has ``finished`` True.

    rid: the engine's own number of the request; request_id: the caller's name for it.
    """

    rid: int
    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    finished: bool
    metrics: RequestMetrics

"""The two messages of the step loop: scheduler -> runner (StepPlan) and runner -> scheduler (StepResult).

Both are frozen and hold plain ints, so a plan is at once a unit-test fixture, a wire format and a trace entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minillm_serve.params import SamplingParams


@dataclass(frozen=True)
class RequestInit:
    """Everything the runner must know about a request that it does not hold (new, or resumed after preemption).

    ``token_ids`` holds prompt and already generated tokens; generation starts at ``num_prompt_tokens``. The keys and
    values of the first ``num_computed`` are in the cache already (a prefix hit): their blocks lead ``new_blocks``.
    max_total_tokens: where the sequence ends at the latest (None: at the model's limit); guided decoding steers by it.
    prompt_only: no token is drawn; unless prompt log-probabilities are wanted, its hidden states are summed.
    """

    rid: int
    token_ids: tuple[int, ...]
    num_prompt_tokens: int
    params: SamplingParams
    seed: int
    num_computed: int = 0
    max_total_tokens: int | None = None
    prompt_only: bool = False

    @property
    def pooled(self) -> bool:
        """Its hidden states are what is wanted of it."""
        return self.prompt_only and self.params.prompt_logprobs is None


@dataclass(frozen=True)
class StepPlan:
    """One step of work. Dicts keep scheduling order: running requests first, then newly admitted ones.

    num_tokens: request id -> tokens to compute now: a prompt chunk, 1 for a decode, more after a jump ahead.
    new_blocks: request id -> physical blocks appended to its block table (tables only ever grow).
    finished, preempted: requests whose runner state is dropped before this step runs.
    drafts: request id -> proposed tokens, computed after its known ones and verified by the same step; ``num_tokens``
    counts them. The i-th may be -1 - i: only the device knows it.
    """

    step: int
    num_tokens: dict[int, int]
    new_requests: tuple[RequestInit, ...] = ()
    new_blocks: dict[int, tuple[int, ...]] | None = None
    finished: tuple[int, ...] = ()
    preempted: tuple[int, ...] = ()
    drafts: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def total_tokens(self) -> int:
        return sum(self.num_tokens.values())


@dataclass(frozen=True)
class TokenLogprobs:
    """One position, as the model saw it before penalties, temperature and masks (vLLM's ``raw_logprobs``).

    token, logprob, rank: the token that stands there (rank 1 is the likeliest). top: (token, logprob) of the
    likeliest ones, best first, as many as were asked for.
    """

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class StepResult:
    """New tokens of one step: request id -> new ids (absent while the request is still in prefill).

    forced: request id -> how many of them, the last ones, its constraint appended without a draw (jump-ahead).
    failed: requests that could not be continued (a grammar with no way on); they alone end, with an error.
    logprobs: request id -> one entry per new token, for requests that asked. prompt_logprobs: request id -> (index of
    the first prompt token described, one entry per prompt token) for the prompt tokens that this step's chunk predicts.
    pooled: request id -> (index of the chunk's first prompt token, sum of the chunk's normalised hidden states).
    accepted: request id -> how many of the plan's drafts stand, for requests that had any: they lead its new tokens.
    drafts: request id -> what may follow those; the next plan may ask to verify it. verified: request id -> the plan's
    drafts where only the device knew them.
    """

    tokens: dict[int, tuple[int, ...]]
    failed: tuple[int, ...] = ()
    logprobs: dict[int, tuple[TokenLogprobs, ...]] = field(default_factory=dict)
    prompt_logprobs: dict[int, tuple[int, tuple[TokenLogprobs, ...]]] = field(default_factory=dict)
    forced: dict[int, int] = field(default_factory=dict)
    pooled: dict[int, tuple[int, tuple[float, ...]]] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)
    drafts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    verified: dict[int, tuple[int, ...]] = field(default_factory=dict)

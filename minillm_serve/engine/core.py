"""The step loop. A request's whole life is here; every other room of the house is named on the way.

    admission.admit     checks prompt, lengths and schema, or refuses         engine/admission.py
    scheduler.add       queues its samples                                    sched/scheduler.py
    scheduler.schedule  picks this step's tokens, finds them KV blocks        kv/manager.py, kv/block_pool.py
    runner.submit       runs the model over them, samples the next tokens     runner/, model/, attention/, sample/
    runner.collect      waits for those tokens                                runner/
    scheduler.update    books the tokens, ends requests that are done         sched/scheduler.py
    _advance            turns tokens into text, watches for stop strings      engine/group.py, engine/detokenizer.py

Between scheduler and runner travel only a StepPlan and a StepResult (plan.py): plain ints, easy to log and replay.

One step ahead: with ``ahead``, the next step is planned and submitted before this one's tokens are collected, so that
the device goes from one to the next while the host books and plans. A request that ends meanwhile has had one token too
many computed, which nobody sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from minillm_serve.engine.admission import Admission
from minillm_serve.engine.group import RequestGroup, Sample
from minillm_serve.engine.token_clock import book_new_tokens
from minillm_serve.engine.trace import Trace
from minillm_serve.params import PoolingParams, SamplingParams
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import FinishReason, Request, RequestOutput
from minillm_serve.runner.runner import Runner, Ticket
from minillm_serve.sched.scheduler import Scheduler


@dataclass(frozen=True)
class StepStats:
    """What one step did: tokens computed, seconds taken, and the queues after it.

    new_tokens: generated ones; forced_tokens: how many of them a constraint appended without a draw. intervals:
    seconds since a sequence's previous tokens -> sequences (see token_clock.py). drafts: (verified, accepted) draft
    tokens of each sequence that had any.
    """

    num_tokens: int
    duration_s: float
    running: int
    waiting: int
    new_tokens: int = 0
    forced_tokens: int = 0
    intervals: Mapping[float, int] = field(default_factory=dict)
    drafts: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class EngineStats:
    """The engine now: sequences by state, KV blocks; and, since the start, preemptions and prefix cache tokens.

    kv_blocks_used: held by sequences; kv_blocks_cached: whose content a prefix hit can find, held or idle.
    prefix_cache_queries, prefix_cache_hits: tokens looked up, tokens found.
    """

    running: int
    waiting: int
    kv_blocks_used: int
    kv_blocks_total: int
    num_preemptions: int
    kv_blocks_cached: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0


class EngineCore:
    """Single-threaded: whoever owns it (LLM, AsyncEngine) makes all calls from one thread at a time."""

    def __init__(
        self,
        admission: Admission,
        scheduler: Scheduler,
        runner: Runner,
        trace: Trace | None = None,
        ahead: bool = False,
    ):
        self.admission = admission
        self.scheduler = scheduler
        self.runner = runner
        self.trace = trace
        self.ahead = ahead
        self._in_flight: tuple[StepPlan, Ticket] | None = None
        self.on_step: Callable[[StepStats], None] | None = None
        self._active: dict[int, RequestGroup] = {}
        self._samples: dict[int, tuple[RequestGroup, Sample]] = {}  # unfinished ones, by the scheduler's number

    def prepare(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | PoolingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> RequestGroup:
        """Check a request without queueing it (thread-safe). Raises :class:`RequestError`.

        priority: lower is sooner (scheduling_policy ``priority``). cache_salt: prefixes are shared only among requests
        of the same salt.
        """
        return self.admission.admit(prompt, params, priority=priority, cache_salt=cache_salt)

    def add(self, request_id: str, group: RequestGroup, prompt: str | None = None, *, final_only: bool = False) -> None:
        """Queue a prepared request. request_id is the caller's label; the engine goes by ``group.rid``.

        final_only: no outputs before the last one, which spares their making.
        """
        group.request_id, group.prompt = request_id, prompt
        group.final_only |= final_only
        self._active[group.rid] = group
        for sample in group.samples:
            request = sample.request
            self._samples[request.rid] = group, sample
            if self.trace is not None:
                self.trace.labels[request.rid] = group.label(sample.index)
            self.scheduler.add(request)

    def has_work(self) -> bool:
        return self.scheduler.has_work() or self._in_flight is not None

    def step(self) -> list[RequestOutput]:
        """Compute one step; returns a snapshot of each request that got a token or ended."""
        start = time.monotonic()
        (plan, ticket), self._in_flight = self._in_flight or self._submit(), None  # lost, if what follows fails
        following = self._submit(ahead=True) if self._may_run_ahead(plan) else None
        result = self.runner.collect(ticket)
        changed = self.scheduler.update(plan, result)
        self._in_flight = following
        self._book_answers(result)
        grown = self._samples_of(changed) if self.on_step is not None else []
        outputs = self._outputs(changed)
        if self.on_step is not None and plan.num_tokens:  # ahead, a plan may find that all is said already
            self.on_step(self._step_stats(plan, result, grown, start))
        return outputs

    def _submit(self, ahead: bool = False) -> tuple[StepPlan, Ticket]:
        plan = self.scheduler.schedule(ahead)
        return plan, self.runner.submit(plan)

    def _may_run_ahead(self, plan: StepPlan) -> bool:
        """Whether the step after ``plan`` can be planned without its tokens: nobody in it has a constraint that they
        move on, or ends with its prompt, or has drafts of which some may fall."""
        worth_it = self.ahead and bool(plan.num_tokens) and not plan.drafts and self.scheduler.has_work()
        return worth_it and self.runner.runs_free(plan.num_tokens)

    def _samples_of(self, changed: Iterable[Request]) -> list[Sample]:
        return [self._samples[request.rid][1] for request in changed if request.rid in self._samples]

    def _step_stats(self, plan: StepPlan, result: StepResult, grown: Iterable[Sample], start: float) -> StepStats:
        """``grown``: the samples that got tokens; those that ended are no longer known to the engine."""
        now, scheduler = time.monotonic(), self.scheduler
        new, intervals = book_new_tokens(grown, now)
        return StepStats(
            plan.total_tokens,
            now - start,
            len(scheduler.running),
            len(scheduler.waiting),
            new,
            sum(result.forced.values()),
            intervals,
            [(len(drafts), result.accepted.get(rid, 0)) for rid, drafts in plan.drafts.items()],
        )

    def abort(self, rids: Iterable[int]) -> list[RequestOutput]:
        """End requests now, all samples of each, and free their blocks. Already finished ones are passed over."""
        samples = [rid for group in map(self._active.get, rids) if group is not None for rid in group.rids]
        return self._outputs(self.scheduler.finish(samples, FinishReason.ABORT))

    def stats(self) -> EngineStats:
        scheduler, kv = self.scheduler, self.scheduler.kv
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_blocks_used=kv.num_blocks - kv.num_free_blocks,
            kv_blocks_total=kv.num_blocks,
            num_preemptions=scheduler.num_preemptions,
            kv_blocks_cached=kv.num_cached_blocks,
            prefix_cache_queries=kv.stats.queries,
            prefix_cache_hits=kv.stats.hits,
        )

    def _book_answers(self, result: StepResult) -> None:
        """What a step told about tokens and prompts, to whom it belongs."""
        for rid, entries in result.logprobs.items():
            if rid in self._samples:
                self._samples[rid][1].book_logprobs(entries)
        for rid, (start, prompt_entries) in result.prompt_logprobs.items():
            if rid in self._samples:
                self._samples[rid][0].book_prompt_logprobs(start, prompt_entries)
        for rid, (start, hidden_sum) in result.pooled.items():
            if rid in self._samples:
                self._samples[rid][0].book_pooled(start, hidden_sum)

    def _outputs(self, changed: Iterable[Request]) -> list[RequestOutput]:
        """Bring requests with new tokens, or a new end, up to date and show their groups as they are then."""
        groups: dict[int, RequestGroup] = {}
        for request in changed:
            if request.rid in self._samples:  # else it ended with its group, further up in this loop
                group, sample = self._samples[request.rid]
                groups[group.rid] = group
                if request.finished or not group.text_may_wait:
                    self._advance(group, sample)
        return [output for group in groups.values() if (output := group.output()) is not None]

    def _advance(self, group: RequestGroup, sample: Sample) -> None:
        request, stop = sample.request, sample.advance()
        if stop is not None and request.finished:
            # Its last token completed the stop string: the text decides why it ended.
            request.finish_reason, request.stop_reason = FinishReason.STOP, stop
        elif stop is not None:
            self.scheduler.finish([request.rid], FinishReason.STOP, stop)
        if request.finished:
            del self._samples[request.rid]
            if group.finished:
                self._active.pop(group.rid, None)  # several samples may end in one step
            elif request.finish_reason is FinishReason.ERROR:
                self._fail(group)

    def _fail(self, group: RequestGroup) -> None:
        """One sample cannot go on: the others of its request end too."""
        for request in self.scheduler.finish(group.rids, FinishReason.ERROR):
            self._advance(*self._samples[request.rid])

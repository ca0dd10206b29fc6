"""The step loop. A request's whole life is here; every other room of the house is named on the way.

    admission.request   checks prompt, lengths and schema, or refuses         engine/admission.py
    scheduler.add       queues it                                             sched/scheduler.py
    scheduler.schedule  picks this step's tokens, finds them KV blocks        kv/manager.py, kv/block_pool.py
    runner.execute      runs the model over them, samples the next tokens     runner/, model/, attention/, sample/
    scheduler.update    books the tokens, ends requests that are done         sched/scheduler.py
    _output             turns tokens into text, watches for stop strings      engine/detokenizer.py

Between scheduler and runner travel only a StepPlan and a StepResult (plan.py): plain ints, easy to log and replay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from minillm_serve.engine.admission import Admission
from minillm_serve.engine.detokenizer import Detokenizer
from minillm_serve.engine.trace import Trace
from minillm_serve.params import SamplingParams
from minillm_serve.request import CompletionOutput, FinishReason, Request, RequestOutput
from minillm_serve.runner.runner import Runner
from minillm_serve.sched.scheduler import Scheduler


@dataclass(frozen=True)
class StepStats:
    """What one step did: tokens computed, seconds taken, and the queues after it."""

    num_tokens: int
    duration_s: float
    running: int
    waiting: int


@dataclass(frozen=True)
class EngineStats:
    """The engine now: requests by state, KV blocks, preemptions since the start."""

    running: int
    waiting: int
    kv_blocks_used: int
    kv_blocks_total: int
    num_preemptions: int


@dataclass(eq=False)
class _Active:
    """What the engine keeps beside the scheduler's request: its outside name and its text."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    request: Request
    detokenizer: Detokenizer


class EngineCore:
    """Single-threaded: whoever owns it (LLM, AsyncEngine) makes all calls from one thread at a time."""

    def __init__(self, admission: Admission, scheduler: Scheduler, runner: Runner, trace: Trace | None = None):
        self.admission = admission
        self.scheduler = scheduler
        self.runner = runner
        self.trace = trace
        self.on_step: Callable[[StepStats], None] | None = None
        self._active: dict[int, _Active] = {}

    def prepare(self, prompt: str | Sequence[int], params: SamplingParams) -> Request:
        """Check a request without queueing it (thread-safe). Raises :class:`RequestError`."""
        return self.admission.request(prompt, params)

    def add(self, request_id: str, request: Request, prompt: str | None = None) -> None:
        """Queue a prepared request. request_id is the caller's label; the engine goes by ``request.rid``."""
        tokenizer = self.admission.tokenizer
        detokenizer = Detokenizer(tokenizer.decode, request.params.stop)
        prompt_ids = tuple(request.token_ids[: request.num_prompt_tokens])
        self._active[request.rid] = _Active(request_id, prompt, prompt_ids, request, detokenizer)
        self.scheduler.add(request)

    def has_work(self) -> bool:
        return self.scheduler.has_work()

    def step(self) -> list[RequestOutput]:
        """Compute one step; returns a snapshot of each request that got a token or ended."""
        start = time.monotonic()
        plan = self.scheduler.schedule()
        result = self.runner.execute(plan)
        outputs = [self._output(request) for request in self.scheduler.update(plan, result)]
        duration, stats = time.monotonic() - start, self.stats()
        if self.trace is not None:
            free = stats.kv_blocks_total - stats.kv_blocks_used
            self.trace.step(plan, start, duration, stats.running, stats.waiting, free)
        if self.on_step is not None:
            self.on_step(StepStats(plan.total_tokens, duration, stats.running, stats.waiting))
        return outputs

    def abort(self, rids: Iterable[int]) -> list[RequestOutput]:
        """End requests now and free their blocks. Already finished ones are passed over."""
        return [self._output(request) for request in self.scheduler.finish(rids, FinishReason.ABORT)]

    def stats(self) -> EngineStats:
        scheduler, kv = self.scheduler, self.scheduler.kv
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_blocks_used=kv.num_blocks - kv.num_free_blocks,
            kv_blocks_total=kv.num_blocks,
            num_preemptions=scheduler.num_preemptions,
        )

    def _output(self, request: Request) -> RequestOutput:
        active = self._active[request.rid]
        detokenizer, done = active.detokenizer, len(active.detokenizer)
        stop = detokenizer.push(request.token_ids[request.num_prompt_tokens + done :])
        if stop is None and request.finished:
            stop = detokenizer.finish()
        if stop is not None:
            self._end_by_stop_string(request, stop)
        if request.finished:
            self._forget(active)
        completion = CompletionOutput(
            index=0,
            text=detokenizer.text,
            token_ids=tuple(request.token_ids[request.num_prompt_tokens :]),
            finish_reason=request.finish_reason,
            stop_reason=request.stop_reason,
        )
        return RequestOutput(
            rid=request.rid,
            request_id=active.request_id,
            prompt=active.prompt,
            prompt_token_ids=active.prompt_token_ids,
            outputs=(completion,),
            finished=request.finished,
            metrics=request.metrics,
        )

    def _end_by_stop_string(self, request: Request, stop: str) -> None:
        if request.finished:  # its last token completed the stop string: the text decides why it ended
            request.finish_reason, request.stop_reason = FinishReason.STOP, stop
        else:
            self.scheduler.finish([request.rid], FinishReason.STOP, stop)

    def _forget(self, active: _Active) -> None:
        del self._active[active.request.rid]
        if self.trace is not None:
            self.trace.request(active.request_id, active.request)

"""One token budget, no phases: each step moves every request's ``num_computed`` toward its ``num_tokens``.

A prompt chunk, a decode, a prefix hit and the resume of a preempted request are the same line of arithmetic, so they
share a batch freely (Agrawal et al. 2024, arXiv:2403.02310; vLLM's V1 scheduler).
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from minillm_serve.kv.manager import KVManager
from minillm_serve.plan import RequestInit, StepPlan, StepResult
from minillm_serve.request import FinishReason, Request
from minillm_serve.sched import queues
from minillm_serve.sched.policy import FCFS, Policy

BATCHING = ("continuous", "static")


@dataclass
class _Sketch:
    """A plan while it is being made. budget: tokens still free in the step."""

    budget: int
    num_tokens: dict[int, int] = field(default_factory=dict)
    new_requests: list[RequestInit] = field(default_factory=list)
    new_blocks: dict[int, tuple[int, ...]] = field(default_factory=dict)
    preempted: list[int] = field(default_factory=list)
    drafts: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def add_blocks(self, rid: int, blocks: tuple[int, ...]) -> None:
        if blocks:
            self.new_blocks[rid] = self.new_blocks.get(rid, ()) + blocks

    def plan(self, step: int, dropped: Iterable[int]) -> StepPlan:
        return StepPlan(
            step,
            self.num_tokens,
            tuple(self.new_requests),
            self.new_blocks,
            tuple(dropped),
            tuple(self.preempted),
            self.drafts,
        )


class Scheduler:
    """Owns the requests and the KV manager; nobody else changes a request. Every step: schedule, then update.

    max_num_seqs: requests in one step. max_num_batched_tokens: tokens computed in one step. policy: order of the
    queues. enable_chunked_prefill: read a prompt over several steps; else it waits until the whole of it fits in one.
    batching: ``continuous``, or ``static``: a batch forms when the last one has ended whole, and nobody joins it later.
    lookahead: KV slots beyond its known tokens that a request gets where there is room: a draft model writes there what
    it proposes.
    """

    def __init__(
        self,
        kv: KVManager,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        policy: Policy | None = None,
        *,
        enable_chunked_prefill: bool = True,
        batching: str = "continuous",
        lookahead: int = 0,
    ):
        if max_num_seqs < 1 or max_num_batched_tokens < 1:
            raise ValueError(
                f"a step needs room for a request and a token: max_num_seqs {max_num_seqs}, "
                f"max_num_batched_tokens {max_num_batched_tokens}"
            )
        if batching not in BATCHING:
            raise ValueError(f"batching must be one of {', '.join(BATCHING)}, got {batching!r}")
        self.kv = kv
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.policy = policy or FCFS()
        self.enable_chunked_prefill = enable_chunked_prefill
        self.batching = batching
        self.lookahead = lookahead
        self.waiting: list[Request] = []  # both queues: by rank, lowest first
        self.running: list[Request] = []
        self.num_preemptions = 0
        self._requests: dict[int, Request] = {}
        self._queued: dict[int, tuple[int, float]] = {}  # waiting since: last step before, seconds
        self._dropped: list[int] = []  # the runner may still hold their state: the next plan names them
        self._in_flight: deque[StepPlan] = deque()
        self._proposed: dict[int, tuple[int, ...]] = {}  # by the last step: what the next one may verify
        self._static_seats = 0
        self._step = 0
        self._arrivals = itertools.count()

    def add(self, request: Request) -> None:
        """Queue a request. Raises ValueError on one that could never run (the engine checks at admission)."""
        if not self.kv.fits(request.max_total_tokens):
            raise ValueError(f"request {request.rid} can never fit in {self.kv.num_blocks} blocks")
        if not self.enable_chunked_prefill and request.num_prompt_tokens > self.max_num_batched_tokens:
            raise ValueError(
                f"request {request.rid} has {request.num_prompt_tokens} prompt tokens and can never fit in a step of "
                f"{self.max_num_batched_tokens}: enable chunked prefill or raise max_num_batched_tokens"
            )
        request.arrival_step = self._step
        request.rank = (self.policy.rank(request), next(self._arrivals))
        self._requests[request.rid] = request
        self._queued[request.rid] = (self._step, request.metrics.arrival)
        queues.put(self.waiting, request)

    def reset_prefix_cache(self) -> None:
        """Let no later request find a prefix that was computed before this moment."""
        self.kv.reset_prefix_cache()

    def has_work(self) -> bool:
        return bool(self._requests)

    def schedule(self, ahead: bool = False) -> StepPlan:
        """Decide the next step: decodes and prompt chunks already running, then new requests while budget lasts.

        ahead: the plan before this one is still in flight, and this one goes on from where that one will end. Without
        it, a plan that has not come back never will: the runner failed.
        """
        if self._in_flight and not ahead:
            self._recover()
        assert len(self._in_flight) <= 1, "only one plan may be in flight when the next is made"
        self._step += 1
        self.kv.begin_step()
        sketch = _Sketch(budget=self.max_num_batched_tokens)
        self._continue_running(sketch)
        self._add_drafts(sketch)
        if not sketch.preempted:
            self._admit_waiting(sketch)
        if self.lookahead:
            self._look_ahead(sketch)
        plan = sketch.plan(self._step, self._dropped)
        self._in_flight.append(plan)
        self._dropped = []
        return plan

    def _continue_running(self, sketch: _Sketch) -> None:
        """Every running request as far as its known tokens and the budget go; preempt where its blocks cannot grow."""
        kv, budget = self.kv, sketch.budget
        for request in self.running:  # shrinks at its tail while we walk: victims come from there, not yet planned
            if budget == 0:
                break
            rid, known = request.rid, len(request.token_ids)
            end, done = known + request.num_pending, request.num_computed + request.num_planned
            if (count := end - done) > budget:
                count, end = budget, done + budget
            if count == 0 or (request.num_pending and end >= request.max_total_tokens):  # what is in flight ends it
                continue
            while (blocks := kv.grow(rid, end)) is None:
                sketch.preempted.append(self._preempt_last())
                if sketch.preempted[-1] == rid:
                    break
            else:
                sketch.num_tokens[rid] = count
                budget -= count
                if blocks:
                    sketch.new_blocks[rid] = blocks
                self._book_planned(request, count)
                # The edge of a block is passed: it is full, let others find it. Unknown tokens have no key.
                if (known := min(known, end)) % kv.block_size <= count + request.num_accepted:
                    kv.publish(rid, request.token_ids, known)
        sketch.budget = budget

    def _add_drafts(self, sketch: _Sketch) -> None:
        """Verify what was proposed, as far as tokens and blocks are to spare: nobody waits, or is preempted, for it."""
        proposed, self._proposed = self._proposed, {}
        for rid, drafts in proposed.items():
            request = self._requests.get(rid)
            if request is None or rid not in sketch.num_tokens:
                continue
            end = len(request.token_ids)  # all of it is planned, or no budget is left
            # The last token of a request is drawn and never computed.
            count = min(len(drafts), sketch.budget, request.max_total_tokens - 1 - end)
            while count > 0 and (blocks := self.kv.grow(rid, end + count)) is None:
                count -= 1
            if count > 0:
                sketch.add_blocks(rid, blocks)
                sketch.drafts[rid] = drafts[:count]
                sketch.num_tokens[rid] += count
                sketch.budget -= count
                request.num_planned += count

    def _look_ahead(self, sketch: _Sketch) -> None:
        """Blocks for what will be drafted after this step, where there are any left."""
        for request in self.running:
            rid = request.rid
            end = request.num_computed + request.num_planned
            if rid in sketch.num_tokens and end >= len(request.token_ids):
                blocks = self.kv.grow(rid, min(end + self.lookahead, request.max_total_tokens))
                sketch.add_blocks(rid, blocks or ())

    def _admit_waiting(self, sketch: _Sketch) -> None:
        """New and preempted requests, strictly by rank: one that does not fit holds back all behind it."""
        kv, seats = self.kv, self._free_seats()
        while self.waiting and seats > 0 and sketch.budget > 0:
            request = self.waiting[0]
            hit = self._prefix_hit(request)
            cached = len(hit) * kv.block_size
            if (count := self._first_chunk(request, cached, sketch.budget)) == 0:
                break
            if (blocks := kv.admit(request.rid, hit, cached + count)) is None:
                seats = 0
                break
            kv.publish(request.rid, request.token_ids, cached + count)
            sketch.new_requests.append(self._admit(request, cached))
            sketch.num_tokens[request.rid], sketch.new_blocks[request.rid] = count, blocks
            self._book_planned(request, count)
            sketch.budget -= count
            seats -= 1
        # A static batch goes on filling in the next step only if the token budget alone kept somebody out.
        self._static_seats = seats if self.waiting else 0

    def _book_planned(self, request: Request, count: int) -> None:
        """``count`` more of its tokens are in flight; where they are the last, so is a token yet to be drawn."""
        request.num_planned += count
        end = request.num_computed + request.num_planned
        if end == len(request.token_ids) + request.num_pending and not request.prompt_only:
            request.num_pending += 1

    def _free_seats(self) -> int:
        """How many requests may join in this step."""
        if self.batching == "static" and self.running:
            return self._static_seats
        return self.max_num_seqs - len(self.running)

    def _prefix_hit(self, request: Request) -> tuple[int, ...]:
        """The cached blocks a request begins with. With caching off, samples of one prompt still share it."""
        salt = request.cache_salt
        if not self.kv.enable_prefix_caching:
            salt = None if request.group is None else ("group", str(request.group))
        hit = self.kv.lookup(request.rid, request.token_ids, salt)
        return () if request.skip_prefix_hit else hit

    def _first_chunk(self, request: Request, cached: int, budget: int) -> int:
        """Tokens a request would compute in its first step; 0: it must wait for a step with more room.

        Without chunked prefill a prompt goes in whole. A preempted sequence may come back in chunks all the same: with
        what it has generated it may be longer than any step.
        """
        remaining = request.num_tokens - cached
        if remaining > budget and not self.enable_chunked_prefill and request.num_generated == 0:
            return 0
        return min(remaining, budget)

    def _admit(self, request: Request, cached: int) -> RequestInit:
        """Move the head of the waiting queue to the running one; its KV blocks are taken."""
        del self.waiting[0]
        queues.put(self.running, request)
        self._leave_queue(request)
        request.num_computed = cached
        if request.metrics.first_scheduled is None:
            request.metrics.first_scheduled = time.monotonic()
            request.metrics.num_cached_tokens = cached
            self.kv.stats.queries += request.num_tokens
            self.kv.stats.hits += cached
        return RequestInit(
            request.rid,
            tuple(request.token_ids),
            request.num_prompt_tokens,
            request.params,
            request.seed,
            cached,
            request.max_total_tokens,
            request.prompt_only,
        )

    def _preempt_last(self) -> int:
        """Take all blocks of the running request of highest rank; what the cache forgets of it is computed again."""
        victim = self.running.pop()
        self.kv.free(victim.rid)
        victim.num_computed = victim.num_planned = victim.num_accepted = 0
        victim.metrics.num_preemptions += 1
        self.num_preemptions += 1
        self._static_seats = 0
        self._queued[victim.rid] = (self._step - 1, time.monotonic())
        queues.put(self.waiting, victim)
        return victim.rid

    def _leave_queue(self, request: Request) -> None:
        step, since = self._queued.pop(request.rid)
        request.metrics.waiting_steps += max(0, self._step - 1 - step)
        request.metrics.waiting_s += time.monotonic() - since

    def _recover(self) -> None:
        """Plans never came back (the runner failed): nobody knows what they wrote, so all running start over."""
        self.kv.withdraw_promised()
        dropped = [rid for plan in self._in_flight for rid in (*plan.finished, *plan.preempted)] + self._dropped
        while self.running:
            dropped.append(self._preempt_last())
        for request in self._requests.values():
            request.num_pending = 0
        self._in_flight.clear()
        self._proposed = {}
        self._dropped = list(dict.fromkeys(dropped))

    def update(self, plan: StepPlan, result: StepResult) -> list[Request]:
        """Book what the runner computed. Returns the requests that got new tokens (finished ones among them)."""
        assert plan is self._in_flight.popleft(), "plans come back in the order in which they were made"
        self.kv.written()
        self._proposed = {} if self._in_flight else result.drafts  # what a step ahead draws, they do not follow
        requests, sampled, failed = self._requests, result.tokens, result.failed
        changed = []
        for rid, count in plan.num_tokens.items():
            request = requests.get(rid)
            if request is None:  # aborted while the step ran, or ended by the token of the step before
                continue
            if request.num_planned:  # else it was preempted while the step ran: what was computed is lost
                request.num_computed += count
                request.num_planned -= count
                if rid in plan.drafts:  # those that fell were computed in vain: their places will be written again
                    request.num_accepted = result.accepted.get(rid, 0)
                    request.num_computed -= len(plan.drafts[rid]) - request.num_accepted
            if rid in sampled:
                request.num_pending -= 1
                changed.append(request)
                for token in sampled[rid]:
                    self._append(request, token)
                    if request.finish_reason is not None:
                        break
            elif request.prompt_only and request.num_computed == len(request.token_ids):
                request.finish_reason = FinishReason.STOP
                changed.append(request)
            if rid in failed:
                request.finish_reason = FinishReason.ERROR
                if rid not in sampled:
                    changed.append(request)
        for request in changed:
            if request.finish_reason is not None:
                self._drop(request)
        return changed

    def _append(self, request: Request, token: int) -> None:
        """One new token, then the checks that end a request: EOS and stop token ids (after min_tokens), length."""
        request.token_ids.append(token)
        params, length = request.params, len(request.token_ids)
        if request.metrics.first_token is None:
            request.metrics.first_token = time.monotonic()
        may_stop = length >= request.num_prompt_tokens + params.min_tokens
        # A constraint that allows nothing but the end is stronger than min_tokens.
        may_end = may_stop or params.structured_outputs is not None
        if may_end and token in request.eos_token_ids and not params.ignore_eos:
            request.finish_reason = FinishReason.STOP
        elif may_stop and token in params.stop_token_ids:
            request.finish_reason, request.stop_reason = FinishReason.STOP, token
        elif length >= request.max_total_tokens:
            request.finish_reason = FinishReason.LENGTH

    def finish(self, rids: Iterable[int], reason: FinishReason, stop_reason: str | None = None) -> list[Request]:
        """End requests from outside (abort, or a stop string found by the detokeniser). Unknown ids are passed over."""
        ended = []
        for rid in rids:
            if (request := self._requests.get(rid)) is not None:
                request.finish_reason, request.stop_reason = reason, stop_reason
                self._drop(request)
                ended.append(request)
        return ended

    def _drop(self, request: Request) -> None:
        request.metrics.finished = time.monotonic()
        del self._requests[request.rid]
        if queues.take(self.running, request):
            self._dropped.append(request.rid)
        else:
            queues.take(self.waiting, request)
            self._leave_queue(request)
        self.kv.free(request.rid)

    def check(self) -> None:
        """Assert the invariants that hold between steps: for tests, not for serving."""
        self.kv.check()
        queues.check(self.waiting)
        queues.check(self.running)
        assert len(self.running) <= self.max_num_seqs, "more running requests than max_num_seqs"
        queued = [request.rid for request in (*self.waiting, *self.running)]
        assert sorted(queued) == sorted(self._requests), "a request is in no queue, or in two"
        assert self._queued.keys() == {request.rid for request in self.waiting}, "waiting times differ from the queue"
        assert self.kv.tables().keys() == {request.rid for request in self.running}, "tables differ from running"
        for request in self.waiting:
            assert request.num_computed == request.num_planned == 0, f"request {request.rid} waits with computed tokens"
        for request in self.running:
            assert 0 <= request.num_computed < request.num_tokens, f"request {request.rid} has nothing to compute"
            planned = sum(plan.num_tokens.get(request.rid, 0) for plan in self._in_flight)
            assert request.num_planned == planned, f"request {request.rid}: num_planned is not what is in flight"
            assert request.num_pending <= len(self._in_flight), f"request {request.rid} awaits more tokens than plans"
            room = len(self.kv.table(request.rid)) * self.kv.block_size
            assert request.num_computed <= room, f"request {request.rid} has more computed tokens than room"

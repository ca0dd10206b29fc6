"""One token budget, no phases: each step moves every request's ``num_computed`` toward its ``num_tokens``.

A prompt chunk, a decode and the resume of a preempted request are the same line of arithmetic, so they share a
batch freely (Agrawal et al. 2024, arXiv:2403.02310; vLLM's V1 scheduler).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from minillm_serve.kv.manager import KVManager
from minillm_serve.plan import RequestInit, StepPlan, StepResult
from minillm_serve.request import FinishReason, Request
from minillm_serve.sched.policy import FCFS


class Scheduler:
    """Owns the requests and the KV manager; nobody else changes a request.

    max_num_seqs: requests in one step. max_num_batched_tokens: tokens computed in one step.
    """

    def __init__(self, kv: KVManager, max_num_seqs: int, max_num_batched_tokens: int, policy: FCFS | None = None):
        self.kv = kv
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.policy = policy or FCFS()
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in arrival order
        self.num_preemptions = 0
        self._requests: dict[int, Request] = {}
        self._dropped: list[int] = []  # finished since the last plan: the runner still holds their state
        self._step = 0

    def add(self, request: Request) -> None:
        """Queue a request. It must fit the pool by itself, or it could never run (the engine checks at admission)."""
        if not self.kv.fits(request.max_total_tokens):
            raise ValueError(f"request {request.rid} can never fit in {self.kv.num_blocks} blocks")
        self._requests[request.rid] = request
        self.waiting.append(request)

    def has_work(self) -> bool:
        return bool(self._requests)

    def schedule(self) -> StepPlan:
        """Decide the next step: decodes and prompt chunks already running, then new requests while budget lasts."""
        self._step += 1
        num_tokens: dict[int, int] = {}
        new_blocks: dict[int, tuple[int, ...]] = {}
        preempted: list[int] = []
        budget = self.max_num_batched_tokens

        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            count = min(request.num_tokens - request.num_computed, budget)
            # Victims come from the tail, at or after `index`: none of them is in `num_tokens` yet.
            while (blocks := self.kv.grow(request.rid, request.num_computed + count)) is None:
                preempted.append(self._preempt_from(index))
                if preempted[-1] == request.rid:
                    break
            else:
                num_tokens[request.rid], budget = count, budget - count
                if blocks:
                    new_blocks[request.rid] = blocks
                index += 1

        admitted: list[RequestInit] = []
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs and not preempted:
            request = self.policy.next_to_admit(self.waiting)
            count = min(request.num_tokens, budget)
            if (blocks := self.kv.grow(request.rid, count)) is None:
                break
            self.waiting.remove(request)
            self.running.append(request)
            admitted.append(self._init(request))
            num_tokens[request.rid], new_blocks[request.rid], budget = count, blocks, budget - count

        finished, self._dropped = tuple(self._dropped), []
        return StepPlan(self._step, num_tokens, tuple(admitted), new_blocks, finished, tuple(preempted))

    def _preempt_from(self, index: int) -> int:
        """Take all blocks of one running request at or after ``index``; it will be recomputed from its first token."""
        victim = self.policy.victim(self.running[index:])
        self.running.remove(victim)
        self.kv.free(victim.rid)
        victim.num_computed = 0
        victim.metrics.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.appendleft(victim)  # victims go latest first, so the queue's head stays the oldest
        return victim.rid

    def _init(self, request: Request) -> RequestInit:
        if request.metrics.first_scheduled is None:
            request.metrics.first_scheduled = time.monotonic()
        return RequestInit(
            request.rid, tuple(request.token_ids), request.num_prompt_tokens, request.params, request.seed
        )

    def update(self, plan: StepPlan, result: StepResult) -> list[Request]:
        """Book what the runner computed. Returns the requests that got new tokens (finished ones among them)."""
        changed = []
        for rid, count in plan.num_tokens.items():
            request = self._requests.get(rid)
            if request is None:  # aborted while the step ran
                continue
            request.num_computed += count
            for token in result.tokens.get(rid, ()):
                self._append(request, token)
                if request.finished:
                    break
            if rid in result.failed:
                request.finish_reason = FinishReason.ERROR
            if rid in result.tokens or request.finished:
                changed.append(request)
        for request in changed:
            if request.finished:
                self._drop(request)
        return changed

    def _append(self, request: Request, token: int) -> None:
        """One new token, then the checks that end a request: EOS, stop token ids, length."""
        request.token_ids.append(token)
        if request.metrics.first_token is None:
            request.metrics.first_token = time.monotonic()
        if token in request.eos_token_ids and not request.params.ignore_eos:
            request.finish_reason = FinishReason.STOP
        elif token in request.params.stop_token_ids:
            request.finish_reason, request.stop_reason = FinishReason.STOP, token
        elif request.num_tokens >= request.max_total_tokens:
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
        if request in self.running:
            self.running.remove(request)
            self._dropped.append(request.rid)
        else:
            self.waiting.remove(request)
        self.kv.free(request.rid)

"""Who goes first and who gives way: one order over all requests decides both."""

from __future__ import annotations

from typing import Any, Protocol

from minillm_serve.request import Request


class Policy(Protocol):
    """A scheduling policy: one number (or tuple) per request, asked for once, when the request arrives.

    The waiting request of lowest rank is admitted next; the running request of highest rank gives its blocks back
    when memory runs out. Ties go by arrival. A rank never changes, so a preempted request keeps its place.
    """

    def rank(self, request: Request) -> Any: ...


class FCFS:
    """First come, first served. The latest arrival gives way, so the oldest request always finishes: no starvation."""

    def rank(self, request: Request) -> int:
        return request.arrival_step


class Priority:
    """Lower ``priority`` is more urgent (as in vLLM), and waiting makes urgent: a step of priority is worth
    ``ageing_steps`` engine steps of age.

    A request of priority ``p`` that arrives at step ``s`` has rank ``s + ageing_steps * p``. Comparing two ranks is
    comparing ``priority - age / ageing_steps`` at any one moment (both age alike), so no rank need ever be refreshed.

    No starvation: a request is overtaken only by requests of priority ``q < p`` that arrive less than
    ``ageing_steps * (p - q)`` steps after it. So from ``ageing_steps * (p - q_min)`` steps on the set of requests
    before it only shrinks. Queues are served strictly by rank and the running request of lowest rank is never
    preempted, so with ``k`` requests before it, ``m = max_num_seqs`` and no sequence longer than ``n`` tokens, it is
    admitted after at most ``ageing_steps * (p - q_min) + (k + 1) * (m + 1) * n`` steps. The bound is for the worst
    pool and budget (one token of one request a step); tests/sched/test_policies.py checks it under a hostile load.
    """

    def __init__(self, ageing_steps: int = 100):
        if ageing_steps < 1:
            raise ValueError(f"ageing_steps must be at least 1, got {ageing_steps}: without ageing requests can starve")
        self.ageing_steps = ageing_steps

    def rank(self, request: Request) -> int:
        return request.arrival_step + self.ageing_steps * request.priority


POLICIES: dict[str, type[FCFS] | type[Priority]] = {"fcfs": FCFS, "priority": Priority}

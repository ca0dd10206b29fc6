"""Who waited, and for how long: fairness of a schedule, from the metrics of requests that have ended.

Jain's index (Jain, Chiu and Hawe 1984, DEC-TR-301) of rates x_1 … x_n is ``(Σx)² / (n Σx²)``: 1 when all get the same,
``k/n`` when k of n share everything. Slowdown is response time over service time, 1 for who never waited.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from minillm_serve.request import Request, RequestMetrics


def jain_index(rates: Sequence[float]) -> float:
    """Jain's fairness index, in ``[1/n, 1]``; 1.0 where nobody got more than another because nobody got anything."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0


@dataclass(frozen=True)
class Service:
    """What one request got. waiting_steps, waiting_s: in the queue, preemptions included. response_s: from arrival to
    the end. tokens: generated."""

    tokens: int
    waiting_steps: int
    waiting_s: float
    response_s: float

    @classmethod
    def of(cls, metrics: RequestMetrics, tokens: int) -> Service:
        """Raises ValueError for a request that has not ended."""
        if metrics.finished is None:
            raise ValueError("fairness is told of requests that have ended; one is still under way")
        return cls(tokens, metrics.waiting_steps, metrics.waiting_s, metrics.finished - metrics.arrival)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.response_s if self.response_s > 0 else 0.0

    @property
    def slowdown(self) -> float:
        """Infinite for a request that ended (aborted) without ever being served."""
        service = self.response_s - self.waiting_s
        return max(1.0, self.response_s / service) if service > 0 else float("inf")


@dataclass(frozen=True)
class Fairness:
    """One group of requests. jain_index: over the tokens/s of its requests (arrival to end)."""

    requests: int
    tokens: int
    jain_index: float
    max_waiting_steps: int
    max_waiting_s: float
    mean_waiting_s: float
    mean_slowdown: float
    max_slowdown: float

    @classmethod
    def of(cls, services: Sequence[Service]) -> Fairness:
        """Raises ValueError for no requests: there is nothing to be fair to."""
        if not services:
            raise ValueError("fairness needs at least one request that has ended")
        return cls(
            requests=len(services),
            tokens=sum(s.tokens for s in services),
            jain_index=jain_index([s.tokens_per_s for s in services]),
            max_waiting_steps=max(s.waiting_steps for s in services),
            max_waiting_s=max(s.waiting_s for s in services),
            mean_waiting_s=sum(s.waiting_s for s in services) / len(services),
            mean_slowdown=sum(s.slowdown for s in services) / len(services),
            max_slowdown=max(s.slowdown for s in services),
        )


@dataclass(frozen=True)
class FairnessReport:
    """All requests together, each class (user, priority…) by itself, and how evenly the classes were served.

    between_classes: Jain's index over the classes' mean tokens/s per request.
    """

    overall: Fairness
    classes: dict[Hashable, Fairness]
    between_classes: float


def fairness(
    requests: Iterable[Request], by: Callable[[Request], Hashable] = lambda request: request.priority
) -> FairnessReport:
    """Report on ended requests, classed by ``by`` (their priority; ``lambda r: r.cache_salt`` classes by user)."""
    classes: dict[Hashable, list[Service]] = {}
    for request in requests:
        classes.setdefault(by(request), []).append(Service.of(request.metrics, request.num_generated))
    rates = [sum(s.tokens_per_s for s in services) / len(services) for services in classes.values()]
    return FairnessReport(
        overall=Fairness.of([service for services in classes.values() for service in services]),
        classes={name: Fairness.of(services) for name, services in classes.items()},
        between_classes=jain_index(rates),
    )

"""Arithmetic on recorded timestamps; the definitions are those of ``vllm bench serve``.

TTFT = sent to first chunk. ITL = gaps between chunks. E2E = sent to last chunk. TPOT = (E2E - TTFT) / (tokens - 1).
All times are in seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Timeline:
    """What one client saw of one request.

    ``chunks`` holds the arrival time of every streamed chunk that carried a choice; counts come from the server's
    ``usage``. ``error`` is the reason when the request failed: its timings then mean nothing and are left out.
    """

    request_id: str
    sent: float
    chunks: list[float] = field(default_factory=list)
    response_id: str | None = None
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and bool(self.chunks)

    @property
    def ttft(self) -> float:
        return self.chunks[0] - self.sent

    @property
    def e2e(self) -> float:
        return self.chunks[-1] - self.sent

    @property
    def itl(self) -> list[float]:
        return [after - before for before, after in zip(self.chunks, self.chunks[1:], strict=False)]

    @property
    def tpot(self) -> float | None:
        return (self.e2e - self.ttft) / (self.completion_tokens - 1) if self.completion_tokens > 1 else None


@dataclass(frozen=True)
class LoadResult:
    """All timelines of one run against the server, in the order of the jobs.

    ``others_cpu``: share of the CPU that other programs took meanwhile (0 to 1), None where it is unknown.
    """

    timelines: tuple[Timeline, ...]
    others_cpu: float | None = None

    @property
    def failed(self) -> list[Timeline]:
        return [t for t in self.timelines if not t.ok]

    @property
    def wall(self) -> float:
        """First send to last chunk: server, network and client are all inside."""
        done = [t for t in self.timelines if t.ok]
        return max(t.chunks[-1] for t in done) - min(t.sent for t in self.timelines) if done else 0.0

    @property
    def completion_tokens(self) -> int:
        return sum(t.completion_tokens for t in self.timelines if t.ok)

    @property
    def tokens_per_second(self) -> float:
        return self.completion_tokens / self.wall if self.wall > 0 else 0.0

    def summary(self) -> dict[str, Any]:
        """Totals and latency percentiles, ready for JSON."""
        done = [t for t in self.timelines if t.ok]
        return {
            "requests": len(self.timelines),
            "failed": len(self.failed),
            "prompt_tokens": sum(t.prompt_tokens for t in done),
            "completion_tokens": self.completion_tokens,
            "wall_s": self.wall,
            "tok_s": self.tokens_per_second,
            "others_cpu": self.others_cpu,
            "ttft_s": describe([t.ttft for t in done]),
            "itl_s": describe([gap for t in done for gap in t.itl]),
            "tpot_s": describe([t.tpot for t in done if t.tpot is not None]),
            "e2e_s": describe([t.e2e for t in done]),
        }


def describe(values: Sequence[float]) -> dict[str, float] | None:
    """Mean and percentiles (linear interpolation, as numpy's default), or None when there is nothing to describe."""
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "mean": float(np.mean(values)),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "min": float(min(values)),
        "max": float(max(values)),
    }


def median_index(values: Sequence[float]) -> int:
    """Index of the median run (the lower one of an even count), so that everything shown comes from one real run."""
    if not values:
        raise ValueError("there is no median of no runs")
    order = sorted(range(len(values)), key=lambda i: values[i])
    return order[(len(order) - 1) // 2]

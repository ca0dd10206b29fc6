"""A record of every step, for the Gantt chart and for replay without a model."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.plan import StepPlan
from minillm_serve.request import Request

SCHEMA = "minillm-trace/1"


@dataclass
class Trace:
    """Collects plans and timings; all times in the file are seconds since the trace began."""

    config: EngineConfig
    origin: float = field(default_factory=time.monotonic)
    requests: dict[int, dict[str, Any]] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self, plan: StepPlan, start: float, duration: float, running: int, waiting: int, free_blocks: int) -> None:
        """One executed step; start is ``time.monotonic()``, duration in seconds."""
        self.steps.append(
            {
                "step": plan.step,
                "start": round(start - self.origin, 6),
                "duration": round(duration, 6),
                "num_tokens": {str(rid): count for rid, count in plan.num_tokens.items()},
                "preempted": list(plan.preempted),
                "running": running,
                "waiting": waiting,
                "free_blocks": free_blocks,
            }
        )

    def request(self, request_id: str, request: Request) -> None:
        """The life of a finished request."""
        metrics = request.metrics

        def since(moment: float | None) -> float | None:
            return None if moment is None else round(moment - self.origin, 6)

        self.requests[request.rid] = {
            "id": request_id,
            "prompt_tokens": request.num_prompt_tokens,
            "arrival": since(metrics.arrival),
            "first_token": since(metrics.first_token),
            "finished": since(metrics.finished),
            "generated": request.num_generated,
            "preemptions": metrics.num_preemptions,
        }

    def write(self, path: str | Path) -> None:
        """Save as JSON."""
        content = {
            "schema": SCHEMA,
            "config": asdict(self.config),
            "requests": {str(rid): entry for rid, entry in self.requests.items()},
            "steps": self.steps,
        }
        Path(path).write_text(json.dumps(content), encoding="utf-8")

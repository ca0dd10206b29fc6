"""Run a recorded trace again without a model: same arrivals, same sampled tokens, so the same plan in every step.

The scheduler is a deterministic function of the calls on it. Replaying is the proof, and a way to look at its inside:
each step comes with the block tables, the queues and the cached blocks as they were while the step ran. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.engine.scheduling import build_scheduler
from minillm_serve.engine.trace import (
    INPUTS,
    PLAN_PARTS,
    QUEUES,
    TraceError,
    params_from,
    plan_record,
    queues,
    read_trace,
)
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import FinishReason, Request, RequestMetrics
from minillm_serve.sched.scheduler import Scheduler
from minillm_serve.seams import Seams


class ReplayError(TraceError):
    """The scheduler did not do what the trace says: names the step and what differs."""


@dataclass(frozen=True)
class ReplayedStep:
    """One step while it ran. tables: request id -> its blocks; num_cached: request id -> tokens in them at its end, the
    drafts that it verifies among them.

    idle: blocks of no request whose content a later one may still find (the prefix cache's; the rest is free).
    """

    plan: StepPlan
    tables: dict[int, tuple[int, ...]]
    num_cached: dict[int, int]
    waiting: tuple[int, ...]
    idle: frozenset[int]

    def usage(self, block_size: int) -> tuple[int, int]:
        """KV slots that the requests hold, and those with a token in; a block that several share counts once."""
        filled: dict[int, int] = {}
        for rid, table in self.tables.items():
            for index, block in enumerate(table):
                tokens = min(max(self.num_cached[rid] - index * block_size, 0), block_size)
                filled[block] = max(filled.get(block, 0), tokens)
        return len(filled) * block_size, sum(filled.values())


def replay(source: str | Path | dict[str, Any], seams: Seams | None = None) -> Iterator[ReplayedStep]:
    """Step after step of a trace; raises :class:`ReplayError` where the replay first differs from the record.

    seams: a student's own block pool or policy takes the place of ours; the first difference shows where it departs.
    """
    trace = read_trace(source)
    if not trace["events"]:
        raise TraceError("this is a selected part of a trace: only a whole one can be replayed")
    scheduler = build_scheduler(_config(trace), trace["num_blocks"], seams)
    steps = {step["step"]: step for step in trace["steps"]}
    planned: dict[int, StepPlan] = {}
    for kind, number, *rest in trace["events"]:
        if kind == "add":
            scheduler.add(request_from(number, trace["requests"][str(number)]))
        elif kind == "finish":
            scheduler.finish([number], FinishReason(rest[0]), rest[1])
        elif kind == "reset":
            scheduler.reset_prefix_cache()
        elif kind == "schedule":
            plan = planned[number] = scheduler.schedule(ahead=bool(rest))
            if number in steps:  # a step that failed was planned, and has no record
                _compare(number, PLAN_PARTS, plan_record(plan), steps[number])
            yield _state(scheduler, plan)
        elif kind == "update":
            scheduler.update(planned.pop(number), result_from(steps[number]))
            _compare(number, QUEUES, queues(scheduler), steps[number])
        else:
            raise TraceError(f"the trace holds an unknown event {kind!r}")


def verify(source: str | Path | dict[str, Any], seams: Seams | None = None) -> int:
    """Replay it all; the number of steps that came out identical, or :class:`ReplayError`."""
    return sum(1 for _ in replay(source, seams))


def _config(trace: dict[str, Any]) -> EngineConfig:
    try:
        return EngineConfig(**trace["config"])
    except TypeError as error:
        raise TraceError(f"the trace was recorded by another version of the engine: {error}") from error


def request_from(rid: int, record: dict[str, Any]) -> Request:
    """The request as it was when it arrived."""
    inputs = {name: record[name] for name in INPUTS if name in record}
    if inputs.get("cache_salt") is not None:
        inputs["cache_salt"] = tuple(inputs["cache_salt"])
    return Request(
        rid=rid,
        token_ids=list(record["prompt_ids"]),
        num_prompt_tokens=record["prompt_tokens"],
        params=params_from(record["params"]),
        eos_token_ids=frozenset(record["eos_token_ids"]),
        metrics=RequestMetrics(arrival=record["arrival"]),
        **inputs,
    )


def result_from(step: dict[str, Any]) -> StepResult:
    """What the runner answered in a recorded step."""

    def by_request(name: str, make: Callable[[Any], Any]) -> dict[int, Any]:
        return {int(rid): make(value) for rid, value in step.get(name, {}).items()}

    return StepResult(
        by_request("tokens", tuple),
        tuple(step.get("failed", ())),
        forced=by_request("forced", int),
        accepted=by_request("accepted", int),
        drafts=by_request("proposed", tuple),
    )


def _compare(number: int, names: Sequence[str], replayed: dict[str, Any], recorded: dict[str, Any]) -> None:
    for name in names:
        before, now = recorded.get(name), replayed.get(name)
        if json.dumps(before) != json.dumps(now):  # the order inside a plan counts: it is the order of the batch
            raise ReplayError(f"step {number}: {name} was {before}, the replay gives {now}")


def _state(scheduler: Scheduler, plan: StepPlan) -> ReplayedStep:
    kv, running = scheduler.kv, scheduler.running
    return ReplayedStep(
        plan=plan,
        tables={request.rid: kv.table(request.rid) for request in running},
        num_cached={request.rid: request.num_computed + request.num_planned for request in running},
        waiting=tuple(request.rid for request in scheduler.waiting),
        idle=frozenset(block for block in kv.cache.blocks() if kv.cache.is_idle(block)),
    )

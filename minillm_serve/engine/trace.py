"""A record of a run that replays without a model: plans, what the runner answered, when, and what came from outside.

The file is JSON, schema ``minillm-trace/2`` (``trace.schema.json`` next to this module says it formally):

- ``config``: the EngineConfig, its models by name alone; ``num_blocks``: blocks of the KV pool.
- ``requests``: request id -> its label (``id``), prompt, parameters, and its life: ``arrival``, ``first_scheduled``,
  ``first_token``, ``finished``, ``generated``, ``preemptions``, ``finish_reason``.
- ``steps``: the StepPlan (``num_tokens``, ``new_requests``, ``new_blocks``, ``finished``, ``preempted``, ``drafts``;
  what is empty is left out), the StepResult (``tokens``, ``failed``; ``forced``: how many of a request's new tokens,
  the last ones, its constraint left no choice about; ``accepted``: how many of the plan's drafts stand, which are the
  first of its new tokens; ``proposed``: its drafts for the next step, with -1 - i for the i-th where nobody has read
  it), ``start`` and the seconds that ``schedule``, ``execute`` and ``update`` took, and ``running``, ``waiting``,
  ``free_blocks``, ``cached_blocks`` after the step.
- ``events``: the calls on the scheduler in their order: ``["add", rid]``, ``["schedule", step]`` (and ``"ahead"`` where
  the step before had not come back yet), ``["update", step]``, ``["finish", rid, reason, stop_reason]`` (an abort, or a
  stop string found in the text), ``["reset", 0]`` (the prefix cache was emptied).

Times are seconds since the trace began. A trace holds the token ids of prompts and answers, because prefix hits depend
on them: treat it like the conversations themselves, or pass it through :func:`anonymise` before it leaves your hands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.params import SamplingParams, StructuredOutputsParams
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import FinishReason, Request
from minillm_serve.sched.scheduler import Scheduler

SCHEMA = "minillm-trace/2"
INPUTS = ("max_total_tokens", "seed", "priority", "cache_salt", "skip_prefix_hit", "group", "prompt_only")
"""Fields of a Request, besides prompt, parameters and EOS ids, that the scheduler's decisions may depend on."""
PLAN_PARTS = ("step", "num_tokens", "new_requests", "new_blocks", "finished", "preempted", "drafts")
TOKEN_IDS = ("tokens", "drafts", "proposed")
"""Fields of a step that hold token ids by request."""
QUEUES = ("running", "waiting", "free_blocks", "cached_blocks")


class TraceError(ValueError):
    """The trace is not what the engine writes, or holds nothing to show."""


class Trace:
    """What happened, in memory until :meth:`write`. All times handed in are ``time.monotonic()`` seconds."""

    def __init__(self, config: EngineConfig, num_blocks: int):
        self.config = config
        self.num_blocks = num_blocks
        self.origin = time.monotonic()
        self.labels: dict[int, str] = {}
        self.requests: dict[int, Request] = {}
        self.steps: list[dict[str, Any]] = []
        self.events: list[list[Any]] = []

    def content(self) -> dict[str, Any]:
        """The trace so far, as plain JSON values."""
        return {
            "schema": SCHEMA,
            "config": config_record(self.config),
            "num_blocks": self.num_blocks,
            "requests": {str(rid): self._request(request) for rid, request in self.requests.items()},
            "steps": self.steps,
            "events": self.events,
        }

    def write(self, path: str | Path) -> None:
        """Save as JSON; the folder is made if it is not there."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.content(), separators=(",", ":")), encoding="utf-8")

    def seconds(self, moment: float | None) -> float | None:
        """A moment as the file tells it."""
        return None if moment is None else round(moment - self.origin, 6)

    def _request(self, request: Request) -> dict[str, Any]:
        metrics = request.metrics
        return {
            "id": self.labels.get(request.rid, str(request.rid)),
            "prompt_tokens": request.num_prompt_tokens,
            "prompt_ids": request.token_ids[: request.num_prompt_tokens],
            "params": params_record(request.params),
            "eos_token_ids": sorted(request.eos_token_ids),
            **{f.name: getattr(request, f.name) for f in fields(request) if f.name in INPUTS},
            "arrival": self.seconds(metrics.arrival),
            "first_scheduled": self.seconds(metrics.first_scheduled),
            "first_token": self.seconds(metrics.first_token),
            "finished": self.seconds(metrics.finished),
            "generated": request.num_generated,
            "preemptions": metrics.num_preemptions,
            "finish_reason": request.finish_reason,
            "stop_reason": request.stop_reason,
        }


def config_record(config: EngineConfig) -> dict[str, Any]:
    """The configuration as JSON values. Where its models lie is nobody's business."""
    record = asdict(config)
    for part in (record, record["speculative_config"] or {}):
        if part.get("model") is not None:
            part["model"] = Path(part["model"]).name
    return record


def params_record(params: SamplingParams) -> dict[str, Any]:
    """The parameters that are not at their defaults, as JSON values; :func:`params_from` brings them back."""
    default = SamplingParams()
    chosen = {f.name: getattr(params, f.name) for f in fields(params)}
    chosen = {name: value for name, value in chosen.items() if value != getattr(default, name)}
    if (constraint := params.structured_outputs) is not None:
        given = {f.name: (getattr(constraint, f.name), f.default) for f in fields(constraint)}
        chosen["structured_outputs"] = {name: value for name, (value, default) in given.items() if value != default}
    return chosen


def params_from(record: dict[str, Any]) -> SamplingParams:
    """The parameters behind a :func:`params_record`."""
    structured = record.get("structured_outputs")
    changes = {} if structured is None else {"structured_outputs": StructuredOutputsParams(**structured)}
    return SamplingParams(**record | changes)


def plan_record(plan: StepPlan) -> dict[str, Any]:
    """A StepPlan as JSON values. Of a new request it names the tokens known and already computed, not their ids."""
    parts = {
        "new_requests": {str(i.rid): [len(i.token_ids), i.num_computed] for i in plan.new_requests},
        "new_blocks": {str(rid): list(blocks) for rid, blocks in (plan.new_blocks or {}).items() if blocks},
        "finished": list(plan.finished),
        "preempted": list(plan.preempted),
        "drafts": ids_record(plan.drafts),
    }
    return {
        "step": plan.step,
        "num_tokens": {str(rid): count for rid, count in plan.num_tokens.items()},
        **{name: value for name, value in parts.items() if value},
    }


def result_record(result: StepResult) -> dict[str, Any]:
    """What a replay needs of a StepResult, as JSON values."""
    parts = {
        "failed": list(result.failed),
        "forced": {str(rid): count for rid, count in result.forced.items()},
        "accepted": {str(rid): count for rid, count in result.accepted.items()},
        "proposed": ids_record(result.drafts),
    }
    return {"tokens": ids_record(result.tokens), **{name: value for name, value in parts.items() if value}}


def ids_record(ids: Mapping[int, Iterable[int]]) -> dict[str, list[int]]:
    return {str(rid): list(tokens) for rid, tokens in ids.items()}


class Recorder:
    """A scheduler that writes down every call that reaches it; everything else it passes on untouched.

    The trace is complete because the scheduler is the one door to requests and blocks (design rule 3): what
    happened between two steps is the order of the calls on it.
    """

    def __init__(self, scheduler: Scheduler, trace: Trace):
        self._scheduler = scheduler
        self._trace = trace
        self._open: dict[int, dict[str, Any]] = {}  # planned, not yet updated
        self._planned_at: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def add(self, request: Request) -> None:
        self._scheduler.add(request)
        self._trace.requests[request.rid] = request
        self._trace.events.append(["add", request.rid])

    def schedule(self, ahead: bool = False) -> StepPlan:
        start = time.monotonic()
        plan = self._scheduler.schedule(ahead)
        self._planned_at[plan.step] = planned = time.monotonic()
        times = {"start": self._trace.seconds(start), "schedule": round(planned - start, 6)}
        self._open[plan.step] = plan_record(plan) | times
        self._trace.events.append(["schedule", plan.step, *(["ahead"] if ahead else [])])
        return plan

    def update(self, plan: StepPlan, result: StepResult) -> list[Request]:
        start = time.monotonic()
        changed = self._scheduler.update(plan, result)
        step = self._open.pop(plan.step)
        if result.verified:
            self._name_drafts(step, result.verified)
        step["execute"] = round(start - self._planned_at.pop(plan.step), 6)
        step["update"] = round(time.monotonic() - start, 6)
        self._trace.steps.append(step | result_record(result) | queues(self._scheduler))
        self._trace.events.append(["update", plan.step])
        return changed

    def _name_drafts(self, step: dict[str, Any], ids: Mapping[int, Sequence[int]]) -> None:
        """In a step, and in the one that proposed them, as far as they were verified."""
        for rid, tokens in ids_record(ids).items():
            step["drafts"][rid] = tokens
            self._trace.steps[-1]["proposed"][rid][: len(tokens)] = tokens

    def reset_prefix_cache(self) -> None:
        self._scheduler.reset_prefix_cache()
        self._trace.events.append(["reset", 0])

    def finish(self, rids: Iterable[int], reason: FinishReason, stop_reason: str | None = None) -> list[Request]:
        ended = self._scheduler.finish(rids, reason, stop_reason)
        self._trace.events += [["finish", request.rid, str(reason), stop_reason] for request in ended]
        return ended


def queues(scheduler: Scheduler) -> dict[str, int]:
    """Lengths of the queues, blocks that can be had, and blocks whose content can be found again."""
    return {
        "running": len(scheduler.running),
        "waiting": len(scheduler.waiting),
        "free_blocks": scheduler.kv.num_free_blocks,
        "cached_blocks": scheduler.kv.num_cached_blocks,
    }


def read_trace(source: str | Path | dict[str, Any]) -> dict[str, Any]:
    """A trace from its file, or as it is; raises :class:`TraceError` on anything but schema ``minillm-trace/2``."""
    if isinstance(source, dict):
        trace = source
    else:
        try:
            trace = json.loads(Path(source).read_text(encoding="utf-8"))
        except OSError as error:
            raise TraceError(f"the trace cannot be read: {error}") from error
        except ValueError as error:
            raise TraceError(f"{source} is not a trace: it is not JSON ({error})") from error
    schema = trace.get("schema") if isinstance(trace, dict) else None
    if schema == "minillm-trace/1":
        raise TraceError(f"{schema} does not hold whole plans and is no longer read; record the run again")
    if schema != SCHEMA:
        raise TraceError(f"this is not an engine trace: schema is {schema!r}, expected {SCHEMA!r}")
    if not trace.get("requests") or not trace.get("steps"):
        raise TraceError("the trace is empty: no request was served while it was recorded")
    return trace


def duration(step: dict[str, Any]) -> float:
    """Seconds that a step took, without the text that was made of its tokens."""
    return step["schedule"] + step["execute"] + step["update"]


def anonymise(trace: dict[str, Any]) -> dict[str, Any]:
    """The same trace with every token id, label and salt replaced by a number: it replays and draws alike.

    Equal tokens stay equal, so this is a substitution cipher: it keeps text from being read at a glance, no more.
    Parameters that carry text or token ids are dropped, except those on which an end depends.
    """
    trace = read_trace(trace)
    token, salt = _Numbering(), _Numbering()
    kept = ("max_tokens", "min_tokens", "ignore_eos", "temperature", "top_p", "top_k", "min_p", "seed", "n", "best_of")
    requests = {}
    for number, (rid, request) in enumerate(trace["requests"].items(), start=1):
        params = {name: value for name, value in request["params"].items() if name in kept}
        if "stop_token_ids" in request["params"]:
            params["stop_token_ids"] = token.all(request["params"]["stop_token_ids"])
        changes = {
            "id": f"request-{number}",
            "prompt_ids": token.all(request["prompt_ids"]),
            "eos_token_ids": token.all(request["eos_token_ids"]),
            "stop_reason": None,
            "params": params,
        }
        if request.get("cache_salt"):
            changes["cache_salt"] = [str(n) for n in salt.all(request["cache_salt"])]
        requests[rid] = request | changes
    steps = [
        step | {name: {rid: token.all(ids) for rid, ids in step[name].items()} for name in TOKEN_IDS if name in step}
        for step in trace["steps"]
    ]
    events = [[*event[:3], None] if event[0] == "finish" else event for event in trace["events"]]
    return trace | {"requests": requests, "steps": steps, "events": events}


class _Numbering:
    """Numbers things in the order in which they are first seen."""

    def __init__(self) -> None:
        self._seen: dict[Any, int] = {}

    def all(self, things: Iterable[Any]) -> list[int]:
        return list(self._each(things))

    def _each(self, things: Iterable[Any]) -> Iterator[int]:
        for thing in things:
            yield self._seen.setdefault(thing, len(self._seen))

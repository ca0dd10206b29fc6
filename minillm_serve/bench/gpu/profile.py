"""Where a step's time goes: the device's, by kernel, and the host's, by what the step loop does.

The steps are timed first without a profiler, then a few more are watched by torch's. On a GPU what one step launches
is its graph's nodes, copies with them, so time over launches is what a node costs. On a CPU the table has torch's
operators.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from minillm_serve.params import SamplingParams

if TYPE_CHECKING:
    from minillm_serve.engine.core import EngineCore
    from minillm_serve.engine.llm import LLM

UNTIMED = 4
TIMED = 32
WATCHED = 8
ROWS = 24  # of the kernel table; what is below is one row more
NAME_CHARS = 100


def profile_decode(llm: LLM, lengths: Sequence[int], temperature: float, timed: int = TIMED) -> dict[str, Any]:
    """Steps in which every one of ``len(lengths)`` sequences decodes a token, with so many prompt tokens before them.

    Returns ``step_us`` (the median), ``tokens`` computed by each step, ``kv_tokens`` (in the cache when the timed steps
    begin), ``host_us`` (per step, by phase; ``collect`` is the wait for the device), ``launches`` and ``device_us`` per
    step, and ``kernels``: name, calls and microseconds per step, share of the device's time.
    """
    core = llm.core
    reading = 2 * sum(lengths) // core.scheduler.max_num_batched_tokens + UNTIMED
    rids = _start(core, lengths, temperature, reading + 2 * UNTIMED + timed + WATCHED)
    try:
        while _still_reading(core):
            core.step()
        return _profiled(llm, timed, WATCHED, len(lengths))
    finally:
        _stop(core, rids)


def profile_prompts(llm: LLM, length: int, temperature: float, timed: int = 6) -> dict[str, Any]:
    """Steps that only read prompts of ``length`` tokens, as many as the token budget holds. Returns the same."""
    core = llm.core
    budget = core.scheduler.max_num_batched_tokens
    watched = max(1, timed // 2)
    rids = _start(core, [length] * (budget * (UNTIMED + timed + watched + 2) // length), temperature, 1)
    try:
        return _profiled(llm, timed, watched, budget)
    finally:
        _stop(core, rids)


def _profiled(llm: LLM, timed: int, watched: int, tokens: int) -> dict[str, Any]:
    core, device = llm.core, llm.config.device
    for _ in range(UNTIMED):
        core.step()
    kv_tokens = sum(request.num_computed for request in core.scheduler.running)
    _wait(device)
    with _Phases(core) as phases:
        step_us = [_clocked(core.step) for _ in range(timed)]
    _wait(device)
    kernels, launches, device_us = _watch(core, device, watched)
    host = {name: us / timed for name, us in phases.us.items()}
    return {
        "tokens": tokens,
        "kv_tokens": kv_tokens,
        "step_us": median(step_us),
        "host_us": host | {"other": sum(step_us) / timed - sum(host.values())},
        "launches": launches,
        "device_us": device_us,
        "kernels": kernels,
    }


def _start(core: EngineCore, lengths: Sequence[int], temperature: float, new: int) -> list[int]:
    params = SamplingParams(temperature=temperature, ignore_eos=True, max_tokens=new)
    groups = [core.prepare([10 + at % 10000 for at in range(length)], params) for length in lengths]
    for group in groups:
        core.add(str(group.rid), group, final_only=True)
    return [group.rid for group in groups]


def _stop(core: EngineCore, rids: list[int]) -> None:
    core.abort(rids)
    while core.has_work():
        core.step()


def _still_reading(core: EngineCore) -> bool:
    scheduler = core.scheduler
    return bool(scheduler.waiting) or any(r.num_computed < r.num_prompt_tokens for r in scheduler.running)


class _Phases:
    """Microseconds in the calls that a step is made of, while the context lasts."""

    def __init__(self, core: EngineCore):
        self.us: dict[str, float] = {}
        self._places = {
            "schedule": (core.scheduler, "schedule"),
            "submit": (core.runner, "submit"),
            "collect": (core.runner, "collect"),
            "update": (core.scheduler, "update"),
            "outputs": (core, "_outputs"),
        }

    def __enter__(self) -> _Phases:
        for name, (owner, method) in self._places.items():
            self.us[name] = 0.0
            setattr(owner, method, self._timed(name, getattr(owner, method)))
        return self

    def __exit__(self, *error: object) -> None:
        for owner, method in self._places.values():
            delattr(owner, method)  # the class's own is seen again

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.us[name] += (time.perf_counter() - start) * 1e6

        return timed


def _watch(core: EngineCore, device: str, steps: int) -> tuple[list[dict[str, Any]], float, float]:
    """The kernel table, launches per step, and device microseconds per step."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as watching:
        for _ in range(steps):
            core.step()
        _wait(device)
    found = [event for event in watching.key_averages() if (event.device_type == DeviceType.CUDA) == on_gpu]
    times = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in found}
    calls = {event.key: event.count for event in found}
    whole = sum(times.values())
    names = sorted(times, key=lambda name: -times[name])
    shown = [(name[:NAME_CHARS], calls[name], times[name]) for name in names[:ROWS]]
    if rest := names[ROWS:]:
        shown.append((f"{len(rest)} others", sum(calls[name] for name in rest), sum(times[name] for name in rest)))
    table = [
        {"name": name, "calls": count / steps, "us": us / steps, "share": us / whole if whole else 0.0}
        for name, count, us in shown
    ]
    return table, sum(calls.values()) / steps, whole / steps


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def profile_lines(profile: dict[str, Any]) -> list[str]:
    """The kernel table and the host's phases, as text."""
    per_launch = profile["step_us"] / profile["launches"] if profile["launches"] else 0.0
    return [
        f"{profile['tokens']} tokens a step, {profile['kv_tokens']} in the cache: {profile['step_us']:.0f} us a step, "
        f"{profile['launches']:.0f} launches ({per_launch:.2f} us each), device busy {profile['device_us']:.0f} us",
        *(
            f"  {row['us']:9.1f} us {row['share']:6.1%} {row['calls']:7.1f} x  {row['name']}"
            for row in profile["kernels"]
        ),
        "  host, us a step: " + ", ".join(f"{name} {us:.0f}" for name, us in profile["host_us"].items()),
    ]

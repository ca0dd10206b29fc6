"""``python -m minillm_serve.sched.bench``: what a step costs before and after the model runs, in milliseconds.

Times ``schedule()`` plus ``update()`` (scheduler and block manager; no model, no tensors) of steps in which every
running request decodes one token. Blocks fill and are hashed, published and allocated as they would be in service.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from random import Random
from typing import Any

from minillm_serve.kv.manager import KVManager
from minillm_serve.params import SamplingParams
from minillm_serve.plan import StepPlan, StepResult
from minillm_serve.request import Request
from minillm_serve.sched.scheduler import Scheduler

BLOCK_SIZE = 16


def running_scheduler(num_running: int, steps: int, prompt_tokens: int, prefix_caching: bool) -> Scheduler:
    """A scheduler whose requests have all read their prompts (of unequal lengths) and have ``steps`` tokens to go."""
    random = Random(0)
    longest = 2 * prompt_tokens + steps + 2
    kv = KVManager(num_running * -(-longest // BLOCK_SIZE), BLOCK_SIZE, enable_prefix_caching=prefix_caching)
    scheduler = Scheduler(kv, num_running, max_num_batched_tokens=2 * num_running * prompt_tokens)
    params = SamplingParams(max_tokens=steps + 2, ignore_eos=True)
    for rid in range(num_running):
        prompt = [random.randrange(50_000) for _ in range(random.randrange(1, 2 * prompt_tokens))]
        total = len(prompt) + steps + 2
        scheduler.add(Request(rid, prompt, len(prompt), params, total, frozenset([2]), seed=rid))
    plan = scheduler.schedule()
    scheduler.update(plan, sampled(plan))
    return scheduler


def sampled(plan: StepPlan) -> StepResult:
    """A runner's answer: one token for each request of the plan."""
    return StepResult({rid: (1000 + rid % 7,) for rid in plan.num_tokens})


def measure(
    num_running: int, steps: int = 500, prompt_tokens: int = 128, prefix_caching: bool = True
) -> dict[str, Any]:
    """Milliseconds of ``schedule`` + ``update`` per step: median, percentiles, and the two parts' medians."""
    scheduler = running_scheduler(num_running, steps, prompt_tokens, prefix_caching)
    planning, booking = [], []
    gc.collect()
    for _ in range(steps):
        start = time.perf_counter()
        plan = scheduler.schedule()
        planned = time.perf_counter()
        result = sampled(plan)
        answered = time.perf_counter()
        scheduler.update(plan, result)
        booking.append(1e3 * (time.perf_counter() - answered))
        planning.append(1e3 * (planned - start))
        assert len(plan.num_tokens) == num_running, "a step in which not everybody decodes"
    both = sorted(a + b for a, b in zip(planning, booking, strict=True))
    return {
        "running": num_running,
        "prefix_caching": prefix_caching,
        "steps": steps,
        "ms_min": both[0],
        "ms_median": both[steps // 2],
        "ms_p90": both[steps * 9 // 10],
        "ms_p99": both[steps * 99 // 100],
        "ms_schedule_median": sorted(planning)[steps // 2],
        "ms_update_median": sorted(booking)[steps // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--running", type=int, nargs="+", default=[1, 64, 256], help="numbers of running requests")
    parser.add_argument("--steps", type=int, default=500, help="decode steps measured for each")
    parser.add_argument("--no-prefix-caching", dest="prefix_caching", action="store_false")
    parser.add_argument("--json", help="write environment and results to this file")
    args = parser.parse_args()
    results = [measure(running, args.steps, prefix_caching=args.prefix_caching) for running in args.running]
    columns = ("running", "ms_min", "ms_median", "ms_p90", "ms_p99", "ms_schedule_median", "ms_update_median")
    print("  ".join(f"{name:>18}" for name in columns))
    for result in results:
        print("  ".join(f"{result[name]:>18.4g}" for name in columns))
    if args.json:
        environment = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"environment": environment, "results": results}, file, indent=2)


if __name__ == "__main__":
    main()

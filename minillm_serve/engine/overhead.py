"""``python -m minillm_serve.engine.overhead``: what a step costs outside the model, in milliseconds.

Scheduler, block manager and outputs (text, snapshots, stop strings) of the whole engine core, with a runner that
answers at once. ``offline``: nobody reads before the end (``LLM.generate``); ``streamed``: a snapshot a step for each.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from dataclasses import dataclass
from random import Random
from typing import Any

from minillm_serve.config import EngineConfig
from minillm_serve.engine.admission import Admission
from minillm_serve.engine.core import EngineCore
from minillm_serve.engine.grammars import GrammarCache
from minillm_serve.engine.scheduling import build_scheduler
from minillm_serve.model.config import ModelConfig
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model
from minillm_serve.model.tokenizer import Tokenizer
from minillm_serve.params import SamplingParams
from minillm_serve.plan import StepPlan, StepResult

WAYS = {
    "offline": (True, ()),
    "streamed": (False, ()),
    "streamed, stop strings": (False, ("\n\nUser:", "</answer>")),
}


@dataclass
class InstantRunner:
    """Answers a plan with the next tokens of a text, for each request at its own place in it."""

    text: list[int]
    seconds: float = 0.0

    def submit(self, plan: StepPlan) -> StepPlan:
        return plan

    def collect(self, plan: StepPlan) -> StepResult:
        start = time.perf_counter()
        place = 37 * plan.step
        tokens = {rid: (self.text[(place + 101 * rid) % len(self.text)],) for rid in plan.num_tokens}
        self.seconds = time.perf_counter() - start
        return StepResult(tokens)


def measure(model: str, way: str, num_running: int, steps: int) -> dict[str, Any]:
    """Milliseconds per step in which ``num_running`` requests decode one token each."""
    final_only, stop = WAYS[way]
    folder = resolve_model(model)
    tokenizer = Tokenizer.from_folder(folder, ModelConfig.from_folder(folder).eos_token_ids)
    config = EngineConfig(model=model, max_num_seqs=num_running, max_num_batched_tokens=300 * num_running)
    num_blocks = num_running * (300 + steps) // config.block_size
    admission = Admission(
        tokenizer,
        GrammarCache(tokenizer, tokenizer.vocab_size),
        tokenizer.vocab_size,
        max_model_len=300 + steps,
        kv_tokens=num_blocks * config.block_size,
        config=config,
    )
    runner = InstantRunner(tokenizer.encode("Once upon a time there was a small engine. Y había un motor 🙂. " * 8))
    core = EngineCore(admission, build_scheduler(config, num_blocks), runner)
    random = Random(0)
    params = SamplingParams(max_tokens=steps + 2, ignore_eos=True, stop=stop)
    for number in range(num_running):
        prompt = [random.randrange(tokenizer.vocab_size) for _ in range(random.randrange(1, 256))]
        core.add(str(number), core.prepare(prompt, params), final_only=final_only)
    core.step()
    gc.collect()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        core.step()
        times.append(1e3 * (time.perf_counter() - start - runner.seconds))
    times.sort()
    return {
        "way": way,
        "running": num_running,
        "steps": steps,
        "ms_min": times[0],
        "ms_median": times[steps // 2],
        "ms_p90": times[steps * 9 // 10],
        "ms_p99": times[steps * 99 // 100],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="whose tokenizer to use (default: %(default)s)")
    parser.add_argument("--running", type=int, nargs="+", default=[1, 64, 256], help="numbers of running requests")
    parser.add_argument("--steps", type=int, default=300, help="decode steps measured for each")
    parser.add_argument("--json", help="write environment and results to this file")
    args = parser.parse_args()
    results = [measure(args.model, way, running, args.steps) for way in WAYS for running in args.running]
    columns = ("running", "ms_min", "ms_median", "ms_p90", "ms_p99")
    print("".join([f"{'':24}", *(f"{name:>12}" for name in columns)]))
    for result in results:
        print("".join([f"{result['way']:24}", *(f"{result[name]:>12.4g}" for name in columns)]))
    if args.json:
        environment = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"environment": environment, "results": results}, file, indent=2)


if __name__ == "__main__":
    main()

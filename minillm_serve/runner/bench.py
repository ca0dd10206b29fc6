"""``python -m minillm_serve.runner.bench``: what a step costs around the model.

The batch: layout, settings and booking of a step in which every row decodes one token. The sampler: a step's draws
under each setting, beside the full sort that it does without. Logits follow Zipf's law, from flat in the first row to
peaked in the last.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit, StepPlan
from minillm_serve.runner.batch import PersistentBatch
from minillm_serve.sample.sampler import sample

BLOCK_SIZE = 16
PROMPT_TOKENS = 128
PLAIN = SamplingParams(temperature=0, max_tokens=None)
SAMPLING: dict[str, SamplingParams] = {
    "greedy": PLAIN,
    "temperature 1": SamplingParams(temperature=1.0),
    "top_k 50": SamplingParams(top_k=50),
    "top_p 0.9": SamplingParams(top_p=0.9),
    "top_k 50, top_p 0.9": SamplingParams(top_k=50, top_p=0.9),
    "min_p 0.05": SamplingParams(min_p=0.05),
    "typical_p 0.9": SamplingParams(typical_p=0.9),
}


def timed(call: Callable[[], Any], repetitions: int) -> dict[str, float]:
    """Milliseconds of one call, after one that does not count."""
    call()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    return {"ms_min": min(taken), "ms_median": median(taken)}


def filled(rows: int, params: SamplingParams, steps: int = 0) -> PersistentBatch:
    """A batch whose requests have read their prompts and have room for ``steps`` tokens more."""
    batch = PersistentBatch(rows, PROMPT_TOKENS + steps + 2, BLOCK_SIZE)
    prompt = tuple(range(PROMPT_TOKENS))
    inits = tuple(RequestInit(rid, prompt, PROMPT_TOKENS, params, seed=rid) for rid in range(rows))
    blocks = {rid: tuple(range(PROMPT_TOKENS // BLOCK_SIZE)) for rid in range(rows)}
    plan = StepPlan(0, dict.fromkeys(range(rows), PROMPT_TOKENS), inits, blocks)
    laid_out = batch.apply(plan)
    batch.advance(laid_out)
    batch.book(laid_out, np.zeros(rows, np.int64))
    return batch


def measure_batch(rows: int, params: SamplingParams, steps: int, vocab_size: int) -> dict[str, float]:
    """apply, settings, edits and book of one decode step; a sixteenth of the rows get a block in each."""
    batch = filled(rows, params, steps + 1)
    sampled, step = np.full(rows, 7), iter(range(steps + 1))

    def one_step() -> None:
        now = next(step)
        blocks = {rid: (now,) for rid in range(rows) if (rid + now) % BLOCK_SIZE == 0}
        laid_out = batch.apply(StepPlan(now, dict.fromkeys(range(rows), 1), new_blocks=blocks))
        at = laid_out.rows[laid_out.sampling]
        batch.sampling.settings(at, batch.num_tokens[at])
        batch.sampling.edits(at, vocab_size)
        batch.advance(laid_out)
        batch.book(laid_out, sampled)

    return timed(one_step, steps)


def zipf_logits(rows: int, vocab_size: int) -> Tensor:
    """[rows, vocab_size]: p proportional to rank^-s, s from 1.2 (flat) to 2.2 (peaked), tokens in random order."""
    generator = torch.Generator().manual_seed(0)
    ranks = torch.stack([torch.randperm(vocab_size, generator=generator) for _ in range(rows)])
    return -torch.linspace(1.2, 2.2, rows).unsqueeze(1) * (ranks + 1).float().log()


def measure_sampler(logits: Tensor, params: SamplingParams, repetitions: int) -> dict[str, float]:
    state = filled(len(logits), params).sampling
    rows = np.arange(len(logits))
    settings = state.settings(rows, np.full(len(logits), PROMPT_TOKENS))
    taken = timed(lambda: sample(logits, settings), repetitions)
    return taken | {"us_per_row": 1e3 * taken["ms_median"] / len(logits)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 256], help="sequences in a step")
    parser.add_argument("--vocab-size", type=int, default=49_152)
    parser.add_argument("--steps", type=int, default=300, help="repetitions; the sampler takes a tenth of them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="also write the results here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    for rows in args.rows:
        logits = zipf_logits(rows, args.vocab_size)
        cells = {
            "batch, plain": measure_batch(rows, PLAIN, args.steps, args.vocab_size),
            "batch, penalties": measure_batch(
                rows, SamplingParams(presence_penalty=1.0, max_tokens=None), args.steps, args.vocab_size
            ),
        }
        for name, params in SAMPLING.items():
            cells[f"sample, {name}"] = measure_sampler(logits, params, max(args.steps // 10, 3))
        cells["full sort"] = timed(lambda logits=logits: logits.sort(-1, descending=True), 3)
        for name, taken in cells.items():
            results.append({"rows": rows, "cell": name, **taken})
            print(f"{rows:4d} rows  {name:28s} median {taken['ms_median']:9.3f} ms  min {taken['ms_min']:9.3f} ms")
    if args.json:
        environment = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": args.threads,
            "vocab_size": args.vocab_size,
        }
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"environment": environment, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()

"""Each fast CPU op beside its reference, on the shapes of SmolLM2-135M: ``python -m minillm_kernels.bench``.

Prints milliseconds for the 30 layers of one step and the ratio; reference and fast version alternate, medians are
shown. The rows that mattered are kept in LEDGER.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from minillm_kernels.ops import Ops, resolve

LAYERS, HIDDEN, INNER, HEADS, GROUPS, DIM, BLOCK = 30, 576, 1536, 9, 3, 64, 16
PROJECTIONS = ((HIDDEN, (HEADS + 2 * GROUPS) * DIM), (HEADS * DIM, HIDDEN), (HIDDEN, 2 * INNER), (INNER, HIDDEN))
Step = Callable[[], object]


def linear_step(ops: Ops, rows: int) -> Step:
    """All projections of one step over ``rows`` tokens; every layer has weights of its own, as in a model."""
    weights = [[ops.pack_linear(torch.randn(n_out, n_in)) for n_in, n_out in PROJECTIONS] for _ in range(LAYERS)]
    inputs = [torch.randn(rows, n_in) for n_in, _ in PROJECTIONS]
    return lambda: [ops.linear(x, w, None) for layer in weights for x, w in zip(inputs, layer, strict=True)]


def attention_step(ops: Ops, sequences: int, length: int, queries: int) -> Step:
    """Attention of all layers: ``queries`` new tokens of each sequence over ``length`` tokens in shuffled blocks."""
    per_sequence = -(-length // BLOCK)
    tables = torch.randperm(sequences * per_sequence).view(sequences, -1)
    cache = torch.randn(sequences * per_sequence, BLOCK, 2, GROUPS, DIM)
    q = torch.randn(sequences * queries, HEADS, DIM)

    def step() -> list[torch.Tensor]:
        plan = ops.plan_attention(tables, [length] * sequences, [queries] * sequences, BLOCK)
        return [ops.attention(q, cache, plan) for _ in range(LAYERS)]

    return step


CELLS: dict[str, Callable[[Ops], Step]] = {
    **{f"linear, {rows} rows": (lambda ops, rows=rows: linear_step(ops, rows)) for rows in (1, 8, 50, 512)},
    "attention, 1 decode over 512 tokens": lambda ops: attention_step(ops, 1, 512, 1),
    "attention, 50 decodes over 100 tokens": lambda ops: attention_step(ops, 50, 100, 1),
    "attention, a 512-token prompt": lambda ops: attention_step(ops, 1, 512, 512),
}


@torch.inference_mode()
def measure(cell: Callable[[Ops], Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat, by backend. The backends take turns; the first turn of each is discarded."""
    steps = {name: cell(resolve(name)) for name in ("ref", "cpu")}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m minillm_kernels.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="timed turns of each backend (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    args = parser.parse_args()
    if args.repeats < 1 or args.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, median (lowest to highest) of {args.repeats}, ms")
    for title, cell in CELLS.items():
        times = measure(cell, args.repeats)
        ref, cpu = (statistics.median(times[name]) for name in ("ref", "cpu"))
        spread = {name: f"{min(t) * 1e3:.1f} to {max(t) * 1e3:.1f}" for name, t in times.items()}
        print(
            f"{title:40s} ref {ref * 1e3:8.1f} ({spread['ref']})   cpu {cpu * 1e3:8.1f} ({spread['cpu']})"
            f"   {ref / cpu:.2f}x"
        )


if __name__ == "__main__":
    main()

"""Each fast CPU op beside its reference, on the shapes of SmolLM2-135M: ``python -m minillm_kernels.bench``.

Prints milliseconds for the 30 layers of one step, backends in turns, median (lowest to highest), and what the machine
can do at most. ``--json FILE`` keeps them. The rows that mattered are in LEDGER.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from minillm_kernels.cpu.build import library
from minillm_kernels.limits import measure_limits
from minillm_kernels.ops import Ops, resolve

LAYERS, HIDDEN, INNER, HEADS, GROUPS, DIM, BLOCK = 30, 576, 1536, 9, 3, 64, 16
PROJECTIONS = ((HIDDEN, (HEADS + 2 * GROUPS) * DIM), (HEADS * DIM, HIDDEN), (HIDDEN, 2 * INNER), (INNER, HIDDEN))
Step = Callable[[], object]
Cell = Callable[[Ops], Step]


def linear_step(ops: Ops, rows: int, int8: bool = False, bf16_values: bool = False) -> Step:
    """All projections of one step over ``rows`` tokens; every layer has weights of its own, as in a model.

    bf16_values: fp32 weights as a bf16 checkpoint gives them, whose last 16 bits are zero.
    """
    pack, linear = (ops.pack_linear_int8, ops.linear_int8) if int8 else (ops.pack_linear, ops.linear)

    def weight(n_out: int, n_in: int) -> torch.Tensor:
        values = torch.randn(n_out, n_in)
        return values.bfloat16().float() if bf16_values else values

    weights = [[pack(weight(n_out, n_in)) for n_in, n_out in PROJECTIONS] for _ in range(LAYERS)]
    inputs = [torch.randn(rows, n_in) for n_in, _ in PROJECTIONS]
    return lambda: [linear(x, w, None) for layer in weights for x, w in zip(inputs, layer, strict=True)]


def attention_step(ops: Ops, sequences: int, length: int, queries: int, int8: bool = False) -> Step:
    """Attention of all layers: the last ``queries`` of ``length`` tokens of each sequence are new; shuffled blocks."""
    per_sequence = -(-length // BLOCK)
    tables = torch.randperm(sequences * per_sequence).view(sequences, -1)
    places = torch.arange(length)
    slots = tables[:, places // BLOCK] * BLOCK + places % BLOCK
    caches = ops.make_kv_cache(LAYERS, tables.numel(), BLOCK, GROUPS, DIM, torch.float32, int8)
    k, v = torch.randn(2, slots.numel(), GROUPS, DIM)
    for cache in caches:
        ops.write_kv(k, v, cache, slots.flatten())
    new = slots[:, length - queries :].flatten()
    q, k, v = torch.randn(len(new), HEADS, DIM), k[: len(new)], v[: len(new)]

    def step() -> list[torch.Tensor]:
        plan = ops.plan_attention(tables, [length] * sequences, [queries] * sequences, BLOCK)
        return [ops.attend(q, k, v, cache, new, plan, DIM**-0.5, 0) for cache in caches]

    return step


def pointwise_step(ops: Ops, rows: int) -> Step:
    """Both norms, the rotary embedding and the gated activation of all layers over ``rows`` tokens."""
    x, residual, weight = torch.randn(rows, HIDDEN), torch.randn(rows, HIDDEN), torch.randn(HIDDEN)
    qkv, gate_up = torch.randn(LAYERS, rows, HEADS + 2 * GROUPS, DIM), torch.randn(rows, 2 * INNER)
    cos, sin = torch.randn(2, rows, DIM // 2)

    def layer(index: int) -> list[torch.Tensor]:
        return [
            ops.add_rms_norm(x, residual.clone(), weight, 1e-5)[0],
            ops.rope(qkv[index, :, : HEADS + GROUPS], cos, sin),
            ops.add_rms_norm(x, residual.clone(), weight, 1e-5)[0],
            ops.silu_mul(gate_up),
        ]

    return lambda: [layer(index) for index in range(LAYERS)]


CELLS: dict[str, Cell] = {
    **{f"linear, {rows} rows": (lambda ops, rows=rows: linear_step(ops, rows)) for rows in (1, 8, 50, 512)},
    **{
        f"linear, bf16 values, {rows} rows": (lambda ops, rows=rows: linear_step(ops, rows, bf16_values=True))
        for rows in (1, 8, 50, 512)
    },
    **{f"linear int8, {rows} rows": (lambda ops, rows=rows: linear_step(ops, rows, True)) for rows in (1, 8, 50, 512)},
    "attention, 1 decode over 512 tokens": lambda ops: attention_step(ops, 1, 512, 1),
    "attention, 50 decodes over 100 tokens": lambda ops: attention_step(ops, 50, 100, 1),
    "attention, a 512-token prompt": lambda ops: attention_step(ops, 1, 512, 512),
    "attention int8 KV, 1 decode over 512 tokens": lambda ops: attention_step(ops, 1, 512, 1, True),
    "attention int8 KV, 50 decodes over 100 tokens": lambda ops: attention_step(ops, 50, 100, 1, True),
    "attention int8 KV, a 512-token prompt": lambda ops: attention_step(ops, 1, 512, 512, True),
    **{f"norms, rope, silu, {rows} rows": (lambda ops, rows=rows: pointwise_step(ops, rows)) for rows in (1, 50, 512)},
}


def backends() -> list[str]:
    return ["ref", "torch", *(["cpp"] if library() is not None else [])]


@torch.inference_mode()
def measure(cell: Cell, repeats: int, names: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of each repeat, by backend. The backends take turns; the first turn of each is discarded."""
    steps = {name: cell(resolve(name)) for name in names}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def kv_error(length: int = 512, seed: int = 0) -> float:
    """Relative error (Euclidean norm) that an int8 KV cache brings to attention over normally distributed tokens."""
    ops, outputs = resolve("auto"), []
    for int8 in (False, True):
        torch.manual_seed(seed)
        outputs.append(torch.stack(attention_step(ops, 1, length, length, int8)()))
    return float((outputs[1] - outputs[0]).norm() / outputs[0].norm())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m minillm_kernels.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="timed turns of each backend (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--only", default="", help="only the cells whose title contains this")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    cells = {title: cell for title, cell in CELLS.items() if args.only in title}
    if not cells:
        parser.error(f"no cell's title contains {args.only!r}; there are: {'; '.join(CELLS)}")
    torch.set_num_threads(args.threads)
    limits = measure_limits()
    print(f"torch {torch.__version__}; {limits}\nmedian (lowest to highest) of {args.repeats}, ms")
    results = []
    for title, cell in cells.items():
        times = measure(cell, args.repeats, backends())
        medians = {name: statistics.median(seconds) for name, seconds in times.items()}
        results += [
            {"cell": title, "backend": name, "ms": [round(t * 1e3, 4) for t in seconds]}
            for name, seconds in times.items()
        ]
        columns = (
            f"{name} {medians[name] * 1e3:8.2f} ({min(t) * 1e3:.2f} to {max(t) * 1e3:.2f})" for name, t in times.items()
        )
        print(f"{title:46s} {'   '.join(columns)}   {medians['ref'] / medians[backends()[-1]]:.2f}x", flush=True)
    error = kv_error()
    print(f"int8 KV cache, relative error of the attention output (random normal tokens): {error:.4%}")
    if args.json:
        data = {"torch": torch.__version__, "limits": asdict(limits), "kv_int8_error": error, "results": results}
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

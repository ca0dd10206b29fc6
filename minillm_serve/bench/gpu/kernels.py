"""The Triton ops one by one: how long each takes within a CUDA graph, how near to the device's limit, beside torch.

A row: ``{"op", "shape", "us", "gb_s" or "tflop_s", "share_of_limit", "baseline_us", "ratio", "baseline"}``: the median
time of one call, the rate of whichever of bytes and arithmetic is the bound, the least time that the limits allow over
the time taken, and what torch takes for the same (ratio: how many times longer). ``error`` stands for figures that
could not be had. Operands that a model would read from memory (weights, keys, values) come in as many copies as it
takes to find them outside the L2 cache.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from minillm_serve.bench.gpu.limits import Limits

if TYPE_CHECKING:
    import torch

    from minillm_serve.bench.gpu.op_case import Call, OpCase

ALWAYS = "decode attention"  # the rows that go with every measurement of the engine
MIN_CALLS = 16  # in one graph, so that the time of a short op is well above the clock's grain


def measure_kernels(
    device: torch.device,
    limits: Limits,
    say: Callable[[dict[str, Any]], None],
    shapes: Mapping[str, Mapping[str, Any]],
    only: str,
) -> None:
    """Measure every case of every shape whose title contains ``only``; ``say`` gets each row as it is known."""
    import torch

    for case in all_cases(shapes, device):
        if only in case.title:
            with torch.inference_mode():
                say(_measured(case, device, limits))
            gc.collect()


def all_cases(shapes: Mapping[str, Mapping[str, Any]], device: torch.device) -> Iterator[OpCase]:
    """Every op of one shape, then those of the next. shapes: name -> config.json."""
    from minillm_serve.bench.gpu.attention_cases import decodes, prompts, ropes
    from minillm_serve.bench.gpu.edit_cases import bookkeeping, edits
    from minillm_serve.bench.gpu.linear_cases import linears, loras, quantized_linears
    from minillm_serve.bench.gpu.op_case import Model
    from minillm_serve.bench.gpu.row_cases import activations, cutoffs, draws, norms

    attention, products = (decodes, prompts, ropes), (linears, quantized_linears, loras)
    kinds = (*attention, *products, norms, activations, draws, cutoffs, edits, bookkeeping)
    for name, config in shapes.items():
        model = Model.of(name, config, device)
        for cases in kinds:
            yield from cases(model)


def _measured(case: OpCase, device: torch.device, limits: Limits) -> dict[str, Any]:
    row: dict[str, Any] = {"op": case.op, "shape": case.shape}
    try:
        us = _call_us(case.ours(), case, device)
    except Exception as error:
        return row | {"error": _short(error)}
    byte_us, flop_us = case.moved / limits.copy_gb_s / 1e3, case.flops / limits.matmul_tflop_s / 1e6
    rate = {"gb_s": case.moved / us / 1e3} if byte_us >= flop_us else {"tflop_s": case.flops / us / 1e6}
    row |= {"us": us, **rate, "share_of_limit": max(byte_us, flop_us) / us, "baseline": case.baseline}
    try:
        baseline_us = _call_us(case.torch(), case, device)
    except Exception as error:
        return row | {"baseline_us": None, "ratio": None, "error": f"torch: {_short(error)}"}
    return row | {"baseline_us": baseline_us, "ratio": baseline_us / us}


def _call_us(call: Call, case: OpCase, device: torch.device) -> float:
    """Microseconds of one call, of those that follow one another in a graph."""
    from minillm_serve.bench.gpu.timing import median_us

    rounds = -(-MIN_CALLS // case.copies) if device.type == "cuda" else 1

    def calls() -> None:
        for _ in range(rounds):
            for copy in range(case.copies):
                call(copy)  # its output is dropped at once: the next one takes its place

    return median_us(calls, device, repeats=15 if device.type == "cuda" else 1) / (rounds * case.copies)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[-300:]}"


def row_line(row: dict[str, Any]) -> str:
    """A row as text."""
    title = f"{row['op']:24s} {row['shape']:34s}"
    if "us" not in row:
        return f"{title} {row['error']}"
    rate = f"{row['gb_s']:7.0f} GB/s  " if "gb_s" in row else f"{row['tflop_s']:7.0f} TFLOP/s"
    line = f"{title} {row['us']:9.2f} us {rate} {row['share_of_limit']:6.1%}"
    if row["ratio"] is None:
        return f"{line}  {row['error']}"
    return f"{line}  {row['baseline']} {row['baseline_us']:9.2f} us, {row['ratio']:.2f} x"

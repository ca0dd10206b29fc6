"""How long a call takes on the device: replays of a CUDA graph between events, so that no launch from Python counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from statistics import median

import torch

UNTIMED = 3  # replays before the timed ones: clocks rise, caches reach the state of a long run
ENOUGH_US = 200_000  # of timed replays; what is long needs fewer of them


def median_us(call: Callable[[], object], device: torch.device, repeats: int = 15) -> float:
    """Microseconds of ``call``, the median of up to ``repeats``, 3 at least. On a CPU by the clock, without a graph."""
    if device.type != "cuda":
        call()
        return median(_clocked(call) for _ in range(repeats))
    graph = captured(call)
    untimed = median(_replayed(graph) for _ in range(UNTIMED))
    return median(_replayed(graph) for _ in range(max(3, min(repeats, int(ENOUGH_US / untimed)))))


def captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """``call`` as a CUDA graph; it has run before the capture, so that kernels are compiled and workspaces made."""
    stream = _stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph


@cache
def _stream() -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace for each stream that it has seen."""
    return torch.cuda.Stream()


def _replayed(graph: torch.cuda.CUDAGraph) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3


def _clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6

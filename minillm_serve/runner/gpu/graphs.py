"""CUDA graphs of a step: one per batch size of a short list, captured at start, all in one pool of memory.

Launching a step of 32 layers takes the host some 300 calls; replaying it takes one. A graph repeats addresses and
numbers exactly as they were captured, so everything that differs between steps is in device memory (see decode.py).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Protocol

import torch

WARM_UPS = 2  # launches before the capture: kernels are compiled, and cuBLAS takes its workspace


VERIFIED_AT_ONCE = 64  # tokens: as many as a small engine's batches may have with their drafts, and still be captured


class Launches(Protocol):
    """A step over static buffers (decode.py, draft_step.py)."""

    def launch(self, size: int) -> Any:
        """The whole step over inputs that were sent before; returns what it leaves behind, in static memory."""
        ...


def batch_sizes(max_num_seqs: int, num_drafts: int = 0) -> list[int]:
    """In steps of 8, which the products' kernels are made for, up to 256; of 32 above. With drafts, one request's
    tokens are few and exact, and those of ``max_num_seqs`` requests together may be more than these."""
    most = max(max_num_seqs, min(max_num_seqs * (1 + num_drafts), VERIFIED_AT_ONCE))
    exact = range(1, min(1 + num_drafts, 8) + 1)
    sizes = sorted({1, 2, 4, *exact, *range(8, 256, 8), *range(256, most, 32)})
    return [*(size for size in sizes if size < most), most]


class DecodeGraphs:
    """Runs steps of up to the largest of ``sizes`` sequences. eager: launch every kernel anew."""

    def __init__(self, step: Launches, sizes: list[int], eager: bool):
        self.step, self.sizes, self.eager = step, sizes, eager
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Any]] = {}

    def size_for(self, num_seqs: int) -> int:
        """The smallest batch size that holds them."""
        return self.sizes[bisect_left(self.sizes, num_seqs)]

    @torch.inference_mode()
    def capture(self, pool: Any = None) -> None:
        """Record every size, the largest first: the smaller ones fit into its memory. pool: of graphs captured before,
        whose results nobody reads any more when one of these runs; None: one of its own."""
        if self.eager:
            return
        pool = pool or torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        for size in reversed(self.sizes):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self.step.launch(size)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                drawn = self.step.launch(size)
            self._graphs[size] = graph, drawn
        torch.cuda.synchronize()

    def run(self, size: int) -> Any:
        """One step over the inputs that are on their way to the device: what ``launch`` returns."""
        if self.eager:
            return self.step.launch(size)
        graph, drawn = self._graphs[size]
        graph.replay()
        return drawn

"""CUDA graphs of the decode step: one per batch size of a short list, captured at start, all in one pool of memory.

Launching a step of 32 layers takes the host some 300 calls; replaying it takes one. A graph repeats addresses and
numbers exactly as they were captured, so everything that differs between steps is in device memory (see decode.py).
"""

from __future__ import annotations

from bisect import bisect_left

import torch

from minillm_serve.runner.gpu.decode import DecodeStep, Drawn

WARM_UPS = 2  # launches before the capture: kernels are compiled, and cuBLAS takes its workspace


def batch_sizes(max_num_seqs: int) -> list[int]:
    """In steps of 8, which the products' kernels are made for, up to 256; of 32 above."""
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, max_num_seqs, 32)]
    return [*(size for size in sizes if size < max_num_seqs), max_num_seqs]


class DecodeGraphs:
    """Runs decode steps of up to the largest of ``sizes`` sequences. eager: launch every kernel anew."""

    def __init__(self, step: DecodeStep, sizes: list[int], eager: bool):
        self.step, self.sizes, self.eager = step, sizes, eager
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Drawn]] = {}

    def size_for(self, num_seqs: int) -> int:
        """The smallest batch size that holds them."""
        return self.sizes[bisect_left(self.sizes, num_seqs)]

    @torch.inference_mode()
    def capture(self) -> None:
        """Record every size, the largest first: the smaller ones fit into its memory."""
        if self.eager:
            return
        pool = torch.cuda.graph_pool_handle()
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

    def run(self, size: int) -> Drawn:
        """One step over the inputs that are on their way to the device."""
        if self.eager:
            return self.step.launch(size)
        graph, drawn = self._graphs[size]
        graph.replay()
        return drawn

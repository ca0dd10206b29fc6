"""What this machine can do at most, measured: bytes read, fp32 and int8 arithmetic in matrix products, all threads.

A kernel's GB/s or GFLOP/s says something only beside these: ``python -m minillm_kernels.bench`` prints both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

READ_BYTES = 512 << 20  # beyond any cache
SIDE = 2048  # of the matrices
REPEATS = 5


@dataclass(frozen=True)
class Limits:
    """Rates with ``threads`` threads: GB/s read from memory, fp32 GFLOP/s, int8 GOP/s (a multiply-add counts two)."""

    threads: int
    read_gb_s: float
    fp32_gflop_s: float
    int8_gop_s: float

    def __str__(self) -> str:
        return (
            f"{self.threads} threads: reads {self.read_gb_s:.1f} GB/s, fp32 {self.fp32_gflop_s:.0f} GFLOP/s, "
            f"int8 {self.int8_gop_s:.0f} GOP/s"
        )


@torch.inference_mode()
def measure_limits() -> Limits:
    """Takes about two seconds and 0.5 GiB; the best of a few repeats of each."""
    operations = 2 * SIDE**3
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    codes = torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8)
    memory = torch.ones(READ_BYTES // 4)
    return Limits(
        torch.get_num_threads(),
        READ_BYTES / fastest(memory.sum) / 1e9,
        operations / fastest(lambda: a @ b) / 1e9,
        operations / fastest(lambda: torch._int_mm(codes, codes)) / 1e9,
    )


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest run; one more goes before, unmeasured."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    print(measure_limits())

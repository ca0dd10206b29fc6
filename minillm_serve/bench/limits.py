"""The machine's measured limits, taken in the same run as the figures they stand beside, in a process of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from minillm_serve.bench.child import Progress, child_main, run_child


def limits_of_machine(threads: int, progress: Progress) -> dict[str, float]:
    """``read_gb_s`` (10^9 bytes), ``fp32_gflop_s``, ``int8_gop_s``, with ``threads`` threads. Raises ChildError."""
    return run_child("minillm_serve.bench.limits", {"threads": threads}, progress)


def _measure(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    import torch

    from minillm_kernels.limits import measure_limits

    torch.set_num_threads(job["threads"])
    progress("measuring the machine's limits")
    return asdict(measure_limits())


if __name__ == "__main__":
    child_main(_measure)

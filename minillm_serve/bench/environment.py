"""The environment beside every number: hardware, threads, versions, commit. Nothing that names a person or a path."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "minillm-serve",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "openai",
    "fastapi",
    "uvicorn",
    "jsonschema",
)


def available_cores() -> int:
    """Cores this process may use (a container often has fewer than the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_environment(threads: int, dtype: str) -> dict[str, Any]:
    """Everything a reader needs to place a figure measured on this machine, as plain JSON values."""
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "threads": threads,
        "dtype": dtype,
        "memory_gib": memory_gib(),
        "os": f"{platform.system()} {platform.release().partition('-')[0]} ({platform.machine()})",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "git_commit": git_commit(),
    }


def cpu_model() -> str:
    """Marketing name of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def memory_gib() -> float | None:
    """Physical memory in GiB, or None where the system does not tell through ``sysconf`` (Windows)."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory_mib() -> float:
    """Largest resident memory of this process since it began, in MiB (0 where the system does not tell: Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def git_commit() -> str | None:
    """Commit of the source tree this package runs from, «+changes» when the tree differs; None outside a clone."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _output("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _output("git", "-C", str(root), "status", "--porcelain") else "")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""How many KV blocks the device can hold: as many as were asked for, or what its memory leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from minillm_serve.config import ConfigError, EngineConfig

FREE_MEMORY_SHARE = 0.4  # the rest is for activations, other programs and the page cache
UNKNOWN_FREE_BYTES = 4 << 30
CGROUP = Path("/sys/fs/cgroup")


def num_kv_blocks(
    config: EngineConfig, bytes_per_token: int, max_model_len: int, spare_bytes: Callable[[], int]
) -> int:
    """Size of the pool. Raises :class:`ConfigError` when not even one block fits.

    spare_bytes: what the device can give, asked only where nothing else says it. Chosen from it, the pool never exceeds
    what ``max_num_seqs`` sequences of full length could use.
    """
    if config.num_kv_blocks is not None:
        return config.num_kv_blocks
    block_bytes = bytes_per_token * config.block_size
    if config.kv_cache_memory_bytes is not None:
        blocks = config.kv_cache_memory_bytes // block_bytes
        told = f"kv_cache_memory_bytes {config.kv_cache_memory_bytes}"
    else:
        free = spare_bytes()
        useful = config.max_num_seqs * -(-max_model_len // config.block_size)
        blocks = min(free // block_bytes, useful)
        told = f"the {free} bytes that this machine can spare (give num_kv_blocks or kv_cache_memory_bytes)"
    if blocks < 1:
        raise ConfigError(f"{told} cannot hold one KV block of {block_bytes} bytes")
    return blocks


def spare_host_bytes() -> int:
    """A CPU engine's share of the memory that is free."""
    return int(available_bytes() * FREE_MEMORY_SHARE)


def available_bytes() -> int:
    """Memory that can be taken without swapping, within this process's control group where it has a limit."""
    return min(_system_available(), _cgroup_available())


def _system_available() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:  # macOS tells only the total
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_FREE_BYTES


def _cgroup_available() -> int:
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in (limit_name, used_name))
        except (OSError, ValueError):  # absent, or "max"
            continue
        return max(0, limit - used)
    return 1 << 62

"""Memory for packed weights on huge pages: a step streams all of them, and with 4 KiB pages it waits for page walks.

Weights are smaller than a huge page (2 MiB) or little larger, so they share chunks that the system is asked to back
with huge pages. A chunk is freed when the last tensor in it is.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import threading

import torch
from torch import Tensor

CHUNK = 64 << 20
CACHE_LINE = 64

_lock = threading.Lock()
_chunk: Tensor = torch.empty(0, dtype=torch.uint8)
_used = 0


def weight_memory(*shape: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on a cache line's edge, beside the ones made before it."""
    global _chunk, _used
    size = math.prod(shape) * dtype.itemsize
    with _lock:
        if _used + size > len(_chunk):
            _chunk, _used = _new_chunk(max(size, CHUNK)), 0
        start, _used = _used, _used + -(-size // CACHE_LINE) * CACHE_LINE
        return _chunk[start : start + size].view(dtype).view(shape)


def _new_chunk(size: int) -> Tensor:
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, size, **private)  # shared memory, the default, gets no huge pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages: the weights work all the same
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)

"""What must hold after any attack: the server is alive, answers, holds nothing back, and has given its memory back."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from live_server import LiveServer, wait_until

LINUX = sys.platform == "linux"
MOST_MIB = 20


class MemoryKept(AssertionError):
    """More than ``MOST_MIB`` were not given back."""


@contextmanager
def survives(server: LiveServer) -> Iterator[None]:
    """Everything in the block is over when it ends. The server is in this process, so its memory is ours."""
    assert server.complete()["usage"]["completion_tokens"] == 4
    memory, descriptors = resident_mib(), open_descriptors(server)
    yield
    assert server.http.get("/health").status_code == 200
    assert server.complete()["usage"]["completion_tokens"] == 4
    wait_until(server.idle)
    assert not server.engine._streams
    queue = server.app.state.limits.queue
    assert (queue.sequences, queue.preparing) == (0, 0)
    wait_until(lambda: open_descriptors(server) <= descriptors + 2)
    try:
        wait_until(lambda: resident_mib() < memory + MOST_MIB)
    except AssertionError:
        raise MemoryKept(f"{resident_mib() - memory:.0f} MiB") from None


def survives_again(server: LiveServer, attack: Callable[[int], None], times: int = 4) -> None:
    """``attack(0)``, ``attack(1)`` ... until one keeps no memory. What is leaked grows each time; what caches and the
    allocator's arenas keep for the next large request does not.
    """
    for number in range(times):
        try:
            with survives(server):
                attack(number)
            return
        except MemoryKept:
            if number == times - 1:
                raise


def resident_mib() -> float:
    """Memory of this process in MiB, with what is merely kept for later given back first; 0 where it is not told."""
    gc.collect()
    if not LINUX:
        return 0.0
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_descriptors(server: LiveServer) -> int:
    """Those of this process, less both ends of the connections that the client keeps for later; 0 where not told."""
    return len(os.listdir("/proc/self/fd")) - 2 * len(server._server.server_state.connections) if LINUX else 0

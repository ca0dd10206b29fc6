"""Watches a worker from outside: the memory of its processes, the number of its files, and the end of them all."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from minilab_grading.arnes.recinto import SCRATCH, SCRATCH_FILES, TEMPORARY

PERIOD_S = 0.1
MEMORY_BYTES = 3 << 29
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Watchdog(threading.Thread):
    """Kills the tree below the process ids that ``roots`` gives as soon as it takes more than it may.

    memory: bytes of resident memory, summed process by process (pages that a fork shares count in each). A file in
    memory costs the kernel more than its bytes, and not every rung can limit their number: this does.
    reason: empty, or why it killed, in Spanish for the student.
    """

    def __init__(self, roots: Callable[[], list[int]], memory: int = MEMORY_BYTES):
        super().__init__(name="vigilante", daemon=True)
        self.reason = ""
        self._roots, self._memory = roots, memory
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(PERIOD_S):
            roots = self._roots()
            processes = tree(roots)
            if sum(resident(pid) for pid in processes) > self._memory:
                self.reason = "superó la memoria permitida"
            elif max(map(files_in_memory, processes)) > 2 * SCRATCH_FILES:
                self.reason = "creó demasiados archivos"
            if self.reason:
                kill_tree(roots)
                return

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def tree(roots: list[int]) -> list[int]:
    """``roots`` and every process below them, parents first."""
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop(0)
        if pid in found:
            continue
        found.append(pid)
        # A process may end while it is looked at: what is left of the tree still counts.
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def resident(pid: int) -> int:
    """Bytes of physical memory of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


def files_in_memory(pid: int) -> int:
    """Files and folders in the places where an isolated worker may write, as the process ``pid`` sees them."""
    count = 0
    for place in (SCRATCH, TEMPORARY):
        # A process outside the enclosure, or one that just ended, sees no such place.
        with contextlib.suppress(OSError):
            usage = os.statvfs(f"/proc/{pid}/root{SCRATCH}/../..{place}")
            count += usage.f_files - usage.f_ffree
    return count


def kill_tree(roots: list[int]) -> None:
    """Kill ``roots`` and all below; the end of a process namespace's first process takes the rest of it along."""
    for pid in reversed(tree(roots)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)

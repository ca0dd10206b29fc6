"""How much of the CPU other programs took while something was measured: a figure without it may mean nothing.

Linux only (``/proc``); elsewhere, and in a container that sees only some of the machine's cores, it is unknown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from minillm_serve.bench.environment import available_cores

BUSY_LIMIT = 0.15
_BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
_STAT_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class OtherPrograms:
    """Context manager; afterwards ``share`` is the part of all cores' time (0 to 1) that went to other programs.

    ``pids``: the processes that are measured, alive from entry to exit; the current one is always among them.
    ``share`` is None where the system does not tell.
    """

    def __init__(self, pids: Sequence[int] = (), proc: Path = Path("/proc")):
        self.share: float | None = None
        self._pids = {os.getpid(), *pids}
        self._proc = proc

    def __enter__(self) -> OtherPrograms:
        self._before = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        after = self._read()
        if self._before is None or after is None:
            return
        wall, busy, own = (late - early for late, early in zip(after, self._before, strict=True))
        if wall > 0:
            self.share = min(max((busy - own) / (wall * available_cores()), 0.0), 1.0)

    def _read(self) -> tuple[float, float, float] | None:
        """(now, busy time of the machine, CPU time of the measured processes), all in seconds."""
        try:
            lines = (self._proc / "stat").read_text(encoding="ascii").splitlines()
            own = sum(self._process_ticks(pid) for pid in self._pids)
        except (OSError, ValueError, IndexError):
            return None
        if sum(line.startswith("cpu") and line[3].isdigit() for line in lines) != available_cores():
            return None
        values = dict(zip(_STAT_FIELDS, map(int, lines[0].split()[1:]), strict=False))
        ticks = os.sysconf("SC_CLK_TCK")
        return time.monotonic(), sum(values[name] for name in _BUSY_FIELDS) / ticks, own / ticks

    def _process_ticks(self, pid: int) -> int:
        # The command name may hold spaces and parentheses: fields are counted from its last closing one.
        fields = (
            (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return int(fields[11]) + int(fields[12])

"""Token bucket: so much at once, and then no faster than it refills."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """Holds at most ``capacity`` units, refilled in ``period`` seconds from empty to full; full at first.

    Not thread-safe: for one event loop. clock: seconds that never go back.
    """

    def __init__(self, capacity: int, period: float = 60.0, clock: Callable[[], float] = time.monotonic):
        self.capacity = capacity
        self._rate = capacity / period
        self._clock = clock
        self._level = float(capacity)
        self._at = clock()

    @property
    def level(self) -> float:
        """Units that can be taken now."""
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, units: int) -> None:
        """Take ``units``; the caller has asked :meth:`wait` and heard 0."""
        self._level = self.level - units

    def give_back(self, units: int) -> None:
        """Return what was taken and not used; never fills it above its capacity."""
        self._level = min(self.capacity, self.level + units)

    def wait(self, units: int) -> float:
        """Seconds until ``units`` can be taken if nobody else takes any; more than ``capacity`` can never."""
        # A refill that is short by a rounding error must not cost its client another round trip.
        return max(0.0, (units - self.level) / self._rate - 1e-9)

"""Who goes first and who gives way: the two decisions of a scheduling policy."""

from __future__ import annotations

from collections.abc import Sequence

from minillm_serve.request import Request


class FCFS:
    """First come, first served. The latest arrival gives way, so the oldest request always finishes: no starvation."""

    def next_to_admit(self, waiting: Sequence[Request]) -> Request:
        """The waiting request to admit next. ``waiting`` is in arrival order and not empty."""
        return waiting[0]

    def victim(self, running: Sequence[Request]) -> Request:
        """The running request that gives its blocks back. ``running`` is in arrival order and not empty."""
        return running[-1]

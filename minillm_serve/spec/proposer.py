"""What drafts tokens: the seam between the runner and the ways of guessing what the target will say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Proposer(Protocol):
    """Guesses how texts go on. Plain ints; a wrong guess costs time and never changes a text."""

    def add(self, rid: int, token_ids: Sequence[int]) -> None:
        """A request begins, or resumes after a preemption, with these tokens."""

    def extend(self, rid: int, token_ids: Sequence[int]) -> None:
        """Its text has gained these tokens: drafts that were accepted, and what was drawn."""

    def drop(self, rid: int) -> None:
        """It has ended, or was preempted. Unknown ids are passed over."""

    def propose(self, limits: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
        """Request id -> its draft, at most ``limits[rid]`` (>= 1) tokens; a request without an idea is absent."""

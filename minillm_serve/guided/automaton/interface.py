"""What runs a network: one interface, a readable machine in Python (machine.py) and a compiled one (native.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Position = Any  # where one text stands; immutable, cheap to keep, comparable with ==, meaningful to its machine only


class Machine(Protocol):
    """Runs one network over one vocabulary. Positions are shared by all sequences; caches are bounded in bytes.

    A position stands for every reading of the text so far, and each of them can be completed.
    """

    def start(self) -> Position:
        """Before the first byte."""
        ...

    def advance(self, position: Position, data: bytes) -> Position | None:
        """After these bytes; None when no valid text goes on like this."""
        ...

    def complete(self, position: Position) -> bool:
        """May the text end here?"""
        ...

    def fill(self, position: Position, out: np.ndarray, budget: int | None = None) -> None:
        """Write the tokens that may come next into ``out``, uint32 [ceil(V / 32)]; the EOS bits if it may end here.

        budget: only tokens after which the text can still be completed within so many bytes.
        """
        ...

    def bind(self, out: np.ndarray) -> Callable[[Position], None]:
        """A function that fills ``out`` for a position: for the buffer of a sequence, which is filled at every step."""
        ...

    def forced(self, position: Position, limit: int = 4096) -> bytes:
        """The bytes that must come next, up to the first place with a choice (to end the text is a choice)."""
        ...

    def cost(self, position: Position) -> int:
        """Bytes of the shortest completion; UNBOUNDED_COST if no bound is known."""
        ...

    def describe(self, position: Position) -> list[str]:
        """One line for each reading: the leaf it is in, and its stack of places, innermost first."""
        ...

    def nbytes(self) -> int:
        """Memory held by states and masks, in bytes (an estimate)."""
        ...

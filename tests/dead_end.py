"""A grammar gone wrong, to see who else suffers."""

from __future__ import annotations

import numpy as np


class DeadEnd:
    """A grammar that allows nothing from its third token on."""

    is_finished = False
    notes = ()

    def __init__(self) -> None:
        self.left = 2

    def matcher(self) -> DeadEnd:
        return DeadEnd()

    def nbytes(self) -> int:
        return 0

    def fill_mask(self) -> np.ndarray:
        return np.full(16, 0xFFFFFFFF if self.left else 0, np.uint32)

    def fill_into(self, out: np.ndarray, budget: int | None = None) -> None:
        out[:] = self.fill_mask()

    def accept(self, token_id: int) -> bool:
        self.left -= 1
        return self.left >= 0

    def forced_bytes(self, limit: int = 0) -> bytes:
        return b""

    def is_complete(self) -> bool:
        return False

"""How far it is to the end of a text whose length in characters is limited: one vector of distances for each count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minillm_serve.guided.automaton.forbidden import UNREACHABLE
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import UNBOUNDED_COST

MAX_BYTES = 16 << 20  # of the vectors of one sequence; only a hostile pattern does not repeat long before


class Sequence:
    """v[0], v[1] = f(v[0]), ... as far as it is asked for; from where it repeats on, nothing more is computed.

    shifts: f(v + c) = f(v) + c, so that a vector that comes back larger by a constant is a repetition as well.
    """

    def __init__(self, first: np.ndarray, function: Callable[[np.ndarray], np.ndarray], shifts: bool):
        self._function, self._shifts = function, shifts
        self._vectors: list[np.ndarray] = []
        self._bases: list[int] = []
        self._seen: dict[bytes, int] = {}
        self._period: tuple[int, int, int] | None = None  # (first index, length, what is added each time)
        self._add(first)

    def __getitem__(self, index: int) -> np.ndarray:
        while len(self._vectors) <= index and self._period is None:
            self._add(self._function(self._vectors[-1]))
        if self._period is None or index < self._period[0]:
            return self._vectors[index]
        begin, length, step = self._period
        rounds, place = divmod(index - begin, length)
        vector = self._vectors[begin + place]
        return np.where(vector < UNREACHABLE, vector + rounds * step, UNREACHABLE) if step else vector

    @property
    def settled(self) -> int | None:
        """From this index on the vectors repeat; None as long as that is not known."""
        return None if self._period is None else self._period[0]

    def _add(self, vector: np.ndarray) -> None:
        if len(self._vectors) * vector.nbytes > MAX_BYTES:
            raise SchemaError("minLength", "", "together with the pattern it takes more memory than is allowed")
        least = int(vector.min())
        base = least if self._shifts and least < UNREACHABLE else 0
        key = np.where(vector < UNREACHABLE, vector - base, -1).tobytes()
        before = self._seen.get(key)
        if before is not None:
            self._period = (before, len(self._vectors) - before, base - self._bases[before])
            return
        self._seen[key] = len(self._vectors)
        self._vectors.append(vector)
        self._bases.append(base)


class Distances:
    """Bytes from each state of a character automaton to an end, when ``count`` characters have been read.

    rows: [states, classes] next states, -1 for none. prices: [classes] bytes of the class's shortest character,
    UNREACHABLE if it has none. ends: [states] what the end costs there, UNREACHABLE where there is none. Raises
    :class:`SchemaError` when the vectors take too much memory.
    """

    def __init__(self, rows: np.ndarray, prices: np.ndarray, ends: np.ndarray, low: int, high: int | None):
        self._rows, self._prices, self._low, self._high = rows, prices, low, high
        # With ``room`` for more characters, and enough of them: v[room]. Fewer characters than needed: w[how many].
        self._enough = Sequence(ends, lambda vector: np.minimum(ends, self._back(vector)), shifts=False)
        least = self._enough[_FAR if high is None else high - low]
        self._short = Sequence(least, self._back, shifts=True)
        self._short[low]  # all there is to know is known now, so that nothing fails later

    def at(self, count: int) -> np.ndarray:
        """[states] int64. A count beyond the highest has room for nothing more."""
        if count < self._low:
            return self._short[self._low - count]
        return self._enough[_FAR if self._high is None else max(self._high - count, 0)]

    def free_from(self) -> int:
        """With at least so much room left, more of it changes nothing."""
        settled = self._enough.settled
        return _FAR if settled is None else settled

    def _back(self, vector: np.ndarray) -> np.ndarray:
        ahead = np.where(self._rows >= 0, vector[self._rows], UNREACHABLE) + self._prices
        return np.minimum(ahead.min(axis=1), UNREACHABLE)


class UnknownDistances:
    """An end can be reached, but how far it is takes too much memory to know."""

    def __init__(self, lives: Distances):
        self._lives = lives

    def at(self, count: int) -> np.ndarray:
        return np.where(self._lives.at(count) < UNREACHABLE, UNBOUNDED_COST, UNREACHABLE)


_FAR = 1 << 40  # more characters than any text has; the vectors repeat long before

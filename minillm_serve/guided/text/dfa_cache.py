"""Automata that were built before, by what they were built from; the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from minillm_serve.guided.text.chars import CharDfa

MAX_CELLS = 2_000_000  # table cells of all automata together, about 32 MB
_ENTRY = 200  # cells that an entry counts for beside its table


class DfaCache:
    """A bounded map from keys to automata. Safe to share between threads."""

    def __init__(self, max_cells: int = MAX_CELLS):
        self.max_cells = max_cells
        self.cells = 0
        self._known: OrderedDict[Hashable, CharDfa] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> CharDfa | None:
        with self._lock:
            dfa = self._known.get(key)
            if dfa is not None:
                self._known.move_to_end(key)
            return dfa

    def put(self, key: Hashable, dfa: CharDfa) -> None:
        with self._lock:
            if key in self._known:
                return
            self._known[key] = dfa
            self.cells += _size(dfa)
            while self.cells > self.max_cells and len(self._known) > 1:
                _, dropped = self._known.popitem(last=False)
                self.cells -= _size(dropped)


def _size(dfa: CharDfa) -> int:
    return _ENTRY + len(dfa.bounds) + len(dfa.rows) * (len(dfa.rows[0]) + 4)

"""A look at a growing list that costs nothing: what a stream of cumulative outputs is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar, overload

Item = TypeVar("Item")


class Snapshot(Sequence[Item]):
    """``items[start:stop]`` as it is now (stop None: to its end), without a copy. ``items`` may grow behind it, but
    must not change otherwise.

    A copy would make a stream of N tokens cost N² / 2; compares equal to the tuple or list that the copy would be.
    """

    __slots__ = ("_items", "_start", "_stop")

    def __init__(self, items: Sequence[Item], start: int = 0, stop: int | None = None):
        self._items = items
        self._start = start
        self._stop = len(items) if stop is None else stop

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        places = range(self._start, self._stop)[index]
        if isinstance(index, int):
            return self._items[places]
        return tuple([self._items[place] for place in places])

    def __iter__(self) -> Iterator[Item]:
        return islice(self._items, self._start, self._stop)

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, (Snapshot, tuple, list)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))

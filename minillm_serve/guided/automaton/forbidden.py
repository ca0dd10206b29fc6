"""Texts that may not be read, such as names already written: no text may begin that could only become one of them."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Any

UNREACHABLE = 1 << 40


class Words:
    """A set of texts (all str or all bytes), ordered so that those with a common beginning are neighbours."""

    __slots__ = ("ordered",)

    def __init__(self, words: Iterable[Any]):
        self.ordered = sorted(words)

    def __contains__(self, word: Any) -> bool:
        place = bisect_left(self.ordered, word)
        return place < len(self.ordered) and self.ordered[place] == word

    def begins(self, prefix: Any) -> bool:
        """Does any of the words begin with ``prefix``?"""
        place = bisect_left(self.ordered, prefix)
        return place < len(self.ordered) and self.ordered[place].startswith(prefix)

    def after(self, prefix: Any) -> list[Any]:
        """The characters (or single bytes) that follow ``prefix`` in the words, each once."""
        found, words, size = [], self.ordered, len(prefix)
        place = bisect_left(words, prefix)
        end = bisect_left(words, True, place, key=lambda word: word[:size] > prefix)
        if place < end and len(words[place]) == size:
            place += 1
        while place < end:
            found.append(words[place][size : size + 1])
            place = bisect_right(words, found[-1], place, end, key=lambda word: word[size : size + 1])
        return found


Forbidden = tuple[Words, ...]
Ways = Callable[[Any], tuple[int, list[tuple[int, Any]]]]


def is_forbidden(word: Any, forbidden: Forbidden) -> bool:
    return any(word in words for words in forbidden)


def begins_forbidden(prefix: Any, forbidden: Forbidden) -> bool:
    return any(words.begins(prefix) for words in forbidden)


def symbols_after(prefix: Any, forbidden: Forbidden) -> list[Any]:
    """The characters after which the text still is the beginning of a forbidden one."""
    if len(forbidden) == 1:
        return forbidden[0].after(prefix)
    return sorted(set().union(*(words.after(prefix) for words in forbidden)))


def cheapest(start: Any, ways: Ways, estimate: Callable[[Any], int], enough: int = 0) -> int:
    """Bytes of the shortest way out of the beginnings of forbidden texts (A*, Hart, Nilsson and Raphael 1968).

    ways(node): the cost of the best way that leaves them at once, and the steps (cost, node) that stay among them;
    estimate(node): never more than the true cost. A way that costs no more than ``enough`` ends the search.
    """
    best, serial = UNREACHABLE, 0
    queue = [(estimate(start), serial, 0, start)]
    while queue and queue[0][0] < best and best > enough:
        _, _, spent, node = heapq.heappop(queue)
        leaving, staying = ways(node)
        best = min(best, spent + leaving)
        for cost, target in staying:
            serial += 1
            total = spent + cost + estimate(target)
            if total < best:
                heapq.heappush(queue, (total, serial, spent + cost, target))
    return best

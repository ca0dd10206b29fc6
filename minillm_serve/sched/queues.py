"""Lists of requests kept in the order of their rank: what a policy decides is read off the two ends."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import pairwise
from operator import attrgetter

from minillm_serve.request import Request

RANK = attrgetter("rank")


def put(queue: list[Request], request: Request) -> None:
    """Insert by rank. Ranks are unique (ties are broken by arrival when they are set)."""
    insort(queue, request, key=RANK)


def take(queue: list[Request], request: Request) -> bool:
    """Remove a request, found by its rank; False if it is not in this queue."""
    index = bisect_left(queue, request.rank, key=RANK)
    if index == len(queue) or queue[index] is not request:
        return False
    del queue[index]
    return True


def check(queue: list[Request]) -> None:
    """Assert that ranks strictly increase."""
    assert all(a.rank < b.rank for a, b in pairwise(queue)), "a queue is out of order"

"""How many bytes the shortest text of a leaf has: an upper bound that can always be met."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Collection

from minillm_serve.guided.grammar.network import UNBOUNDED_COST
from minillm_serve.guided.text.chars import MAX_CODE_POINT, CharDfa
from minillm_serve.guided.text.dfa import Dfa

MAX_WORK = 200_000
_ALL = CharDfa((0,), (0,), ((0,),), (0,))
_ASCII, _EVERY = range(0x20, 0x7F), range(MAX_CODE_POINT + 1)
Weight = tuple[int, int, int]  # what is made least, bytes, code points
# (first code point, bytes that are always enough inside a JSON string): raw where one byte, else escaped
_WIDTHS = ((0, 6), (0x20, 1), (0x22, 2), (0x23, 1), (0x5C, 2), (0x5D, 1), (0x7F, 6), (0x10000, 12))


def shortest_bytes(dfa: Dfa, alphabet: frozenset[int]) -> int:
    """Steps from the start of a byte automaton to its nearest end."""
    distance, level, seen = 0, {dfa.start}, {dfa.start}
    while level:
        if not level.isdisjoint(dfa.finals):
            return distance
        level = {t for state in level for byte, t in dfa.edges[state].items() if byte in alphabet} - seen
        seen |= level
        distance += 1
    return UNBOUNDED_COST


def longest_bytes(dfa: Dfa) -> int:
    """Bytes of the longest text of a byte automaton; UNBOUNDED_COST if there is no longest one."""
    level, length = {dfa.start}, 0
    while level := {target for state in level for target in dfa.edges[state].values()}:
        length += 1
        if length > len(dfa.edges):
            return UNBOUNDED_COST
    return length


def shortest_text(dfa: CharDfa | None, low: int, high: int | None, excluded: Collection[str] = ()) -> int:
    """Bytes of the shortest JSON string in ``dfa`` of ``low`` to ``high`` code points that is none of ``excluded``."""
    if excluded:
        return free_text(dfa, low, high, len(excluded))
    if dfa is None:
        return 2 + low
    if low * len(dfa.rows) * len(dfa.rows[0]) > MAX_WORK:
        return UNBOUNDED_COST
    weights = class_weights(dfa)
    for count_weight, byte_weight in ((0, 1), (1, 0)):  # the cheapest text may have too many code points
        found = _nearest(dfa, [(byte_weight * w + count_weight, w, 1) for w in weights], low)
        if found is not None and (high is None or found[2] <= high):
            return 2 + found[1]
    return UNBOUNDED_COST


def free_text(dfa: CharDfa | None, low: int, high: int | None, others: int) -> int:
    """Bytes that are enough for a string that must differ from ``others`` strings, whichever they are."""
    if dfa is None and high is None:
        return 2 + max(low, next(n for n in range(1, 64) if len(_ASCII) ** n > others))
    dfa = dfa or _ALL
    for alphabet, width in ((_ASCII, 2), (_EVERY, 12)):
        length = _length_of_many(dfa, alphabet, low, high, others)
        if length is not None:
            return 2 + width * length
    return UNBOUNDED_COST


def _length_of_many(dfa: CharDfa, alphabet: range, low: int, high: int | None, others: int) -> int | None:
    """The least length up to which there are more than ``others`` words of characters of ``alphabet``."""
    sizes = [0] * len(dfa.rows[0])
    for first, end, name in zip(dfa.bounds, [*dfa.bounds[1:], MAX_CODE_POINT + 1], dfa.classes, strict=True):
        sizes[name] += max(0, min(end, alphabet.stop) - max(first, alphabet.start))
    steps = [
        [(target, size) for target, size in zip(row, sizes, strict=True) if target >= 0 and size] for row in dfa.rows
    ]
    ways, found, work = {0: 1}, 0, 0
    for length in range(MAX_WORK if high is None else high + 1):
        if length >= low:
            found += sum(number for state, number in ways.items() if dfa.tags[state] >= 0)
        if found > others:
            return length
        further: dict[int, int] = {}
        for state, number in ways.items():
            work += len(steps[state]) + 1
            for target, size in steps[state]:
                further[target] = min(others + 1, further.get(target, 0) + number * size)
        if work > MAX_WORK or not further:
            break
        ways = further
    return None


def class_weights(dfa: CharDfa) -> list[int]:
    """The bytes that the cheapest character of each class needs."""
    weights = [UNBOUNDED_COST] * (max(dfa.classes) + 1)
    ends = [*dfa.bounds[1:], MAX_CODE_POINT + 1]
    starts = [first for first, _ in _WIDTHS]
    for first, end, name in zip(dfa.bounds, ends, dfa.classes, strict=True):
        place = bisect_right(starts, first) - 1
        while place < len(_WIDTHS) and _WIDTHS[place][0] < end:
            weights[name] = min(weights[name], _WIDTHS[place][1])
            place += 1
    return weights


def _nearest(dfa: CharDfa, weights: list[Weight], low: int) -> Weight | None:
    """The least sum of weights on a way of at least ``low`` steps from the start to an end; None if there is none."""
    found = _to_the_end(dfa, weights)
    for _ in range(low):
        found = [
            min((_sum(weights[name], found[t]) for name, t in enumerate(row) if t >= 0 and found[t]), default=None)
            for row in dfa.rows
        ]
    return found[0]


def _to_the_end(dfa: CharDfa, weights: list[Weight]) -> list[Weight | None]:
    """[states] the least sum of weights on a way to an end (Dijkstra, backwards)."""
    sources: list[list[tuple[int, Weight]]] = [[] for _ in dfa.rows]
    for state, row in enumerate(dfa.rows):
        for name, target in enumerate(row):
            if target >= 0:
                sources[target].append((state, weights[name]))
    found: list[Weight | None] = [None] * len(dfa.rows)
    queue: list[tuple[Weight, int]] = [((0, 0, 0), state) for state, tag in enumerate(dfa.tags) if tag >= 0]
    while queue:
        distance, state = heapq.heappop(queue)
        if found[state] is None:
            found[state] = distance
            for source, weight in sources[state]:
                if found[source] is None:
                    heapq.heappush(queue, (_sum(distance, weight), source))
    return found


def _sum(a: Weight, b: Weight) -> Weight:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]

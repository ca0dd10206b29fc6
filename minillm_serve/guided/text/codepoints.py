"""Sets of code points as sorted ranges, and the partition of all code points that a family of such sets makes.

Surrogates (U+D800 to U+DFFF) are no characters of a text: whether a set or a partition claims them means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minillm_serve.guided.text.chars import MAX_CODE_POINT

Ranges = tuple[tuple[int, int], ...]  # (first, last) pairs, ascending, neither touching nor overlapping

EVERYTHING: Ranges = ((0, MAX_CODE_POINT),)
NOTHING: Ranges = ()
SURROGATES: Ranges = ((0xD800, 0xDFFF),)


def ranges(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Any pairs (first, last) -> the same set, sorted and merged."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def of(characters: str) -> Ranges:
    """The set of the characters in a string."""
    return ranges((ord(char), ord(char)) for char in characters)


def union(*sets: Ranges) -> Ranges:
    return ranges(pair for one in sets for pair in one)


def complement(one: Ranges) -> Ranges:
    gaps, start = [], 0
    for first, last in one:
        if first > start:
            gaps.append((start, first - 1))
        start = last + 1
    if start <= MAX_CODE_POINT:
        gaps.append((start, MAX_CODE_POINT))
    return tuple(gaps)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    return complement(union(complement(one), complement(other)))


def partition(sets: Sequence[Ranges]) -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
    """The coarsest partition of the code points in which each set is a union of classes.

    Returns bounds and classes as in :class:`CharDfa`, and for each class its members: bit i is set if sets[i] holds it.
    """
    toggles: dict[int, int] = {0: 0}
    for index, one in enumerate(sets):
        bit = 1 << index
        for first, last in one:
            toggles[first] = toggles.get(first, 0) ^ bit
            toggles[last + 1] = toggles.get(last + 1, 0) ^ bit
    toggles.setdefault(SURROGATES[0][1] + 1, 0)
    bounds: list[int] = []
    classes: list[int] = []
    numbers: dict[int, int] = {}
    members = 0
    for bound in sorted(toggles):
        members ^= toggles[bound]
        if SURROGATES[0][0] <= bound <= SURROGATES[0][1] or bound > MAX_CODE_POINT:
            continue
        number = numbers.setdefault(members, len(numbers))
        if not classes or classes[-1] != number:
            bounds.append(bound)
            classes.append(number)
    return tuple(bounds), tuple(classes), list(numbers)

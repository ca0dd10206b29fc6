"""Cleaning up an automaton over code points: no dead ends, no state and no class of characters more than needed."""

from __future__ import annotations

from collections.abc import Sequence

from minillm_serve.guided.text.chars import CharDfa

NOTHING = CharDfa((0,), (0,), ((-1,),), (-1,))  # accepts no text
ANYTHING = CharDfa((0,), (0,), ((0,),), (0,))  # accepts every text, with tag 0

MINIMISE_WORK = 10_000  # table cells looked at before a large automaton is left with the states that it has


def reduced(
    bounds: Sequence[int],
    classes: Sequence[int],
    rows: Sequence[Sequence[int]],
    tags: Sequence[int],
    work: int = MINIMISE_WORK,
) -> CharDfa:
    """The trimmed automaton with these parts: reachable states that reach an end, equal states and classes merged.

    work: table cells that may be looked at to find equal states; beyond that they stay apart.
    """
    order = _useful(rows, tags)
    if not order:
        return NOTHING
    numbers = dict.fromkeys(range(-1, len(rows)), -1)
    for number, state in enumerate(order):
        numbers[state] = number
    table = [tuple([numbers[target] for target in rows[state]]) for state in order]
    ends = [tags[state] for state in order]
    table, columns = _merge_columns(table)
    table, ends = _merge_states(table, ends, work)
    merged_bounds: list[int] = []
    merged_classes: list[int] = []
    for bound, number in zip(bounds, classes, strict=True):
        column = columns[number]
        if not merged_classes or merged_classes[-1] != column:
            merged_bounds.append(bound)
            merged_classes.append(column)
    return CharDfa(tuple(merged_bounds), tuple(merged_classes), tuple(table), tuple(ends))


def _useful(rows: Sequence[Sequence[int]], tags: Sequence[int]) -> list[int]:
    """The states that are reachable from 0 and reach an end, breadth first; none if 0 itself reaches no end."""
    order, seen = [0], {0}
    sources: dict[int, list[int]] = {}
    for state in order:
        for target in set(rows[state]):
            if target >= 0:
                sources.setdefault(target, []).append(state)
                if target not in seen:
                    seen.add(target)
                    order.append(target)
    stack = [state for state in order if tags[state] >= 0]
    live = set(stack)
    while stack:
        for source in sources.get(stack.pop(), ()):
            if source not in live:
                live.add(source)
                stack.append(source)
    return [state for state in order if state in live] if 0 in live else []


def _merge_columns(table: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Equal columns become one. Returns the narrower table, and for each old class the new one."""
    seen: dict[tuple[int, ...], int] = {}
    columns = [seen.setdefault(column, len(seen)) for column in zip(*table, strict=True)]
    if len(seen) == len(columns):
        return table, columns
    return list(zip(*seen, strict=True)), columns


def _merge_states(table: list[tuple[int, ...]], tags: list[int], work: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """The minimal automaton, by refining a partition of the states (Moore 1956); as it was if that takes too long.

    The refinement starts from what equal states share: their shortest and their longest way to an end. So counters,
    which would take a round for each number, are told apart at once.
    """
    blocks: dict[object, int] = {}
    seeds = zip(tags, *_ways_to_end(table, tags), strict=True)
    block_of = [blocks.setdefault(seed, len(blocks)) for seed in seeds]
    rounds = work // (len(table) * len(table[0])) + 2
    while len(blocks) < len(table):
        count = len(blocks)
        blocks = {}
        look = [*block_of, -1]  # target -1 reads the last element
        block_of = [
            blocks.setdefault((block, *[look[target] for target in row]), len(blocks))
            for block, row in zip(block_of, table, strict=True)
        ]
        if len(blocks) == count:
            break
        rounds -= 1
        if rounds == 0:
            return table, tags
    if len(blocks) == len(table):
        return table, tags
    rows: list[tuple[int, ...]] = []
    ends: list[int] = []
    look = [*block_of, -1]
    for state, block in enumerate(block_of):
        if block == len(rows):  # blocks are numbered in the order of their first states
            rows.append(tuple([look[target] for target in table[state]]))
            ends.append(tags[state])
    return rows, ends


def _ways_to_end(table: list[tuple[int, ...]], tags: list[int]) -> tuple[list[int], list[int]]:
    """How many characters each state is away from an end: at least, and at most (-1 if there is no bound)."""
    sources: list[list[int]] = [[] for _ in table]
    waiting = []
    for state, row in enumerate(table):
        targets = set(row)
        targets.discard(-1)
        waiting.append(len(targets))
        for target in targets:
            sources[target].append(state)
    shortest, longest = [-1] * len(table), [-1] * len(table)
    level, length = [state for state, tag in enumerate(tags) if tag >= 0], 0
    for state in level:
        shortest[state] = 0
    while level:
        length += 1
        further = []
        for source in (source for state in level for source in sources[state]):
            if shortest[source] < 0:
                shortest[source] = length
                further.append(source)
        level = further
    level, length = [state for state, count in enumerate(waiting) if count == 0], 0
    while level:
        further = []
        for state in level:
            longest[state] = length
            for source in sources[state]:
                waiting[source] -= 1
                if waiting[source] == 0:
                    further.append(source)
        level, length = further, length + 1
    return shortest, longest

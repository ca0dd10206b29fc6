"""Set algebra of automata over code points: and, or, not, which of several, how many, how long.

Every function returns trimmed automata (see :class:`CharDfa`); one that accepts nothing is ``chars_reduce.NOTHING``.
Raises :class:`SchemaError`, with the keyword and path that are passed in, when a result grows beyond what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_reduce import ANYTHING, NOTHING, reduced
from minillm_serve.guided.text.codepoints import MAX_CODE_POINT, Ranges, partition

MAX_STATES = 20_000
MAX_CELLS = 1_000_000

__all__ = [
    "ANYTHING",
    "NOTHING",
    "complement",
    "count_words",
    "from_words",
    "intersect",
    "is_disjoint",
    "is_empty",
    "is_subset",
    "is_universal",
    "longest_length",
    "shortest_length",
    "subtract",
    "tagged",
    "union",
    "with_length",
    "words",
]


def align(dfas: Sequence[CharDfa]) -> tuple[list[int], list[int], list[tuple[int, ...]]]:
    """Common bounds and classes of several automata; and for each class, its class in each of them."""
    starts = sorted({bound for dfa in dfas for bound in dfa.bounds})
    places = [0] * len(dfas)
    bounds: list[int] = []
    classes: list[int] = []
    numbers: dict[tuple[int, ...], int] = {}
    for start in starts:
        for index, dfa in enumerate(dfas):
            if places[index] + 1 < len(dfa.bounds) and dfa.bounds[places[index] + 1] <= start:
                places[index] += 1
        both = tuple(dfa.classes[place] for dfa, place in zip(dfas, places, strict=True))
        number = numbers.setdefault(both, len(numbers))
        if not classes or classes[-1] != number:
            bounds.append(start)
            classes.append(number)
    return bounds, classes, list(numbers)


def product(
    dfas: Sequence[CharDfa], tag_of: Callable[[tuple[int, ...]], int], need_all: bool, keyword: str, path: str
) -> CharDfa:
    """All automata side by side. tag_of: the tag of a state from the tags of its parts (-1 where one does not accept).

    need_all: a text that one of them can no longer accept is of no interest.
    """
    bounds, classes, columns = align(dfas)
    start = (0,) * len(dfas)
    numbers = {start: 0}
    queue = [start]
    rows: list[list[int]] = []
    tags: list[int] = []
    tables = [(*dfa.rows, (-1,) * len(dfa.rows[0])) for dfa in dfas]  # a last row for a part that is lost
    for parts in queue:
        spend(2 * len(columns) + 4, keyword, path)
        tags.append(tag_of(tuple([dfa.tags[part] if part >= 0 else -1 for dfa, part in zip(dfas, parts, strict=True)])))
        looks = [table[part] for table, part in zip(tables, parts, strict=True)]
        row = []
        for column in columns:
            target = tuple([look[number] for look, number in zip(looks, column, strict=True)])
            if need_all and -1 in target:
                row.append(-1)
                continue
            number = numbers.get(target)
            if number is None:
                number = numbers[target] = len(queue)
                queue.append(target)
            row.append(number)
        rows.append(row)
        if len(queue) > MAX_STATES or len(queue) * len(columns) > MAX_CELLS:
            raise SchemaError(keyword, path, f"what is asked of this text takes more than {len(queue)} states together")
    return reduced(bounds, classes, rows, tags)


def intersect(*dfas: CharDfa, keyword: str = "pattern", path: str = "") -> CharDfa:
    """The texts that all of them accept; tags become 0. Of none: every text."""
    parts = _distinct(dfas)
    if not parts:
        return ANYTHING
    result = _untagged(parts[0])
    for part in sorted(parts[1:], key=lambda dfa: len(dfa.rows)):
        result = product((result, part), lambda tags: -1 if -1 in tags else 0, True, keyword, path)
    return result


def union(*dfas: CharDfa, keyword: str = "pattern", path: str = "") -> CharDfa:
    """The texts that at least one of them accepts; tags become 0. Of none: no text."""
    parts = _distinct(dfas)
    if not parts:
        return NOTHING
    result = _untagged(parts[0])
    for part in parts[1:]:
        result = product((result, part), lambda tags: max(0 if tag >= 0 else -1 for tag in tags), False, keyword, path)
    return result


def complement(dfa: CharDfa, *, keyword: str = "pattern", path: str = "") -> CharDfa:
    """The texts that it does not accept."""
    spend(len(dfa.rows) * len(dfa.rows[0]), keyword, path)
    sink = len(dfa.rows)
    rows = [tuple([target if target >= 0 else sink for target in row]) for row in dfa.rows]
    rows.append((sink,) * len(dfa.rows[0]))
    return reduced(dfa.bounds, dfa.classes, rows, [0 if tag < 0 else -1 for tag in (*dfa.tags, -1)])


def subtract(dfa: CharDfa, *others: CharDfa, keyword: str = "pattern", path: str = "") -> CharDfa:
    """The texts that ``dfa`` accepts and none of the others does; tags become 0."""
    for other in others:
        dfa = product((dfa, other), lambda tags: 0 if tags[0] >= 0 > tags[1] else -1, False, keyword, path)
    return dfa if others else _untagged(dfa)


def tagged(
    dfas: Sequence[CharDfa], tag_of: Callable[[int], int], *, keyword: str = "pattern", path: str = ""
) -> CharDfa:
    """Which of several automata accept a text: ``tag_of`` is asked once for each set of them (bit i: dfas[i] does).

    It says the tag of those texts, -1 if they are not allowed. It is asked about no set that cannot occur, but the
    empty one counts: texts that none of them accepts.
    """
    known: dict[int, int] = {}

    def tag(tags: tuple[int, ...]) -> int:
        accepted = sum(1 << index for index, one in enumerate(tags) if one >= 0)
        if accepted not in known:
            known[accepted] = tag_of(accepted)
        return known[accepted]

    return product(dfas or [NOTHING], tag, False, keyword, path)


def with_length(
    dfa: CharDfa, low: int = 0, high: int | None = None, *, limit: int = 2_000, keyword: str = "pattern", path: str = ""
) -> CharDfa | None:
    """The texts of ``low`` to ``high`` code points (None: any number) among its own; tags are kept.

    None if counting would take more than ``limit`` states: the length is better kept beside the automaton then.
    """
    bound = low if high is None else high
    if bound + 1 > limit or (high is not None and high < low):
        return NOTHING if high is not None and high < low else None
    numbers = {(0, 0): 0}
    queue = [(0, 0)]
    rows, tags = [], []
    for state, length in queue:
        spend(len(dfa.rows[0]) + 2, keyword, path)
        tags.append(dfa.tags[state] if length >= low else -1)
        then = length + 1 if high is not None else min(length + 1, low)
        row = []
        for target in dfa.rows[state]:
            if target < 0 or (high is not None and then > high):
                row.append(-1)
                continue
            number = numbers.setdefault((target, then), len(numbers))
            if number == len(queue):
                queue.append((target, then))
            row.append(number)
        rows.append(row)
        if len(queue) > limit:
            return None
    return reduced(dfa.bounds, dfa.classes, rows, tags)


def from_words(texts: Iterable[str], *, keyword: str = "enum", path: str = "") -> CharDfa:
    """Exactly these texts."""
    edges: list[dict[str, int]] = [{}]
    tags = [-1]
    for text in texts:
        spend(2 * len(text) + 2, keyword, path)
        state = 0
        for char in text:
            target = edges[state].get(char)
            if target is None:
                target = edges[state][char] = len(edges)
                edges.append({})
                tags.append(-1)
            state = target
        tags[state] = 0
    edges, tags = _shared_endings(edges, tags)
    letters = sorted({char for row in edges for char in row})
    bounds, classes, members = partition([((ord(char), ord(char)),) for char in letters])
    if len(edges) * len(members) > MAX_CELLS:
        raise SchemaError(keyword, path, f"{len(edges)} states are more than can be kept as a table")
    number_of = {letters[held.bit_length() - 1]: number for number, held in enumerate(members) if held}
    rows = []
    for row in edges:
        cells = [-1] * len(members)
        for char, target in row.items():
            if char in number_of:  # a surrogate has no class
                cells[number_of[char]] = target
        rows.append(cells)
    return reduced(bounds, classes, rows, tags)


def _shared_endings(edges: list[dict[str, int]], tags: list[int]) -> tuple[list[dict[str, int]], list[int]]:
    """A tree of words, whose states come before those behind them -> the same without equal states; the root is 0."""
    known: dict[object, int] = {}
    merged = [0] * len(edges)
    for state in range(len(edges) - 1, -1, -1):
        row = {char: merged[target] for char, target in edges[state].items()}
        merged[state] = known.setdefault((tags[state], frozenset(row.items())), state)
    kept = sorted(known.values())
    numbers = {state: number for number, state in enumerate(kept)}
    rows = [{char: numbers[merged[target]] for char, target in edges[state].items()} for state in kept]
    return rows, [tags[state] for state in kept]


def _distinct(dfas: Iterable[CharDfa]) -> list[CharDfa]:
    return list({id(dfa): dfa for dfa in dfas}.values())


def _untagged(dfa: CharDfa) -> CharDfa:
    if all(tag <= 0 for tag in dfa.tags):
        return dfa
    return reduced(dfa.bounds, dfa.classes, dfa.rows, [min(tag, 0) for tag in dfa.tags])


# -- questions -------------------------------------------------------------------------------------------------------


def is_empty(dfa: CharDfa) -> bool:
    """Does it accept no text at all?"""
    return dfa.tags == (-1,)


def is_universal(dfa: CharDfa) -> bool:
    """Does it accept every text?"""
    return all(tag >= 0 for tag in dfa.tags) and not any(-1 in row for row in dfa.rows)


def is_disjoint(one: CharDfa, other: CharDfa, *, keyword: str = "pattern", path: str = "") -> bool:
    """Is there no text that both accept?"""
    return is_empty(intersect(one, other, keyword=keyword, path=path))


def is_subset(one: CharDfa, other: CharDfa, *, keyword: str = "pattern", path: str = "") -> bool:
    """Does ``other`` accept every text that ``one`` accepts?"""
    return is_empty(subtract(one, other, keyword=keyword, path=path))


def class_ranges(dfa: CharDfa) -> list[Ranges]:
    """The characters of each class, without surrogates."""
    found: list[list[tuple[int, int]]] = [[] for _ in dfa.rows[0]]
    ends = [*[bound - 1 for bound in dfa.bounds[1:]], MAX_CODE_POINT]
    for first, last, number in zip(dfa.bounds, ends, dfa.classes, strict=True):
        if first < 0xD800:
            found[number].append((first, min(last, 0xD7FF)))
        if last > 0xDFFF:
            found[number].append((max(first, 0xE000), last))
    return [tuple(pair for pair in one if pair[0] <= pair[1]) for one in found]


def shortest_length(dfa: CharDfa) -> int | None:
    """Code points of the shortest text it accepts, None if it accepts none."""
    seen, level, length = {0}, [0], 0
    while level:
        if any(dfa.tags[state] >= 0 for state in level):
            return length
        level = list(dict.fromkeys(target for state in level for target in dfa.rows[state] if target >= 0))
        level = [state for state in level if state not in seen]
        seen.update(level)
        length += 1
    return None


def longest_length(dfa: CharDfa) -> int | None:
    """Code points of the longest text it accepts, None if there is no bound (or no text)."""
    order = _acyclic_order(dfa)
    if order is None or is_empty(dfa):
        return None
    longest = [0] * len(dfa.rows)
    for state in order:
        longest[state] = max((longest[target] + 1 for target in dfa.rows[state] if target >= 0), default=0)
    return longest[0]


def count_words(dfa: CharDfa, limit: int) -> int:
    """How many texts it accepts, ``limit`` if there are that many or more."""
    order = _acyclic_order(dfa)
    if order is None:
        return limit
    sizes = [sum(last - first + 1 for first, last in one) for one in class_ranges(dfa)]
    counts = [0] * len(dfa.rows)
    for state in order:
        ways = sum(size * counts[to] for size, to in zip(sizes, dfa.rows[state], strict=True) if to >= 0)
        counts[state] = min(limit, (dfa.tags[state] >= 0) + ways)
    return counts[0]


def words(dfa: CharDfa, limit: int) -> Iterator[str]:
    """Up to ``limit`` texts that it accepts, short ones first."""
    if is_empty(dfa) or limit <= 0:
        return
    ranges = class_ranges(dfa)
    longest = longest_length(dfa)
    ends = [{state for state, tag in enumerate(dfa.tags) if tag >= 0}]  # ends[n]: n characters away from some end
    given = 0
    while True:
        if 0 in ends[-1]:
            for word in _words_of_length(dfa, ranges, ends):
                yield word
                given += 1
                if given >= limit:
                    return
        if len(ends) - 1 == longest:
            return
        ends.append({state for state, row in enumerate(dfa.rows) if not ends[-1].isdisjoint(row)})


def _words_of_length(dfa: CharDfa, ranges: list[Ranges], ends: list[set[int]]) -> Iterator[str]:
    """The texts of len(ends) - 1 characters; no way is tried that does not lead to one."""
    stack: list[Iterator[tuple[int, str]]] = [iter(((0, ""),))]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        state, text = step
        left = len(ends) - 1 - len(text)
        if left == 0:
            yield text
        else:
            stack.append(_next_characters(dfa, ranges, state, text, ends[left - 1]))


def _next_characters(
    dfa: CharDfa, ranges: list[Ranges], state: int, text: str, allowed: set[int]
) -> Iterator[tuple[int, str]]:
    for number, target in enumerate(dfa.rows[state]):
        if target in allowed:
            for first, last in ranges[number]:
                for code in range(first, last + 1):
                    yield target, text + chr(code)


def _acyclic_order(dfa: CharDfa) -> list[int] | None:
    """The states, each behind all that can follow it; None if some text leads back to where it was."""
    waiting = [len({target for target in row if target >= 0}) for row in dfa.rows]
    sources: list[list[int]] = [[] for _ in dfa.rows]
    for state, row in enumerate(dfa.rows):
        for target in {target for target in row if target >= 0}:
            sources[target].append(state)
    order = [state for state, count in enumerate(waiting) if count == 0]
    for state in order:
        for source in sources[state]:
            waiting[source] -= 1
            if waiting[source] == 0:
                order.append(source)
    return order if len(order) == len(dfa.rows) else None

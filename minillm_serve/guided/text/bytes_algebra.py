"""Set algebra on byte automata: what two of them both accept, what one accepts and another does not, how many texts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.dfa import Dfa

DEAD = -1
MAX_STATES = 40_000


def combine(a: Dfa, b: Dfa, keep: Callable[[bool, bool], bool], keyword: str = "type") -> Dfa | None:
    """The texts for which ``keep(a accepts, b accepts)``; None if there are none. ``keep(False, False)`` is False.

    Ends get tag 0. Every state leads to an end. Raises :class:`SchemaError` beyond MAX_STATES pairs of states.
    """
    numbers = {(a.start, b.start): 0}
    queue = [(a.start, b.start)]
    either, only_a, only_b = keep(True, True), keep(True, False), keep(False, True)
    if not either and not only_a and not only_b:
        return None
    dfa = Dfa()
    for number, (left, right) in enumerate(queue):  # the queue grows on the way
        edges_a = a.edges[left] if left != DEAD else {}
        edges_b = b.edges[right] if right != DEAD else {}
        row: dict[int, int] = {}
        for byte in edges_a.keys() | edges_b.keys() if only_b else edges_a:
            pair = (edges_a.get(byte, DEAD), edges_b.get(byte, DEAD))
            if pair[1] == DEAD and not only_a:
                continue
            target = numbers.get(pair)
            if target is None:
                target = numbers[pair] = dfa.new_state()
                queue.append(pair)
            row[byte] = target
        spend(2 + len(row), keyword)
        if len(queue) > MAX_STATES:
            raise SchemaError(keyword, "", f"its automaton needs more than {MAX_STATES} states")
        dfa.edges[number] = row
        if keep(left in a.finals, right in b.finals):
            dfa.finals[number] = 0  # type: ignore[assignment]
    return pruned(dfa)


def explore(start: Hashable, row_of: Callable[[Any], tuple[dict[int, Any], bool]], keyword: str = "type") -> Dfa | None:
    """An automaton whose states are hashable meanings: ``row_of`` gives (byte -> meaning, may the text end here?)."""
    dfa, numbers, queue = Dfa(), {start: 0}, [start]
    for number, meaning in enumerate(queue):  # the queue grows on the way
        row, final = row_of(meaning)
        spend(4 + len(row), keyword)
        edges = dfa.edges[number]
        for byte, target in row.items():
            if target not in numbers:
                numbers[target] = dfa.new_state()
                queue.append(target)
            edges[byte] = numbers[target]
        if final:
            dfa.finals[number] = 0  # type: ignore[assignment]
    return pruned(dfa)


def intersection(a: Dfa, b: Dfa, keyword: str = "type") -> Dfa | None:
    return combine(a, b, lambda in_a, in_b: in_a and in_b, keyword)


def union(a: Dfa, b: Dfa, keyword: str = "type") -> Dfa | None:
    return combine(a, b, lambda in_a, in_b: in_a or in_b, keyword)


def difference(a: Dfa, b: Dfa, keyword: str = "type") -> Dfa | None:
    return combine(a, b, lambda in_a, in_b: in_a and not in_b, keyword)


def pruned(dfa: Dfa) -> Dfa | None:
    """Only the states that are reached and from which an end can be reached, numbered anew; None if none is left."""
    sources: list[list[int]] = [[] for _ in dfa.edges]
    for state, row in enumerate(dfa.edges):
        for target in set(row.values()):
            sources[target].append(state)
    live, stack = set(dfa.finals), list(dfa.finals)
    while stack:
        for source in sources[stack.pop()]:
            if source not in live:
                live.add(source)
                stack.append(source)
    if dfa.start not in live:
        return None
    order, numbers = [dfa.start], {dfa.start: 0}
    for state in order:
        for target in dfa.edges[state].values():
            if target in live and target not in numbers:
                numbers[target] = len(order)
                order.append(target)
    found = Dfa()
    found.edges = [{byte: numbers[t] for byte, t in dfa.edges[state].items() if t in live} for state in order]
    found.finals = {numbers[state]: tag for state, tag in dfa.finals.items() if state in numbers}
    return found


def count_texts(dfa: Dfa, limit: int) -> int:
    """How many texts the automaton accepts, at most ``limit``. Its states must all be reachable and lead to an end."""
    counts: dict[int, int] = {}
    on_path: set[int] = set()
    stack = [dfa.start]
    while stack:
        state = stack[-1]
        waiting = [target for target in set(dfa.edges[state].values()) if target not in counts]
        if not waiting:
            total = (state in dfa.finals) + sum(counts[target] for target in dfa.edges[state].values())
            counts[state] = min(total, limit)
            on_path.discard(state)
            stack.pop()
        elif any(target in on_path or target == state for target in waiting):
            return limit  # a loop that leads to an end: texts without number
        else:
            on_path.add(state)
            stack.append(waiting[0])
    return counts[dfa.start]


def accepts(dfa: Dfa, text: bytes) -> bool:
    """Does the automaton accept the whole of ``text``?"""
    state = dfa.start
    for byte in text:
        target = dfa.edges[state].get(byte)
        if target is None:
            return False
        state = target
    return state in dfa.finals

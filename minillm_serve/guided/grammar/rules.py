"""What must hold of a grammar's rules before a text may follow them: each can end, and none begins with itself.

A rule that begins with itself (left recursion) would be entered again and again without reading anything. Where that
is plain to see, ``sum ::= sum "+" term | term``, it becomes the repetition that it means, ``term ("+" term)*``; where
the way leads through other rules, the grammar is refused and the way is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from minillm_serve.guided.budget import spend
from minillm_serve.guided.grammar.expressions import Call, Either, Embedded, Expression, Leaf, Many, Series
from minillm_serve.guided.grammar.network import UNBOUNDED_COST
from minillm_serve.guided.grammar.syntax import Grammar, refuse

IMPOSSIBLE = 1 << 20  # the height of what can never be read to its end


class Rules:
    """The expressions of the rules, with what is known of each.

    nullable: rules that may read nothing. heights: calls inside each other that a rule's least text needs; costs:
    bytes of such a text; full_heights, full_costs: the same for texts of at least one byte.
    """

    def __init__(self, bodies: dict[str, Expression]):
        self.bodies = bodies
        self.nullable: set[str] = set()
        self.heights = dict.fromkeys(bodies, IMPOSSIBLE)
        self.costs = dict.fromkeys(bodies, UNBOUNDED_COST)
        self.full_heights = dict.fromkeys(bodies, IMPOSSIBLE)
        self.full_costs = dict.fromkeys(bodies, UNBOUNDED_COST)
        self._repeat(self._find_nullable)
        for found, find in (
            (self.heights, self.height),
            (self.full_heights, self.full_height),
            (self.costs, self.cost),
            (self.full_costs, self.full_cost),
        ):
            self._repeat(partial(self._lower, found, find))
        self._known: dict[tuple[Expression, int], tuple[int, int]] = {}

    def rest(self, expression: Expression, index: int = 0) -> tuple[int, int]:
        """(height, cost) of what is left of an expression of which ``index`` parts, or times, are read. Remembered."""
        found = self._known.get((expression, index))
        if found is None:
            match expression:
                case Series(parts):
                    found = height, cost = (0, 0)
                    for place in range(len(parts) - 1, -1, -1):
                        part_height, part_cost = self.rest(parts[place])
                        height, cost = max(height, part_height), min(cost + part_cost, UNBOUNDED_COST)
                        self._known[expression, place] = height, cost
                    self._known[expression, len(parts)] = found
                    return self._known[expression, index]
                case Many(body, low, _) if index < low:
                    height, cost = self.rest(body)
                    found = height, min(cost * (low - index), UNBOUNDED_COST)
                case Many():
                    found = (0, 0)
                case _:
                    found = self.height(expression), self.cost(expression)
            self._known[expression, index] = found
        return found

    def _repeat(self, find: Callable[[str], bool]) -> None:
        """Ask every rule until nothing changes any more; inner rules tend to come last."""
        changed = True
        while changed:
            changed = False
            for name in reversed(self.bodies):
                spend(4, "grammar")
                changed |= find(name)

    def _find_nullable(self, name: str) -> bool:
        if name in self.nullable or not self.is_nullable(self.bodies[name]):
            return False
        self.nullable.add(name)
        return True

    def _lower(self, found: dict[str, int], find: Callable[[Expression], int], name: str) -> bool:
        before, found[name] = found[name], find(self.bodies[name])
        return found[name] < before

    # -- of expressions ----------------------------------------------------------------------------------------------

    def is_nullable(self, expression: Expression) -> bool:
        """May it read nothing?"""
        match expression:
            case Series(parts):
                return all(self.is_nullable(part) for part in parts)
            case Either(parts):
                return any(self.is_nullable(part) for part in parts)
            case Many(body, low, _):
                return low == 0 or self.is_nullable(body)
            case Call(rule):
                return rule in self.nullable
        return False

    def height(self, expression: Expression) -> int:
        spend(2, "grammar")
        match expression:
            case Series(parts):
                return max((self.height(part) for part in parts), default=0)
            case Either(parts):
                return min((self.height(part) for part in parts), default=IMPOSSIBLE)
            case Many(body, low, _):
                return self.height(body) if low else 0
            case Call(rule):
                return 0 if rule in self.nullable else min(1 + self.heights[rule], IMPOSSIBLE)
            case Embedded(_, height, _):
                return 1 + height
        return 0

    def full_height(self, expression: Expression) -> int:
        """The height of a text of at least one byte."""
        match expression:
            case Series(parts):
                return max(min(map(self.full_height, parts), default=IMPOSSIBLE), self.height(expression))
            case Either(parts):
                return min(map(self.full_height, parts), default=IMPOSSIBLE)
            case Many(body, _, _):
                return self.full_height(body)
            case Call(rule):
                return min(1 + self.full_heights[rule], IMPOSSIBLE)
        return self.height(expression)

    def cost(self, expression: Expression) -> int:
        """Bytes of the shortest of the texts that need the least height."""
        spend(2, "grammar")
        match expression:
            case Leaf() as leaf:
                return leaf.cost
            case Series(parts):
                return min(sum(self.cost(part) for part in parts), UNBOUNDED_COST)
            case Either(parts):
                least = self.height(expression)
                return min((self.cost(part) for part in parts if self.height(part) == least), default=UNBOUNDED_COST)
            case Many(body, low, _):
                return min(low * self.cost(body), UNBOUNDED_COST) if low else 0
            case Call(rule):
                return self.costs[rule]
            case Embedded(_, _, cost):
                return cost
        return 0

    def full_cost(self, expression: Expression) -> int:
        """The cost of a text of at least one byte."""
        match expression:
            case Series(parts):
                more = min(((self.full_height(p), self.full_cost(p) - self.cost(p)) for p in parts), default=(0, 0))[1]
                return min(self.cost(expression) + more, UNBOUNDED_COST)
            case Either(parts):
                return min(((self.full_height(p), self.full_cost(p)) for p in parts), default=(0, UNBOUNDED_COST))[1]
            case Many(body, low, _):
                rest = (low - 1) * self.cost(body) if low > 1 else 0
                return min(self.full_cost(body) + rest, UNBOUNDED_COST)
            case Call(rule):
                return self.full_costs[rule]
        return self.cost(expression)


def checked(grammar: Grammar, bodies: dict[str, Expression]) -> Rules:
    """The rules, if each can end and none begins with itself. Raises :class:`SchemaError` with the place if not."""
    bodies = {name: _without_own_start(name, body) for name, body in bodies.items()}
    rules = Rules(bodies)
    for name, height in reversed(rules.heights.items()):  # inner rules come last
        if height >= IMPOSSIBLE:
            problem = f"the rule {name!r} has no finite text"
            raise refuse(grammar.rules[name].place, problem, "unsatisfiable")
    cycle = _left_cycle(rules)
    if cycle:
        way = " -> ".join(repr(name) for name in cycle)
        raise refuse(
            grammar.rules[cycle[0]].place, f"left recursion: the rule begins with itself ({way})", "unsupported"
        )
    return rules


def _without_own_start(name: str, body: Expression) -> Expression:
    """``a ::= a x | y`` as ``a ::= y x*``."""
    parts = body.parts if isinstance(body, Either) else (body,)
    starts, tails = [], []
    for part in parts:
        steps = part.parts if isinstance(part, Series) else (part,)
        if steps and isinstance(steps[0], Call) and steps[0].rule == name:
            if len(steps) > 1:
                tails.append(Series(steps[1:]))
        else:
            starts.append(part)
    if len(starts) == len(parts):
        return body
    return Series((Either(tuple(starts)), Many(Either(tuple(tails)), 0, None) if tails else Series(())))


def _left_cycle(rules: Rules) -> list[str]:
    """Rules of which each can begin with the next, the last being the first again; none if there is no such round."""
    leads_to = {name: list(dict.fromkeys(_first_calls(body, rules))) for name, body in rules.bodies.items()}
    done: set[str] = set()
    for root in leads_to:
        way: dict[str, int] = {root: 0} if root not in done else {}
        stack = [(root, iter(leads_to[root]))] if way else []
        while stack:
            following = next(stack[-1][1], None)
            if following is None:
                done.add(stack.pop()[0])
                way.popitem()
            elif following in way:
                return [*list(way)[way[following] :], following]
            elif following not in done:
                way[following] = len(way)
                stack.append((following, iter(leads_to[following])))
    return []


def _first_calls(expression: Expression, rules: Rules) -> Iterator[str]:
    """The rules that may be entered before anything is read."""
    spend(2, "grammar")
    match expression:
        case Call(rule):
            yield rule
        case Series(parts):
            for part in parts:
                yield from _first_calls(part, rules)
                if not rules.is_nullable(part):
                    break
        case Either(parts):
            for part in parts:
                yield from _first_calls(part, rules)
        case Many(body, _, _):
            yield from _first_calls(body, rules)

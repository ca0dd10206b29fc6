"""Rules as a network: a place is a point in an expression and what comes behind it.

The ways on from a place lead straight to what is read next: whatever may read nothing is passed on the way, and a rule
is entered only to read something. So nothing is read in circles, and the last call of a rule needs no frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minillm_serve.guided.grammar import network as net
from minillm_serve.guided.grammar.expressions import Call, Either, Embedded, Expression, Leaf, Many, Series
from minillm_serve.guided.grammar.network import RETURN, UNBOUNDED_COST, Arc, Jump, Literals, Network, Read, Text
from minillm_serve.guided.grammar.rules import IMPOSSIBLE, Rules


@dataclass(frozen=True)
class Step:
    """``expression`` from its part number ``index`` on (of Many: after so many times), then the state ``then``."""

    rules: Rules = field(repr=False)
    expression: Expression
    index: int
    then: int

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        ways = _Ways(self.rules, network)
        ways.follow(self)
        return tuple(ways.arcs) + ((Jump(RETURN),) if ways.may_return else ())

    def height(self, network: Network) -> int:
        """Frames that the way to RETURN needs at least."""
        return max(self.rules.rest(self.expression, self.index)[0], height_of(network, self.then))

    def cost(self, network: Network) -> int:
        return min(self.rules.rest(self.expression, self.index)[1] + network.cost(self.then), UNBOUNDED_COST)

    def describe(self) -> str:
        return f"{_label(self.expression)}, part {self.index + 1}"


@dataclass(frozen=True)
class Entry:
    """The beginning of a rule, for a text of at least one byte."""

    rules: Rules = field(repr=False)
    rule: str

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        ways = _Ways(self.rules, network)
        ways.follow(Step(self.rules, self.rules.bodies[self.rule], 0, RETURN))
        return tuple(ways.arcs)

    def height(self, network: Network) -> int:
        return self.rules.full_heights[self.rule]

    def cost(self, network: Network) -> int:
        return self.rules.full_costs[self.rule]

    def describe(self) -> str:
        return f"rule {self.rule}"


def height_of(network: Network, state: int) -> int:
    """Frames that the way from a state to RETURN needs at least; 0 for places that do not say."""
    height = None if state == RETURN else getattr(network.places[state], "height", None)
    return height(network) if height is not None else 0


class _Ways:
    """The arcs from one place, found by passing everything that may read nothing."""

    def __init__(self, rules: Rules, network: Network):
        self.rules, self.network = rules, network
        self.arcs: list[Arc] = []
        self.may_return = False
        self._seen: set[int] = set()
        self._open: list[Step] = []

    def follow(self, step: Step) -> None:
        self._open.append(step)
        while self._open:
            step = self._open.pop()
            match step.expression:
                case Series(parts):
                    self._series(step, parts)
                case Either(parts):
                    self._open += [Step(self.rules, part, 0, step.then) for part in reversed(parts)]
                case Many(body, low, high):
                    self._many(step, body, low, high)
                case Leaf() as leaf:
                    self._arc(Read(_leaf(self.network, leaf), (step.then,), height_of(self.network, step.then)))
                case Call(rule):
                    self._call(self.network.state(Entry(self.rules, rule)), self.rules.full_heights[rule], step.then)
                    if rule in self.rules.nullable:
                        self._pass(step.then)
                case Embedded(state, height, _):
                    self._call(state, height, step.then)

    def _series(self, step: Step, parts: tuple[Expression, ...]) -> None:
        if step.index == len(parts):
            self._pass(step.then)
            return
        then = step.then
        if step.index + 1 < len(parts):
            then = self.network.state(Step(self.rules, step.expression, step.index + 1, step.then))
        self._open.append(Step(self.rules, parts[step.index], 0, then))

    def _many(self, step: Step, body: Expression, low: int, high: int | None) -> None:
        nullable = self.rules.is_nullable(body)
        if step.index >= low or nullable:
            self._pass(step.then)
        if high is not None and step.index == high:
            return
        count = min(step.index + 1, low) if high is None else step.index + 1
        then = self.network.state(Step(self.rules, step.expression, count, step.then))
        if nullable:
            self._seen.add(then)  # reading nothing once more leads nowhere new
        self._open.append(Step(self.rules, body, 0, then))

    def _pass(self, state: int) -> None:
        """Nothing more is to be read here: on with what comes behind."""
        if state == RETURN:
            self.may_return = True
        elif state not in self._seen:
            self._seen.add(state)
            place = self.network.places[state]
            if isinstance(place, Step):
                self._open.append(place)
            else:
                self._arc(Jump(state, height_of(self.network, state)))

    def _call(self, entry: int, height: int, then: int) -> None:
        self._arc(net.Call(entry, then, max(1 + height, height_of(self.network, then))))

    def _arc(self, arc: Arc) -> None:
        if arc.height < IMPOSSIBLE:
            self.arcs.append(arc)


def _leaf(network: Network, leaf: Leaf) -> int:
    if leaf.dfa is not None:
        return network.leaf(Text(leaf.dfa, quoted=False), key=leaf)
    texts = tuple(word.encode() for word in leaf.words)
    return network.leaf(Literals(texts, (0,) * len(texts)), key=leaf)


def _label(expression: Expression) -> str:
    match expression:
        case Leaf(_, words):
            return (
                "one of " + ", ".join(map(repr, words[:4])) + (", ..." if len(words) > 4 else "") if words else "text"
            )
        case Call(rule):
            return f"rule {rule}"
        case Embedded(_, _, _, label):
            return label
        case Many(body):
            return f"repetition of {_label(body)}"
        case Series(parts):
            return "sequence " + " ".join(_label(part) for part in parts[:2])
        case Either(parts):
            return f"choice of {len(parts)}"
    return ""

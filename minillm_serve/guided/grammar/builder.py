"""What the places of one JSON network share: the values of the nodes, their heights and costs, the leaves."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from functools import cached_property

from minillm_serve.guided.grammar.any_order import AnyOrderRule
from minillm_serve.guided.grammar.arrays import ArrayRule
from minillm_serve.guided.grammar.network import UNBOUNDED_COST, Network
from minillm_serve.guided.grammar.objects import ObjectRule
from minillm_serve.guided.grammar.punctuation import Punctuation
from minillm_serve.guided.grammar.scalars import Alphabet, Scalars
from minillm_serve.guided.grammar.values import IMPOSSIBLE, Container, Value
from minillm_serve.guided.grammar.witnesses import only_further_witnesses
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.schema.graph import Graph
from minillm_serve.guided.schema.nodes import NEVER, ArraySchema, Node, ObjectSchema
from minillm_serve.guided.schema.object_algebra import value_at

_BRACKETS = {ObjectSchema: b'{}":,', ArraySchema: b"[],"}


class Builder:
    """Makes the values of a node graph. Everything that can be refused is refused here; leaves are made when reached.

    alphabet: bytes that are tokens of their own. point_zero: may an integer be written as 1.0?
    """

    def __init__(
        self, network: Network, graph: Graph, options: JsonOptions, alphabet: frozenset[int], point_zero: bool
    ):
        self.network, self.graph, self.options = network, graph, options
        self.alphabet = Alphabet(alphabet, point_zero)
        self.scalars = Scalars(network, self.alphabet, point_zero)
        self.marks = Punctuation(network, options)
        self.values: dict[Node, Value] = {}
        self._queue: deque[Value] = deque()
        self._rule = AnyOrderRule if options.any_order else ObjectRule

    def run(self, root: Node) -> Value:
        """The value of the root, with everything that can be reached from it, and all heights."""
        value = self.value(root)
        while self._queue:
            found = self._queue.popleft()
            for alternative in self.graph.resolve(found.node):
                found.add(alternative)
        settle(list(self.values.values()), self.network.max_depth)
        return value

    def value(self, node: Node) -> Value:
        found = self.values.get(node)
        if found is None:
            found = self.values[node] = Value(node, self)
            if not node.is_false:
                self._queue.append(found)
        return found

    def declared(self, schema: ObjectSchema) -> dict[str, Node]:
        """The properties, with the names that depend on others or that others depend on."""
        if not schema.dependents:
            return schema.properties
        names = [n for name, others in schema.dependents.items() if others - {name} for n in (name, *sorted(others))]
        added = {n: value_at(schema, n, self.graph.both) for n in names if n not in schema.properties}
        return {**schema.properties, **added}

    @property
    def never(self) -> Value:
        return self.value(NEVER)

    def containers(self, alternative: ObjectSchema | ArraySchema, path: str) -> Iterator[Container]:
        """The ways to be this object or array; none if its brackets cannot be written."""
        space = b" " if self.options.whitespace == "spaced" else b""
        if not self.alphabet.spells(_BRACKETS[type(alternative)] + space):
            return
        if isinstance(alternative, ArraySchema):
            yield ArrayRule(alternative, path, self)
            return
        for schema in only_further_witnesses(alternative, self.graph, path):
            yield self._rule(schema, path, self)

    def is_deep(self, container: Container) -> bool:
        """Can the limit on nesting matter for what is chosen inside this container?"""
        tallest = max((v.height for v in container.children() if v.height < IMPOSSIBLE), default=0)
        if tallest == 0:
            return False  # every choice needs as little as the container itself
        depth = self._depths.get(container)
        return depth is None or depth + 1 + tallest > self.network.max_depth // 2

    @cached_property
    def _depths(self) -> dict[Container, int]:
        """How deep each container stands at most (Kahn 1962); without those that can stand in themselves or in such."""
        inner = {
            value: [child for container in value.containers for child in container.children() if child.containers]
            for value in self.values.values()
            if value.containers
        }
        entries = Counter(child for children in inner.values() for child in children)
        depths = {value: 0 for value in inner if value not in entries}
        outermost = list(depths)
        for value in outermost:
            for child in inner[value]:
                depths[child] = max(depths.get(child, 0), depths[value] + 1)
                entries[child] -= 1
                if entries[child] == 0:
                    outermost.append(child)
        return {container: depths[value] for value in outermost for container in value.containers}

    def cost_of(self, value: Value) -> int:
        return self._costs.get(value, UNBOUNDED_COST)

    @cached_property
    def _costs(self) -> dict[Value, int]:
        """The least cost of each value: a text of least height is made of values that need less height."""
        costs: dict[Value, int] = {}
        self.__dict__["_costs"] = costs  # what is asked for below was already put in
        for value in sorted(self.values.values(), key=lambda value: value.height):
            if value.height < IMPOSSIBLE:
                costs[value] = min(UNBOUNDED_COST, value.least_cost())
        return costs


def settle(values: list[Value], limit: int) -> None:
    """Find the height of every value and container: a least fixed point, found level by level."""
    users: dict[Value, list[tuple[Value, Container]]] = defaultdict(list)
    waiting: dict[Container, Value] = {}
    for value in values:
        for container in value.containers:
            waiting[container] = value
            for child in dict.fromkeys(container.needed()):
                users[child].append((value, container))
    candidates = [(value, container) for container, value in waiting.items()]
    for height in range(1, limit + 1):
        settled = []
        for value, container in candidates:
            if container.height == IMPOSSIBLE and container.closes_with(height - 1):
                container.height = height
                if value.height > height:
                    value.height = height
                    settled.append(value)
        if not settled:
            break
        candidates = [pair for value in settled for pair in users[value]]

"""A place where a JSON value stands: one state of the network for each node of the normalised schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from minillm_serve.guided.grammar.network import RETURN, UNBOUNDED_COST, Arc, Network, Read
from minillm_serve.guided.schema.nodes import Alternative, LiteralSchema, Node, NumberSchema, StringSchema

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.builder import Builder

IMPOSSIBLE = 1 << 20  # the height of what cannot be written


class Container(Protocol):
    """One way to be an object or an array. height: containers one inside the other that its least text needs."""

    height: int

    def needed(self) -> list[Value]:
        """Values without which the container cannot be closed."""
        ...

    def children(self) -> list[Value]:
        """Values that may stand in it."""
        ...

    def closes_with(self, height: int) -> bool:
        """Can it be completed when only values of at most this height are available?"""
        ...

    def entry(self, network: Network) -> tuple[int, int]:
        """(the leaf of its opening bracket, the state behind that)."""
        ...

    def least_cost(self) -> int:
        """Bytes of a short text for it, in which all values have the least possible height."""
        ...


class Value:
    """Where one node's value stands. scalars, containers: the node's alternatives; height: the least they need."""

    __slots__ = ("_cost", "build", "containers", "height", "node", "scalars")

    def __init__(self, node: Node, build: Builder):
        self.node, self.build = node, build
        self.scalars: list[Alternative] = []
        self.containers: list[Container] = []
        self.height = IMPOSSIBLE

    def add(self, alternative: Alternative) -> None:
        if isinstance(alternative, (StringSchema, NumberSchema, LiteralSchema)):
            if self.build.scalars.possible(alternative):
                self.scalars.append(alternative)
                self.height = 0
        else:
            self.containers.extend(self.build.containers(alternative, self.node.path))

    def leaves(self) -> list[int]:
        """The leaves of the scalars; all constants are one."""
        make = self.build.scalars
        constants = [value for a in self.scalars if isinstance(a, LiteralSchema) for value in a.values]
        found = [make.literals(constants)] if constants else []
        for alternative in self.scalars:
            if isinstance(alternative, StringSchema):
                found.append(make.string(alternative))
            elif isinstance(alternative, NumberSchema):
                found.append(make.number(alternative))
        return found

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        found: list[Arc] = [Read(leaf, (RETURN,)) for leaf in self.leaves()]
        for container in self.containers:
            if container.height < IMPOSSIBLE:
                leaf, state = container.entry(network)
                found.append(Read(leaf, (state,), container.height))
        return tuple(found)

    def cost(self, network: Network) -> int:
        return self.build.cost_of(self)

    def least_cost(self) -> int:
        """The cost of the cheapest of the ways that need the least height."""
        costs = [self.build.scalars.cost(alternative) for alternative in self.scalars]
        costs += [c.least_cost() for c in self.containers if c.height == self.height]
        return min(costs, default=UNBOUNDED_COST)

    def describe(self) -> str:
        return f"value {self.node.path or '/'}"

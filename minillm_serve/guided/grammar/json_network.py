"""Normalised JSON Schema -> transition network.

Values (values.py) read their scalars as leaves (scalars.py) and go into objects (objects.py, further.py) and arrays
(arrays.py, unique.py); builder.py holds what they share and finds out what can be satisfied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.grammar.builder import Builder
from minillm_serve.guided.grammar.network import RETURN, Arc, Call, Jump, Network, Read
from minillm_serve.guided.grammar.values import IMPOSSIBLE
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.schema.graph import Graph
from minillm_serve.guided.schema.nodes import ArraySchema, Node, NumberSchema, ObjectSchema

MAX_DEPTH = 64  # objects and arrays one inside the other in a text


def build_json_network(
    root: Node,
    graph: Graph,
    options: JsonOptions | None = None,
    alphabet: frozenset[int] = frozenset(range(256)),
    point_zero: bool = True,
) -> Network:
    """The network of the JSON texts that ``root`` accepts; see :func:`add_json`."""
    network = Network(MAX_DEPTH)
    network.start = add_json(network, root, graph, options, alphabet, point_zero)
    return network


def add_json(
    network: Network,
    root: Node,
    graph: Graph,
    options: JsonOptions | None = None,
    alphabet: frozenset[int] = frozenset(range(256)),
    point_zero: bool = True,
) -> int:
    """Add the JSON texts that ``root``, a node of ``graph``, accepts to ``network``; the state in which they begin.

    alphabet: the bytes that are tokens of their own, by which every text must be possible. point_zero: may integers
    be written as 1.0? Raises :class:`SchemaError` for what cannot be enforced, and if no text satisfies the schema.
    """
    options = options or JsonOptions()
    build = Builder(network, graph, options, alphabet, point_zero)
    value = build.run(root)
    if value.height > network.max_depth:
        raise SchemaError(*blame(root, build), kind="unsatisfiable")
    state = network.state(value)
    if build.marks.flexible and options.max_whitespace:
        return network.state(Surrounded(state, build.marks.blank()))
    return state


@dataclass(frozen=True, slots=True)
class Surrounded:
    """A value with whitespace before and behind it."""

    value: int
    blank: int

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        begun = network.state(Begun(self.value, self.blank))
        return (Jump(begun), Read(self.blank, (begun,)))

    def cost(self, network: Network) -> int:
        return network.cost(self.value)

    def describe(self) -> str:
        return "the beginning"


@dataclass(frozen=True, slots=True)
class Begun:
    """The value comes now."""

    value: int
    blank: int

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        return (Call(self.value, network.state(Ended(self.blank))),)

    def cost(self, network: Network) -> int:
        return network.cost(self.value)

    def describe(self) -> str:
        return "the beginning"


@dataclass(frozen=True, slots=True)
class Ended:
    """The value is over."""

    blank: int

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        return (Jump(RETURN), Read(self.blank, (RETURN,)))

    def cost(self, network: Network) -> int:
        return 0

    def describe(self) -> str:
        return "the end"


def blame(root: Node, build: Builder) -> tuple[str, str, str]:
    """(keyword, path, problem) of the first thing that makes the root unsatisfiable."""
    node, seen = root, set()
    while node not in seen and node.reason is None:
        seen.add(node)
        for name, child in _needed(node):
            if build.value(child).height >= IMPOSSIBLE:
                if child.is_false and name is not None:
                    problem = f"{name!r} is required, but no value is allowed for it ({child.path or 'false'})"
                    return "required", pointer(node.path, "required"), problem
                node = child
                break
    if node.reason is not None:
        return node.reason
    for schema in node.alternatives or ():
        if isinstance(schema, NumberSchema):
            keyword = "maximum" if schema.interval.low is None else "minimum"
            return keyword, pointer(node.path, keyword), "no number of a reasonable length lies within the bounds"
        if isinstance(schema, ObjectSchema) and schema.min_properties > len(schema.required):
            problem = (
                f"there are not {schema.min_properties} names that a member may have and for which there is a value"
            )
            return "minProperties", pointer(node.path, "minProperties"), problem
        if isinstance(schema, ArraySchema) and schema.unique and schema.min_items > 1:
            problem = f"there are not {schema.min_items} different values for the items"
            return "uniqueItems", pointer(node.path, "uniqueItems"), problem
    return "schema", node.path, f"no text of at most {MAX_DEPTH} nested levels can satisfy it"


def _needed(node: Node) -> Iterator[tuple[str | None, Node]]:
    """The children without which the node's alternatives cannot be, with their names if they are properties."""
    for schema in node.alternatives or ():
        if isinstance(schema, ObjectSchema):
            yield from ((name, schema.properties[name]) for name in schema.properties if name in schema.required)
        elif isinstance(schema, ArraySchema):
            yield from ((None, child) for child in [*schema.prefix, schema.items][: schema.min_items])

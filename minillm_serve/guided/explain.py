"""What became of a constraint: its normalised schema, its network, and what in it is not enforced.

Everything is bounded: of a large schema the first nodes and states are shown, and how many were left out is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from minillm_serve.guided.automaton.matcher import Note
from minillm_serve.guided.describe import children, show_alternative, show_arc, show_leaf
from minillm_serve.guided.grammar.network import RETURN, Arc, Call, Network, Read
from minillm_serve.guided.schema.nodes import Node

MAX_NODES = 40
MAX_STATES = 60


@dataclass(frozen=True)
class NodeLines:
    """A node of the normalised schema: its name (``#3``), where it stands, and a line for each alternative."""

    name: str
    path: str
    alternatives: tuple[str, ...]


@dataclass(frozen=True)
class StateLines:
    """A state of the network: its number, what its place says of itself, and a line for each arc."""

    number: int
    place: str
    arcs: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """nodes_left_out, states_left_out: how many more are known of (what lies behind those has not been reached).

    leaves: a line for each leaf that the states shown read. shortest: bytes of the shortest text. notes: what asserts
    nothing, or was left out because that was asked for.
    """

    nodes: tuple[NodeLines, ...]
    nodes_left_out: int
    states: tuple[StateLines, ...]
    states_left_out: int
    leaves: dict[int, str]
    shortest: int
    max_depth: int
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


def explain(network: Network, notes: Iterable[Note] = (), root: Node | None = None) -> Explanation:
    """Walk a network breadth-first from its start, and the schema it was made from, if it was made from one."""
    nodes, nodes_left = ([], 0) if root is None else _nodes(root)
    states, states_left, leaves = _states(network)
    shown = {number: show_leaf(network.leaves[number]) for number in sorted(leaves)}
    shortest = network.cost(network.start)
    return Explanation(
        tuple(nodes), nodes_left, tuple(states), states_left, shown, shortest, network.max_depth, tuple(notes)
    )


def render(found: Explanation) -> str:
    """The explanation as text."""
    lines = []
    if found.nodes:
        lines += ["Normalised schema", ""]
        for node in found.nodes:
            first, *others = node.alternatives or ("nothing",)
            lines += [f"{node.name:>5} {node.path or '(root)'}", f"        {first}"]
            lines += [f"     or {other}" for other in others]
        lines += [f"        ... and {found.nodes_left_out} more"] if found.nodes_left_out else []
        lines.append("")
    lines += [f"Network: at most {found.max_depth} levels deep, the shortest text has {found.shortest} bytes", ""]
    for state in found.states:
        lines += [f"{state.number:>5} {state.place}", *(f"        {arc}" for arc in state.arcs)]
    lines += [f"        ... and {found.states_left_out} more states"] if found.states_left_out else []
    lines += ["", f"Leaves: {len(found.leaves)}", *(f"{number:>5} {leaf}" for number, leaf in found.leaves.items())]
    if found.notes:
        lines += ["", "Not enforced"]
        lines += [f"      {keyword} at {path or '(root)'}: {why}" for keyword, path, why in found.notes]
    return "\n".join(lines)


def _nodes(root: Node) -> tuple[list[NodeLines], int]:
    numbers, queue, found = {root: 1}, deque([root]), []

    def name(node: Node) -> str:
        return "never" if node.is_false else f"#{numbers[node]}"

    while queue and len(found) < MAX_NODES:
        node = queue.popleft()
        for schema in node.alternatives or ():
            for child in children(schema):
                if child not in numbers and not child.is_false:
                    numbers[child] = len(numbers) + 1
                    queue.append(child)
        lines = tuple(show_alternative(schema, name) for schema in node.alternatives or ())
        found.append(NodeLines(name(node), node.path, lines))
    return found, len(queue)


def _states(network: Network) -> tuple[list[StateLines], int, set[int]]:
    known, queue = {network.start}, deque([network.start])
    found: list[StateLines] = []
    leaves: set[int] = set()
    while queue and len(found) < MAX_STATES:
        state = queue.popleft()
        if state == RETURN:
            continue
        arcs = network.expand(state)
        leaves |= {arc.leaf for arc in arcs if isinstance(arc, Read)}
        for target in dict.fromkeys(target for arc in arcs for target in _targets(arc)):
            if target not in known:
                known.add(target)
                queue.append(target)
        lines = tuple(show_arc(network, arc) for arc in arcs)
        found.append(StateLines(state, network.describe(state), lines))
    return found, sum(state != RETURN for state in queue), leaves


def _targets(arc: Arc) -> tuple[int, ...]:
    if isinstance(arc, Read):
        return arc.targets
    return (arc.entry, arc.then) if isinstance(arc, Call) else (arc.target,)

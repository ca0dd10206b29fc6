"""Several witnesses in an object with too few members for all of them: one member has to be more than one."""

from __future__ import annotations

from dataclasses import replace

from minillm_serve.guided.budget import spend
from minillm_serve.guided.schema.graph import Graph
from minillm_serve.guided.schema.nodes import ObjectSchema, StringSchema, Witness
from minillm_serve.guided.text.languages import accepts


def gathered(schema: ObjectSchema, graph: Graph) -> list[ObjectSchema]:
    """Object schemas that together accept the same, each with room for a member of its own for every witness."""
    most = schema.max_properties
    if most is None or len(schema.required) + len(schema.witnesses) <= most:
        return [schema]
    ways = [replace(schema, witnesses=())]
    for witness in schema.witnesses:
        ways = [further for way in ways for further in _with(way, witness, most, graph)]
    return ways


def _with(way: ObjectSchema, witness: Witness, most: int, graph: Graph) -> list[ObjectSchema]:
    """The witness as a member of its own, as one that is another witness too, or as a required one."""
    spend(50, "not")
    found = []
    if len(way.required) + len(way.witnesses) < most:
        found.append(replace(way, witnesses=(*way.witnesses, witness)))
    for index, other in enumerate(way.witnesses):
        both = Witness(_meet(other.names, witness.names), graph.both(other.node, witness.node))
        found.append(replace(way, witnesses=(*way.witnesses[:index], both, *way.witnesses[index + 1 :])))
    for name in sorted(way.required):
        if accepts(witness.names, name):
            node = graph.both(way.properties[name], witness.node)
            found.append(replace(way, properties={**way.properties, name: node}))
    return found


def _meet(a: StringSchema, b: StringSchema) -> StringSchema:
    highs = [high for high in (a.max_length, b.max_length) if high is not None]
    patterns = tuple(dict.fromkeys((*a.patterns, *b.patterns)))
    return StringSchema(max(a.min_length, b.min_length), min(highs, default=None), patterns, a.excluded | b.excluded)

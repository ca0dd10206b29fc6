"""Witnesses among names that are few: told as required properties, one way to be the object for each of them.

What is left are witnesses among names of which there are always more, so that a text never uses them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.grammar.further import MANY, names_language
from minillm_serve.guided.schema.graph import Graph
from minillm_serve.guided.schema.nodes import ObjectSchema, Witness
from minillm_serve.guided.schema.object_algebra import allows_name, value_at
from minillm_serve.guided.schema.witnesses import gathered
from minillm_serve.guided.text.chars_algebra import count_words, from_words, intersect, subtract, words

MAX_NAMES = 64
MAX_WAYS = 256


def only_further_witnesses(schema: ObjectSchema, graph: Graph, path: str) -> list[ObjectSchema]:
    """Object schemas that together accept the same, without witnesses among finitely many names."""
    ways: list[ObjectSchema] = []
    for way in gathered(schema, graph):
        split = [way]
        for witness in way.witnesses:
            split = [more for one in split for more in _ways(one, witness, graph, path)]
            spend(20 * len(split), "not", path)
        ways += split
        if len(ways) > MAX_WAYS:
            raise SchemaError("not", path, f"more than {MAX_WAYS} combinations of members that must violate it")
    return ways


def _ways(schema: ObjectSchema, witness: Witness, graph: Graph, path: str) -> Iterator[ObjectSchema]:
    rest = replace(schema, witnesses=tuple(other for other in schema.witnesses if other is not witness))
    for name in schema.properties:
        if allows_name((witness.names,), name):
            yield _with(rest, name, witness, graph)
    names = names_language((witness.names,))
    if schema.names is not None:
        names = intersect(names, names_language(schema.names))
    if any(names.match(name) >= 0 for name in schema.properties):
        names = subtract(names, from_words(schema.properties))
    number = count_words(names, MANY)
    if number >= MANY:
        yield schema
    elif number > MAX_NAMES:
        problem = f"one of {number} names must violate it; no more than {MAX_NAMES} can be told apart"
        raise SchemaError("not", pointer(path, "not"), problem)
    else:
        for name in words(names, MAX_NAMES):
            yield _with(rest, name, witness, graph)


def _with(schema: ObjectSchema, name: str, witness: Witness, graph: Graph) -> ObjectSchema:
    """The objects in which the member ``name`` is the witness."""
    node = graph.both(value_at(schema, name, graph.both), witness.node)
    return replace(schema, properties={**schema.properties, name: node}, required=schema.required | {name})

"""Conditions: if/then/else and dependentSchemas, as unions of alternatives."""

from __future__ import annotations

from minillm_serve.guided.schema.complement import without
from minillm_serve.guided.schema.disjoint import apart
from minillm_serve.guided.schema.exclusive import EVERYTHING
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.nodes import ANY, NEVER, Alternative, Node, ObjectSchema
from minillm_serve.guided.schema.simplify import covers, shape, simplified


def conditional(
    condition: Node,
    then: Node | None,
    otherwise: Node | None,
    path: str,
    graph: Graph,
    before: Alternatives = EVERYTHING,
    beside: Alternatives = EVERYTHING,
) -> Alternatives:
    """``before``, where it satisfies ``condition`` met with ``then`` and where it does not met with ``otherwise``.

    What is None asserts nothing. path: of the schema in which ``if`` stands. beside: what other keywords there ask
    for; it is not met, it only tells where the condition is sure to hold or to fail. Raises :class:`SchemaError` for
    ``if`` when the complement of the condition cannot be expressed.
    """
    if then is None and otherwise is None:
        return before
    tests = graph.resolve(condition)
    yes, no = (EVERYTHING if node is None else graph.resolve(node) for node in (then, otherwise))
    if otherwise is None and (dependents := _as_dependents(tests, yes, graph)) is not None:
        return graph.meet(before, dependents, "if", path)
    found: list[Alternative] = []
    for one in before:
        known = graph.meet((one,), beside, "if", path)
        if all(apart(x, test, graph) for x in known for test in tests):
            found.extend(graph.meet((one,), no, "else", path))
        elif all(any(covers(test, x, graph) for test in tests) for x in known):
            found.extend(graph.meet((one,), yes, "then", path))
        else:
            held = graph.meet((one,), tests, "if", path)
            found.extend(graph.meet(held, yes, "then", path))
            found.extend(graph.meet(without((one,), tests, graph, "if", path), no, "else", path))
    return simplified(tuple(found), graph, path)


def _as_dependents(tests: Alternatives, yes: Alternatives, graph: Graph) -> Alternatives | None:
    """The condition as a rule "where this member is, those are too"; None if it says anything else."""
    name, names = _just_required(tests), _just_required(yes)
    if name is None or names is None or len(name) != 1:
        return None
    if not all(any(covers(y, x, graph) for y in yes) for x in tests if not isinstance(x, ObjectSchema)):
        return None
    (key,) = name
    rest = tuple(alternative for alternative in EVERYTHING if not isinstance(alternative, ObjectSchema))
    mentioned = dict.fromkeys((key, *sorted(names - name)), ANY)
    dependents = {key: names - name} if names - name else {}
    return (ObjectSchema(mentioned, extra=ANY, dependents=dependents, undeclared=frozenset(mentioned)), *rest)


def _just_required(alternatives: Alternatives) -> frozenset[str] | None:
    """The members that objects must have, if nothing else is asked of objects."""
    objects = [alternative for alternative in alternatives if isinstance(alternative, ObjectSchema)]
    if len(objects) != 1:
        return None
    plain = ObjectSchema(dict.fromkeys(objects[0].properties, ANY), objects[0].required, ANY)
    return objects[0].required if shape(objects[0]) == shape(plain) else None


def dependent_schema(name: str, node: Node, path: str, graph: Graph) -> Alternatives:
    """Objects without the member ``name``, and objects with it that satisfy ``node`` (as do values that are none)."""
    if node is ANY:
        return EVERYTHING
    rest = tuple(alternative for alternative in EVERYTHING if not isinstance(alternative, ObjectSchema))
    alone = frozenset([name])
    present = (ObjectSchema({name: ANY}, alone, ANY, undeclared=alone),)
    absent = ObjectSchema({name: NEVER}, extra=ANY, undeclared=alone)
    return (absent, *graph.meet(present, graph.resolve(node), "dependentSchemas", path), *rest)

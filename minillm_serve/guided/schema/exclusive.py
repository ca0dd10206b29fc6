"""oneOf: exactly one of several branches, as a union of alternatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.complement import without
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.nodes import (
    ANY,
    Alternative,
    ArraySchema,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    json_key,
)
from minillm_serve.guided.schema.simplify import simplified

MAX_BRANCHES = 2_000
EVERYTHING: Alternatives = ANY.alternatives  # type: ignore[assignment]
Mark = tuple[str, object]  # (JSON type, a value by which the branch is told from others; None: it may be any)


def one_of(
    branches: list[Node], path: str, graph: Graph, before: Alternatives = EVERYTHING, beside: Alternatives = EVERYTHING
) -> Alternatives:
    """What exactly one of ``branches`` accepts, met with ``before`` and ``beside``.

    path: of the schema in which ``oneOf`` stands. before, beside: what other keywords there ask for, which often
    tells branches apart; ``before`` comes first in the order of properties, ``beside`` last. From each branch what the
    others accept is taken away: nothing, if they exclude each other. Raises :class:`SchemaError` for ``oneOf``,
    naming two branches, if that cannot be expressed.
    """
    here = pointer(path, "oneOf")
    if len(branches) > MAX_BRANCHES:
        raise SchemaError("oneOf", here, f"more than {MAX_BRANCHES} branches; use anyOf if they exclude each other")
    met = []
    for branch in branches:
        left = graph.meet(before, graph.resolve(branch), "oneOf", path)
        met.append(graph.meet(left, beside, "oneOf", path))
    found: list[Alternative] = []
    for index, rivals in enumerate(_rivals(met, here, graph)):
        left = met[index]
        for other in rivals:
            if left:
                left = _without(left, branches[other], graph, here, f"branches {index} and {other} may both hold")
        found.extend(left)
    return simplified(tuple(found), graph, here)


def _without(left: Alternatives, node: Node, graph: Graph, here: str, overlap: str) -> Alternatives:
    others = graph.resolve(node)
    try:
        return without(left, others, graph, "oneOf", here)
    except SchemaError as error:
        raise SchemaError("oneOf", here, f"{overlap}, and that cannot be excluded: {error.problem}") from None


def _rivals(met: list[Alternatives], here: str, graph: Graph) -> Iterator[list[int]]:
    """For each branch the others that its marks do not tell apart from it."""
    name = _discriminator(met, graph)
    marks = [{mark for alternative in branch for mark in _marks(alternative, name, graph)} for branch in met]
    of_mark: dict[Mark, set[int]] = {}
    of_kind: dict[str, set[int]] = {}
    for index, own in enumerate(marks):
        for mark in own:
            of_mark.setdefault(mark, set()).add(index)
            of_kind.setdefault(mark[0], set()).add(index)
    for index, own in enumerate(marks):
        spend(len(own), "oneOf", here)
        found: set[int] = set()
        for kind, value in own:
            found |= of_kind[kind] if value is None else of_mark[kind, value] | of_mark.get((kind, None), set())
        yield sorted(found - {index})


def _discriminator(met: list[Alternatives], graph: Graph) -> str | None:
    """The member that is required to be a constant in the most branches, if there is one."""
    counts: Counter[str] = Counter()
    for branch in met:
        for alternative in branch:
            if isinstance(alternative, ObjectSchema):
                counts.update(name for name in alternative.required if _constants(alternative, name, graph) is not None)
    return max(counts, key=lambda name: (counts[name], name), default=None)


def _constants(schema: ObjectSchema, name: str, graph: Graph) -> list[Mark] | None:
    """The values of a member that is a choice of scalars; None if it is anything else."""
    found = graph.peek(schema.properties[name])
    if not found or not all(isinstance(alternative, LiteralSchema) for alternative in found):
        return None
    return [json_key(value) for alternative in found for value in alternative.possible]  # type: ignore[union-attr]


def _marks(alternative: Alternative, name: str | None, graph: Graph) -> Iterator[Mark]:
    if isinstance(alternative, LiteralSchema):
        for value in alternative.possible:
            key = json_key(value)
            yield key[0], key
    elif isinstance(alternative, ObjectSchema):
        constants = _constants(alternative, name, graph) if name in alternative.required else None
        yield from (("object", key) for key in constants) if constants is not None else (("object", None),)
    elif isinstance(alternative, ArraySchema):
        yield "array", None
    else:
        yield "number" if isinstance(alternative, NumberSchema) else "string", None

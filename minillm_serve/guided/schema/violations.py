"""The ways in which a value can fail to satisfy an alternative."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.nodes import (
    ANY,
    NEVER,
    Alternative,
    ArraySchema,
    Contains,
    Interval,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    Pattern,
    StringSchema,
    Witness,
)
from minillm_serve.guided.schema.simplify import shape

Negate = Callable[[Node], Node]  # the node for what a node refuses, worked out lazily


def violations(
    alternative: Alternative, negate: Negate, graph: Graph, keyword: str, path: str
) -> Iterator[Alternative]:
    """The values of the same type that ``alternative`` refuses, as a union of alternatives (they may overlap).

    Raises :class:`SchemaError` for ``keyword`` at ``path`` where there is no telling (of uniqueItems).
    """
    match alternative:
        case ObjectSchema():
            yield from _object(alternative, negate, graph)
        case ArraySchema():
            yield from _array(alternative, negate, keyword, path)
        case StringSchema():
            yield from _string(alternative)
        case NumberSchema():
            yield from _number(alternative)


def _string(schema: StringSchema) -> Iterator[Alternative]:
    if schema.min_length > 0:
        yield StringSchema(0, schema.min_length - 1)
    if schema.max_length is not None:
        yield StringSchema(schema.max_length + 1)
    for pattern in schema.patterns:
        yield StringSchema(patterns=(_negated(pattern),))
    if schema.excluded:
        yield LiteralSchema(tuple(sorted(schema.excluded)))


def _negated(pattern: Pattern) -> Pattern:
    return replace(pattern, negated=not pattern.negated)


def _number(schema: NumberSchema) -> Iterator[Alternative]:
    interval = schema.interval
    if interval.low is not None:
        yield NumberSchema(Interval(high=interval.low, high_open=not interval.low_open))
    if interval.high is not None:
        yield NumberSchema(Interval(low=interval.high, low_open=not interval.high_open))
    if schema.integer:
        yield NumberSchema(fractional=True)
    if schema.fractional:
        yield NumberSchema(integer=True)
    for step in schema.multiples:
        yield NumberSchema(not_multiples=(step,))
    for step in schema.not_multiples:
        yield NumberSchema(multiples=(step,))
    if schema.excluded:
        yield LiteralSchema(tuple(sorted(schema.excluded)))


def _array(schema: ArraySchema, negate: Negate, keyword: str, path: str) -> Iterator[Alternative]:
    if schema.unique and (schema.max_items is None or schema.max_items > 1):
        raise SchemaError(keyword, path, "the complement of uniqueItems (two equal items) cannot be enforced")
    if schema.min_items > 0:
        yield ArraySchema((), ANY, 0, schema.min_items - 1)
    if schema.max_items is not None:
        yield ArraySchema((), ANY, schema.max_items + 1)
    for index, node in enumerate(schema.prefix):
        if node is not ANY:
            prefix = (ANY,) * index + (negate(node),)
            yield ArraySchema(prefix, ANY, index + 1)
    if schema.items.is_false:
        yield ArraySchema((), ANY, len(schema.prefix) + 1)
    elif schema.items is not ANY:
        yield ArraySchema((), ANY, contains=(Contains(negate(schema.items), start=len(schema.prefix)),))
    for rule in schema.contains:
        if rule.low == 1:
            yield ArraySchema((ANY,) * rule.start, negate(rule.node))
        elif rule.low > 1:
            yield ArraySchema((), ANY, contains=(replace(rule, low=0, high=rule.low - 1),))
        if rule.high is not None:
            yield ArraySchema((), ANY, contains=(replace(rule, low=rule.high + 1, high=None),))


def _object(schema: ObjectSchema, negate: Negate, graph: Graph) -> Iterator[Alternative]:
    for name, node in schema.properties.items():
        if name in schema.required:
            yield _about({name: negate(node)})
        elif node is not ANY:
            yield _about({name: negate(node)}, name)
    if schema.min_properties > 0:
        yield ObjectSchema(extra=ANY, max_properties=schema.min_properties - 1)
    if schema.max_properties is not None:
        yield ObjectSchema(extra=ANY, min_properties=schema.max_properties + 1)
    for name, needed in schema.dependents.items():
        for other in sorted(needed - {name}):
            yield _about({name: ANY, other: NEVER}, name)
    named = frozenset(schema.properties)
    for pattern, node in schema.patterns:
        if node is not ANY:
            yield _witnessed(StringSchema(patterns=(pattern,), excluded=named), negate(node))
    if schema.extra is not ANY:
        others = tuple(_negated(pattern) for pattern, _ in schema.patterns)
        yield _witnessed(StringSchema(patterns=others, excluded=named), negate(schema.extra))
    if schema.names is not None:
        yield from wrong_names(schema.names, graph)
    for witness in schema.witnesses:
        yield _unwitnessed(witness, negate)


def _about(properties: dict[str, Node], *required: str) -> ObjectSchema:
    """Objects of which only these members matter; they have no place of their own in the order of members."""
    return ObjectSchema(properties, frozenset(required), ANY, undeclared=frozenset(properties))


def _witnessed(names: StringSchema, node: Node) -> ObjectSchema:
    if node is ANY and shape(names) == shape(StringSchema()):
        return ObjectSchema(extra=ANY, min_properties=1)
    return ObjectSchema(extra=ANY, witnesses=(Witness(names, node),))


def wrong_names(names: Iterable[StringSchema | LiteralSchema], graph: Graph) -> Iterator[ObjectSchema]:
    """Objects with some member whose name is none of ``names``."""
    accepted = tuple(names)
    values = frozenset(v for a in accepted if isinstance(a, LiteralSchema) for v in a.possible if isinstance(v, str))
    left: Alternatives = (StringSchema(excluded=values),)
    for alternative in accepted:
        if isinstance(alternative, StringSchema) and left:
            left = graph.meet(left, tuple(_string(alternative)), "propertyNames", "")
    for alternative in left:
        if isinstance(alternative, StringSchema):
            yield _witnessed(alternative, ANY)
        elif isinstance(alternative, LiteralSchema):
            for name in alternative.values:
                yield _about({name: ANY}, name)


def _unwitnessed(witness: Witness, negate: Negate) -> ObjectSchema:
    """Objects in which every member with such a name violates ``witness.node``.

    Names that one of the negated patterns matches are not such names; whatever is left is a further member.
    """
    names = witness.names
    others = [_negated(pattern) for pattern in names.patterns]
    if names.min_length > 0:
        others.append(_negated(_of_length(names.min_length, None)))
    if names.max_length is not None:
        others.append(_negated(_of_length(0, names.max_length)))
    return ObjectSchema(
        properties=dict.fromkeys(sorted(names.excluded), ANY),
        extra=negate(witness.node),
        patterns=tuple((pattern, ANY) for pattern in others),
        undeclared=names.excluded,
    )


def _of_length(low: int, high: int | None) -> Pattern:
    return Pattern(f"^[\\s\\S]{{{low},{'' if high is None else high}}}$")

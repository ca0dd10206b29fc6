"""Strings, numbers and constants: their keywords as alternatives."""

from __future__ import annotations

from typing import Any, Protocol

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.algebra import array_of
from minillm_serve.guided.schema.document import malformed
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.keywords import read_count, read_flag, read_multiple, read_number, read_text, shown
from minillm_serve.guided.schema.nodes import (
    NEVER,
    Alternative,
    Interval,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    Pattern,
    StringSchema,
    kind_of,
)
from minillm_serve.guided.text.formats import FORMATS
from minillm_serve.guided.text.number_sets import number_is_empty

MAX_CONSTANT_CHARS = 400_000
MAX_LEAST = 10**9  # below what costs can tell apart: a text has a byte for each, so nothing longer is ever finished


class Reading(Graph, Protocol):
    """What the readers of keywords ask of the normaliser besides nodes."""

    draft: int

    def note(self, keyword: str, path: str, why: str) -> None:
        """Tell the user of something that stands in the schema and asserts nothing."""
        ...

    def blame(self, keyword: str, path: str, problem: str) -> None:
        """Remember why the node being resolved may accept nothing; an error only if something needs the node."""
        ...


def read_counts(graph: Reading, raw: dict, least: str, most: str, path: str) -> tuple[int, int | None]:
    """A pair of bounds such as minLength and maxLength."""
    low, high = read_count(raw, least, path) or 0, read_count(raw, most, path)
    if low > MAX_LEAST:
        raise SchemaError(least, pointer(path, least), f"more than {MAX_LEAST} are never reached")
    if high is not None and low > high:
        graph.blame(least, pointer(path, least), f"{least} {low} is greater than {most} {high}")
    return low, high


def read_string(graph: Reading, raw: dict, path: str) -> StringSchema | None:
    """What minLength, maxLength, pattern and format leave of all strings; None if that is nothing."""
    low, high = read_counts(graph, raw, "minLength", "maxLength", path)
    patterns = []
    if "pattern" in raw:
        patterns.append(Pattern(read_text(raw, "pattern", path), path=pointer(path, "pattern")))
    if "format" in raw:
        name, here = read_text(raw, "format", path), pointer(path, "format")
        if name in FORMATS:
            patterns.append(Pattern(name, is_format=True, path=here))
        else:
            graph.note("format", here, f"the format {shown(name)} is not known, so it asserts nothing")
    return None if high is not None and low > high else StringSchema(low, high, tuple(patterns))


def read_interval(graph: Reading, raw: dict, path: str) -> Interval:
    """minimum, maximum and the exclusive ones, which are booleans beside the others in draft 4."""
    low, high = read_number(raw, "minimum", path), read_number(raw, "maximum", path)
    if graph.draft == 4:
        return Interval(
            low,
            read_flag(raw, "exclusiveMinimum", path) and low is not None,
            high,
            read_flag(raw, "exclusiveMaximum", path) and high is not None,
        )
    interval = Interval(low=low, high=high)
    if "exclusiveMinimum" in raw:
        interval = interval.meet(Interval(low=read_number(raw, "exclusiveMinimum", path), low_open=True))
    if "exclusiveMaximum" in raw:
        interval = interval.meet(Interval(high=read_number(raw, "exclusiveMaximum", path), high_open=True))
    return interval


def read_numbers(graph: Reading, raw: dict, path: str, integer: bool) -> NumberSchema | None:
    """What the keywords about numbers leave of all numbers, or of all integers; None if that is nothing."""
    schema = NumberSchema(read_interval(graph, raw, path), integer, multiples=read_multiple(raw, path))
    if None not in (schema.interval.low, schema.interval.high) and number_is_empty(schema):
        keyword = "minimum" if "minimum" in raw else "exclusiveMinimum"
        kind = "integer" if integer else "number"
        graph.blame(keyword, pointer(path, keyword), f"no such {kind} lies between the lower and the upper bound")
        return None
    return schema


def read_constants(graph: Reading, raw: dict, keyword: str, path: str) -> Alternatives:
    """The alternatives of ``enum`` or ``const``: one for all scalars, one for each array or object."""
    values, here = [raw["const"]] if keyword == "const" else raw["enum"], pointer(path, keyword)
    if not isinstance(values, list):
        raise malformed("enum", here, f"expected an array, got {shown(values)}")
    if not values:
        graph.blame("enum", here, "an empty enum accepts no value")
    if sum(len(value) if isinstance(value, str) else 8 for value in values) > MAX_CONSTANT_CHARS:
        raise SchemaError("enum", here, f"the constants hold more than {MAX_CONSTANT_CHARS} characters in all")
    scalars = tuple(value for value in values if not isinstance(value, (dict, list, tuple)))
    containers = [value for value in values if isinstance(value, (dict, list, tuple))]
    found = (LiteralSchema(scalars),) if scalars else ()
    return found + tuple(constant(graph, value, here) for value in containers)


def constant(graph: Graph, value: Any, path: str) -> Alternative:
    """A constant as the schema that only it satisfies."""
    if kind_of(value) == "object":
        properties = {key: _constant_node(graph, child, path) for key, child in value.items()}
        return ObjectSchema(properties, frozenset(value), NEVER)
    if kind_of(value) == "array":
        prefix = tuple(_constant_node(graph, child, path) for child in value)
        found = array_of(prefix, NEVER, len(value), len(value))
        assert found is not None
        return found
    return LiteralSchema((value,))


def _constant_node(graph: Graph, value: Any, path: str) -> Node:
    return graph.add(path, lambda: (constant(graph, value, path),))

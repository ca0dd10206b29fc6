"""Arrays and objects: their keywords as alternatives."""

from __future__ import annotations

from typing import Any

from minillm_serve.guided.errors import pointer
from minillm_serve.guided.schema.algebra import array_of
from minillm_serve.guided.schema.document import malformed
from minillm_serve.guided.schema.keywords import read_count, read_flag, read_list, read_map, read_names, shown
from minillm_serve.guided.schema.nodes import (
    ANY,
    NEVER,
    ArraySchema,
    Contains,
    LiteralSchema,
    Node,
    ObjectSchema,
    Pattern,
    StringSchema,
)
from minillm_serve.guided.schema.object_algebra import Names, Patterns, Values
from minillm_serve.guided.schema.scalars import Reading, read_counts


def read_array(graph: Reading, raw: dict, path: str) -> ArraySchema | None:
    """What the keywords about arrays leave of all arrays; None if that is plainly nothing."""
    low, high = read_counts(graph, raw, "minItems", "maxItems", path)
    prefix, items = _items(graph, raw, path)
    contains = _contains(graph, raw, path)
    found = array_of(prefix, items, low, high, read_flag(raw, "uniqueItems", path), contains)
    if found is None:
        keyword = "minItems" if "minItems" in raw and not contains else "contains"
        graph.blame(keyword, pointer(path, keyword), "no array of an allowed length has the items that are needed")
    return found


def _items(graph: Reading, raw: dict, path: str) -> tuple[tuple[Node, ...], Node]:
    """(prefix, items) of prefixItems and items, or of an array of items and additionalItems as older drafts have it."""
    first, rest = ("prefixItems", "items") if graph.draft >= 2020 else ("items", "additionalItems")
    if isinstance(raw.get("items"), list):
        if "prefixItems" in raw and graph.draft >= 2020:
            raise malformed("items", pointer(path, "items"), "an array beside prefixItems; give one of the two")
        first, rest = "items", "additionalItems"
    elif graph.draft >= 2020 and "additionalItems" in raw:
        graph.note("additionalItems", pointer(path, "additionalItems"), "without an array of items it asserts nothing")
    elif graph.draft < 2020:
        first, rest = "", "items"  # additionalItems asserts nothing beside one schema for all items
    prefix = ()
    if first in raw:
        branches = raw[first] if first == "items" and raw[first] == [] else read_list(raw, first, path)
        prefix = tuple(graph.node(branch, pointer(path, first, i)) for i, branch in enumerate(branches))
    return prefix, graph.node(raw[rest], pointer(path, rest)) if rest in raw else ANY


def _contains(graph: Reading, raw: dict, path: str) -> tuple[Contains, ...]:
    if "contains" not in raw:
        return ()
    low, high = 1, None
    if graph.draft >= 2019:
        low, high = read_count(raw, "minContains", path), read_count(raw, "maxContains", path)
        low = 1 if low is None else low
        if high is not None and low > high:
            keyword = "minContains" if "minContains" in raw else "maxContains"
            graph.blame(keyword, pointer(path, keyword), f"minContains {low} is greater than maxContains {high}")
    if low == 0 and high is None:
        return ()
    return (Contains(graph.node(raw["contains"], pointer(path, "contains")), low, high),)


def read_object(graph: Reading, raw: dict, path: str) -> ObjectSchema | None:
    """What the keywords about objects leave of all objects; None if that is plainly nothing."""
    low, high = read_counts(graph, raw, "minProperties", "maxProperties", path)
    extra = ANY
    if "additionalProperties" in raw:
        extra = graph.node(raw["additionalProperties"], pointer(path, "additionalProperties"))
    patterns, names = _patterns(graph, raw, path), _names(graph, raw, path)
    values = Values(ObjectSchema(extra=extra, patterns=patterns, names=names), graph.both)
    properties = _declared(graph, raw, path, values)
    required = read_names(raw.get("required", []), "required", pointer(path, "required"))
    dependents = _dependents(graph, raw, path)
    undeclared = []
    for name in (*required, *dependents, *(other for needed in dependents.values() for other in needed)):
        if name not in properties:
            undeclared.append(name)
            properties[name] = values.of(name)
    for name in required:
        if properties[name].is_false:
            problem = f"{name!r} is required, but no value is allowed for it ({properties[name].path or 'false'})"
            graph.blame("required", pointer(path, "required"), problem)
            return None
    if high is not None and max(low, len(required)) > high:
        if len(required) > high:
            graph.blame("maxProperties", pointer(path, "maxProperties"), f"{len(required)} members are required")
        return None
    if names == ():
        patterns, names, extra = (), None, NEVER
    return ObjectSchema(
        properties,
        frozenset(required),
        extra,
        patterns,
        names,
        low if low > len(required) else 0,
        high,
        {name: frozenset(needed) for name, needed in dependents.items()},
        undeclared=frozenset(undeclared),
    )


def _declared(graph: Reading, raw: dict, path: str, values: Values) -> dict[str, Node]:
    """The named properties, each met with what the patterns and propertyNames say about its name."""
    here, plain = pointer(path, "properties"), values.schema.names is None and not values.schema.patterns
    found = {}
    for name, value in read_map(raw, "properties", path).items():
        node = graph.node(value, pointer(here, name))
        found[name] = node if plain else graph.both(node, values.matched(name, ANY))
    return found


def _patterns(graph: Reading, raw: dict, path: str) -> Patterns:
    if "patternProperties" not in raw:
        return ()
    here = pointer(path, "patternProperties")
    return tuple(
        (Pattern(text, path=pointer(here, text)), graph.node(value, pointer(here, text)))
        for text, value in read_map(raw, "patternProperties", path).items()
    )


def _names(graph: Reading, raw: dict, path: str) -> Names:
    """The strings that propertyNames allows; None for all of them."""
    if "propertyNames" not in raw:
        return None
    node = graph.node(raw["propertyNames"], pointer(path, "propertyNames"))
    if node is ANY:
        return None
    found: list[StringSchema | LiteralSchema] = []
    for alternative in graph.resolve(node):
        if isinstance(alternative, StringSchema):
            found.append(alternative)
        elif isinstance(alternative, LiteralSchema):
            texts = tuple(value for value in alternative.values if isinstance(value, str))
            found += [LiteralSchema(texts)] if texts else []
    return None if any(_is_free(names) for names in found) else tuple(found)


def _is_free(names: StringSchema | LiteralSchema) -> bool:
    return isinstance(names, StringSchema) and (
        (names.min_length, names.max_length, names.patterns) == (0, None, ()) and not names.excluded
    )


def _dependents(graph: Reading, raw: dict, path: str) -> dict[str, list[str]]:
    """Which names must be there too where a name is: dependentRequired, and dependencies that are just that."""
    found: dict[str, list[str]] = {}
    for keyword in ("dependentRequired", "dependencies"):
        for name, needed in read_map(raw, keyword, path).items():
            here = pointer(path, keyword, name)
            if keyword == "dependencies" and not isinstance(needed, list):
                if not isinstance(needed, (dict, bool)):
                    raise malformed(keyword, here, f"expected an array or a schema, got {shown(needed)}")
                if not is_just_required(needed):
                    continue
                needed = needed["required"]
            names = [other for other in read_names(needed, keyword, here) if other != name]
            if names:
                found[name] = [*found.get(name, ()), *names]
    return found


def is_just_required(raw: Any) -> bool:
    """Does a schema that is met with an object say no more about it than which members are required?"""
    if not isinstance(raw, dict) or "required" not in raw:
        return False
    return raw.keys() <= {"required", "type", "description", "title"} and raw.get("type", "object") == "object"

"""One raw subschema: each of its keywords as alternatives, and all of them met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minillm_serve.guided.errors import pointer
from minillm_serve.guided.schema.complement import without
from minillm_serve.guided.schema.conditions import conditional, dependent_schema
from minillm_serve.guided.schema.containers import is_just_required, read_array, read_object
from minillm_serve.guided.schema.dialect import ANNOTATIONS, ASSERTING, NAMES
from minillm_serve.guided.schema.exclusive import EVERYTHING, one_of
from minillm_serve.guided.schema.graph import Alternatives
from minillm_serve.guided.schema.keywords import read_list, read_map, read_types
from minillm_serve.guided.schema.nodes import ANY, Alternative, LiteralSchema, Node, NumberSchema
from minillm_serve.guided.schema.scalars import read_constants, read_numbers, read_string
from minillm_serve.guided.schema.unevaluated import with_unevaluated

if TYPE_CHECKING:
    from minillm_serve.guided.schema.normalise import Normaliser

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
COMBINING = frozenset(
    {*REFERENCES, "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas", "dependencies"}
)
CONDITIONS = frozenset({"if", "then", "else", "oneOf", "not"})
ABOUT = {
    "object": frozenset(
        {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
         "maxProperties", "dependentRequired", "dependencies"}
    ),
    "array": frozenset(
        {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains"}
    ),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}  # fmt: skip
ABOUT_TYPES = frozenset({"type"}).union(*ABOUT.values())
_FREE: dict[str, Alternative] = {
    **dict(zip(("object", "array", "string", "number"), ANY.alternatives or (), strict=False)),
    "integer": NumberSchema(integer=True),
    "boolean": LiteralSchema((True, False)),
    "null": LiteralSchema((None,)),
}


def read_subschema(graph: Normaliser, raw: dict, path: str) -> Alternatives:
    """The alternatives of ``raw``, an object of keywords that stands at ``path``."""
    raw = _asserting(graph, raw, path)
    if graph.draft <= 7 and "$ref" in raw:
        return graph.resolve(graph.node(*graph.target(raw, "$ref", path)))
    if "unevaluatedProperties" in raw or "unevaluatedItems" in raw:
        return with_unevaluated(raw, path, graph, contains_evaluates=graph.draft >= 2020)
    if raw.keys().isdisjoint(COMBINING):
        return _typed(graph, raw, path)
    return _combined(graph, raw, path)


def _asserting(graph: Normaliser, raw: dict, path: str) -> dict:
    """``raw`` without annotations; a note for each keyword that asserts nothing and might be meant to."""
    asserting = ASSERTING[graph.draft]
    if raw.keys() <= asserting:
        kept = raw
    else:
        kept = {key: value for key, value in raw.items() if key in asserting}
        for key in raw.keys() - asserting - ANNOTATIONS:
            if not key.startswith("x-"):
                why = f"it is no keyword of JSON Schema {NAMES[graph.draft]}, so it asserts nothing"
                graph.note(key, pointer(path, key), why)
    if graph.draft <= 7 and "$ref" in kept and len(kept) > 1:
        for key in kept.keys() - {"$ref"}:
            graph.note(key, pointer(path, key), "up to draft 7, keywords beside $ref assert nothing ($schema says so)")
    return kept


def _typed(graph: Normaliser, raw: dict, path: str) -> Alternatives:
    """What the keywords about each type leave, for every type that ``type`` allows."""
    if raw.keys().isdisjoint(ABOUT_TYPES):
        return ANY.alternatives  # type: ignore[return-value]
    types = read_types(raw, path)
    if not types:
        graph.blame("type", pointer(path, "type"), "an empty list of types accepts no value")
    found = (_of_type(graph, kind, raw, path) for kind in types)
    return tuple(alternative for alternative in found if alternative is not None)


def _of_type(graph: Normaliser, kind: str, raw: dict, path: str) -> Alternative | None:
    about = ABOUT.get("number" if kind == "integer" else kind)
    if about is None or raw.keys().isdisjoint(about):
        return _FREE[kind]
    match kind:
        case "object":
            return read_object(graph, raw, path)
        case "array":
            return read_array(graph, raw, path)
        case "string":
            return read_string(graph, raw, path)
    return read_numbers(graph, raw, path, integer=kind == "integer")


def _combined(graph: Normaliser, raw: dict, path: str) -> Alternatives:
    """All keywords met in the order in which they are written, which becomes the order of the properties.

    What is said about types stands where ``properties`` or ``additionalProperties`` does, whichever comes first.
    """
    typed = _typed(graph, raw, path)
    found, beside = (EVERYTHING, typed) if "properties" in raw else (typed, EVERYTHING)
    return _extended(graph, raw, path, found, beside)


def _extended(graph: Normaliser, raw: dict, path: str, found: Alternatives, beside: Alternatives) -> Alternatives:
    """``found`` met with the combining keywords of ``raw``, and with ``beside`` where ``properties`` stands."""
    for keyword in raw:
        if keyword in ("properties", "additionalProperties"):
            found, beside = graph.meet(found, beside, keyword, path), EVERYTHING
        elif keyword in COMBINING:
            found = _combination(graph, raw, keyword, path, found, beside)
        else:
            continue
        found = graph.simple(found)
        if not found:
            problem = "no value can satisfy it together with the keywords beside it"
            graph.blame(keyword, pointer(path, keyword), problem)
    return found


def _combination(
    graph: Normaliser, raw: dict, keyword: str, path: str, found: Alternatives, beside: Alternatives
) -> Alternatives:
    """``found`` met with what one keyword that combines other subschemas asks for.

    beside: what else is asked for, and will be met later; it helps to tell branches apart.
    """
    match keyword:
        case "not":
            return without(found, graph.resolve(_child(graph, raw, "not", path)), graph, "not", pointer(path, "not"))
        case "if":
            then, otherwise = (_child(graph, raw, key, path) if key in raw else None for key in ("then", "else"))
            return conditional(_child(graph, raw, "if", path), then, otherwise, path, graph, found, beside)
        case "oneOf" if graph.leniency is None or not graph.leniency.inside(pointer(path, "oneOf")):
            return one_of(_branches(graph, raw, keyword, path), path, graph, found, beside)
        case "allOf":
            return _all_of(graph, raw, path, found, beside)
        case "anyOf" | "oneOf":
            branches = _branches(graph, raw, keyword, path)
            more = graph.simple(tuple(dict.fromkeys(a for branch in branches for a in graph.resolve(branch))))
        case "enum" | "const":
            more = read_constants(graph, raw, keyword, path)
        case "dependentSchemas" | "dependencies":
            more = _dependent(graph, raw, keyword, path)
        case _:
            more = graph.resolve(graph.node(*graph.target(raw, keyword, path)))
    return graph.meet(found, more, keyword, path)


def _all_of(graph: Normaliser, raw: dict, path: str, found: Alternatives, beside: Alternatives) -> Alternatives:
    """Branches that are just conditions are tested against ``found``: a chain of them would multiply otherwise."""
    for index, branch in enumerate(_branches(graph, raw, "allOf", path)):
        here = pointer(path, "allOf", index)
        plain = raw["allOf"][index]
        if isinstance(plain, dict) and graph.leniency is None and not CONDITIONS.isdisjoint(plain):
            kept = _asserting(graph, plain, here)
            if kept.keys() <= CONDITIONS:
                found = _extended(graph, kept, here, found, beside)
                continue
        found = graph.simple(graph.meet(found, graph.resolve(branch), "allOf", path))
    return found


def _dependent(graph: Normaliser, raw: dict, keyword: str, path: str) -> Alternatives:
    found = EVERYTHING
    for name, sub in read_map(raw, keyword, path).items():
        if keyword == "dependencies" and (isinstance(sub, list) or is_just_required(sub)):
            continue  # read with the keywords about objects
        here = pointer(path, keyword, name)
        more = dependent_schema(name, graph.node(sub, here), here, graph)
        found = graph.simple(graph.meet(found, more, keyword, path))
    return found


def _child(graph: Normaliser, raw: dict, keyword: str, path: str) -> Node:
    return graph.node(raw[keyword], pointer(path, keyword))


def _branches(graph: Normaliser, raw: dict, keyword: str, path: str) -> list[Node]:
    where: Any = pointer(path, keyword)
    return [graph.node(branch, pointer(where, i)) for i, branch in enumerate(read_list(raw, keyword, path))]

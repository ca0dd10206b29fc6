"""Which draft of JSON Schema a document is written in, and what that draft's keywords are."""

from __future__ import annotations

from typing import Any

from minillm_serve.guided.errors import SchemaError, pointer

_DRAFT_4 = frozenset(
    {
        "type", "enum", "allOf", "anyOf", "oneOf", "not", "$ref", "format",
        "properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties",
        "dependencies", "items", "additionalItems", "minItems", "maxItems", "uniqueItems",
        "minLength", "maxLength", "pattern",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    }
)  # fmt: skip
_DRAFT_6 = _DRAFT_4 | {"const", "contains", "propertyNames"}
_DRAFT_7 = _DRAFT_6 | {"if", "then", "else"}
_2019_09 = (_DRAFT_7 - {"dependencies"}) | {
    "dependentRequired", "dependentSchemas", "minContains", "maxContains",
    "unevaluatedProperties", "unevaluatedItems", "$recursiveRef",
}  # fmt: skip
_2020_12 = (_2019_09 - {"$recursiveRef"}) | {"prefixItems", "$dynamicRef"}

ASSERTING = {4: _DRAFT_4, 6: _DRAFT_6, 7: _DRAFT_7, 2019: _2019_09, 2020: _2020_12}
NAMES = {4: "draft 4", 6: "draft 6", 7: "draft 7", 2019: "2019-09", 2020: "2020-12"}
LATEST = 2020
ANNOTATIONS = frozenset(
    {
        "title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly",
        "$comment", "$schema", "$defs", "definitions", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor",
        "$vocabulary",
    }
)  # fmt: skip
_MARKS = (("draft-04", 4), ("draft-06", 6), ("draft-07", 7), ("draft/2019-09", 2019), ("draft/2020-12", 2020))
_VOCABULARIES = ("https://json-schema.org/draft/2019-09/vocab/", "https://json-schema.org/draft/2020-12/vocab/")


def dialect_of(root: Any) -> int:
    """The draft that ``$schema`` names: 4, 6, 7, 2019 or 2020; the latest one for an absent or a private ``$schema``.

    Raises :class:`SchemaError` for draft 3 and older, and for a vocabulary that is required and not known here.
    """
    declared = root.get("$schema") if isinstance(root, dict) else None
    if declared is None:
        return LATEST
    if not isinstance(declared, str):
        raise SchemaError("$schema", "/$schema", "expected a string, the address of a metaschema", kind="malformed")
    if "json-schema.org/draft-0" in declared and any(f"draft-0{n}" in declared for n in (0, 1, 2, 3)):
        raise SchemaError("$schema", "/$schema", f"{declared!r} is older than draft 4, the oldest one understood here")
    for name, required in _vocabularies(root).items():
        if required and not name.startswith(_VOCABULARIES):
            raise SchemaError("$vocabulary", pointer("", "$vocabulary", name), "this vocabulary is not known here")
    return draft_named(declared) or LATEST


def draft_named(declared: Any) -> int | None:
    """The draft whose metaschema has this address; None if it is the address of something else."""
    if isinstance(declared, str) and "json-schema.org/" in declared:
        return next((draft for mark, draft in _MARKS if mark in declared), None)
    return None


def _vocabularies(root: dict) -> dict:
    found = root.get("$vocabulary", {})
    if not isinstance(found, dict):
        raise SchemaError("$vocabulary", "/$vocabulary", "expected an object", kind="malformed")
    return found

"""Which JSON Schema keywords are honoured, which assert nothing, and how their values are checked."""

from __future__ import annotations

from typing import Any

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.nodes import KINDS

ANNOTATIONS = frozenset(
    {
        "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
        "$comment", "$schema", "$defs", "definitions", "$anchor",
    }
)  # fmt: skip
HONOURED = frozenset(
    {
        "type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref",
        "properties", "required", "additionalProperties",
        "items", "prefixItems", "minItems", "maxItems",
        "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    }
)  # fmt: skip
ASSERTS_NOTHING = {"uniqueItems": False, "minProperties": 0}
TYPES = (*KINDS, "integer")


def check_keywords(raw: dict, path: str) -> None:
    """Refuse a subschema with a keyword that would otherwise be ignored."""
    for keyword, value in raw.items():
        if keyword in HONOURED or keyword in ANNOTATIONS or keyword.startswith("x-"):
            continue
        if keyword in ("$id", "id") and not path:
            continue
        if keyword in ASSERTS_NOTHING and value == ASSERTS_NOTHING[keyword]:
            continue
        raise SchemaError(keyword, pointer(path, keyword), "this keyword is not supported, so it is refused")


def read_count(raw: dict, keyword: str, path: str) -> int | None:
    """A non-negative integer (2.0 counts), or None when the keyword is absent."""
    if keyword not in raw:
        return None
    value = raw[keyword]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value != int(value):
        raise SchemaError(keyword, pointer(path, keyword), f"expected a non-negative integer, got {shown(value)}")
    return int(value)


def read_number(raw: dict, keyword: str, path: str) -> int | float | None:
    if keyword not in raw:
        return None
    value = raw[keyword]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SchemaError(keyword, pointer(path, keyword), f"expected a number, got {shown(value)}")
    return value


def read_types(raw: dict, path: str) -> tuple[str, ...]:
    """The JSON types allowed here; every one when ``type`` is absent."""
    if "type" not in raw:
        return KINDS
    value = raw["type"]
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name in TYPES for name in names):
        raise SchemaError("type", pointer(path, "type"), f"expected one of {', '.join(TYPES)}; got {shown(value)}")
    return tuple(dict.fromkeys(names))


def read_required(raw: dict, path: str) -> list[str]:
    value = raw.get("required", [])
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError("required", pointer(path, "required"), f"expected an array of strings, got {shown(value)}")
    return list(dict.fromkeys(value))


def read_list(raw: dict, keyword: str, path: str) -> list:
    value = raw[keyword]
    if not isinstance(value, list) or not value:
        raise SchemaError(keyword, pointer(path, keyword), f"expected a non-empty array, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as an error message shows it: short, whatever it is."""
    text = ascii(value) if not isinstance(value, (dict, list)) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else text[:57] + "..."

"""The schema as it came in: parsed, bounded, well-formed; and the lookup of local references in it."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any
from urllib.parse import unquote

from minillm_serve.guided.errors import SchemaError, pointer

MAX_JSON_DEPTH = 130  # 64 objects one inside the other: two JSON levels ("properties", its name) for each
MAX_JSON_VALUES = 300_000
MAX_TEXT = 8_000_000
MAX_INTEGER_BITS = 2_048


def parse_schema(schema: dict | bool | str) -> dict | bool:
    """A dict, a boolean or JSON text -> a checked dict or boolean. Raises :class:`SchemaError`, and nothing else."""
    if isinstance(schema, str):
        schema = _parse_text(schema)
    if not isinstance(schema, (dict, bool)):
        raise SchemaError("schema", "", f"a schema is an object or a boolean, got {type(schema).__name__}")
    _check(schema)
    return schema


def _parse_text(text: str) -> Any:
    if len(text) > MAX_TEXT:
        raise SchemaError("schema", "", f"the text has {len(text)} characters; the limit is {MAX_TEXT}")
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise SchemaError("schema", "", f"nested deeper than {MAX_JSON_DEPTH} JSON levels") from None
    except SchemaError:
        raise
    except ValueError as error:
        raise SchemaError("schema", "", f"not valid JSON: {error}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(twice, "", "the same key stands twice in one object of the schema")
    return result


def _check(root: Any) -> None:
    """Bound depth and size and refuse what is no JSON value, without recursion."""
    seen, stack = 0, [(root, "", 1)]
    while stack:
        value, path, depth = stack.pop()
        seen += 1
        if seen > MAX_JSON_VALUES:
            raise SchemaError("schema", "", f"more than {MAX_JSON_VALUES} JSON values")
        if isinstance(value, dict):
            children = list(value.items())
        elif isinstance(value, (list, tuple)):
            children = list(enumerate(value))
        else:
            _check_scalar(value, path)
            continue
        if depth > MAX_JSON_DEPTH:
            raise SchemaError("schema", path, f"nested deeper than {MAX_JSON_DEPTH} JSON levels")
        for key, child in children:
            if not isinstance(key, (str, int)) or (isinstance(value, dict) and not isinstance(key, str)):
                raise SchemaError(str(key), path, "object keys must be strings")
            if isinstance(key, str):
                _check_scalar(key, path)
            stack.append((child, pointer(path, key), depth + 1))


def _check_scalar(value: Any, path: str) -> None:
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise SchemaError(_keyword(path), _printable(path), "a lone surrogate, which UTF-8 cannot carry")
    elif isinstance(value, float):
        if not isfinite(value):
            raise SchemaError(_keyword(path), path, f"{value} is not a JSON number")
    elif value is not None and not isinstance(value, (bool, int)):
        raise SchemaError(_keyword(path), path, f"{type(value).__name__} is not a JSON value")
    elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise SchemaError(_keyword(path), path, f"an integer of more than {MAX_INTEGER_BITS} bits")


def _keyword(path: str) -> str:
    """The last token of a pointer that is not an index."""
    names = [token for token in path.split("/") if token and not token.isdigit()]
    return _printable(names[-1]) if names else "schema"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def lookup(root: Any, ref: str, path: str) -> tuple[Any, str]:
    """Follow a local reference such as ``#/$defs/item`` -> (the raw subschema, its pointer)."""
    if not ref.startswith("#"):
        raise SchemaError("$ref", path, f"{ref!r} points outside this document; only local references (#/...) work")
    target_path = unquote(ref[1:])
    if target_path and not target_path.startswith("/"):
        raise SchemaError("$ref", path, f"{ref!r} names an anchor; only JSON pointers (#/...) work")
    value = root
    for token in target_path.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, (list, tuple)) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise SchemaError("$ref", path, f"{ref!r} leads nowhere: there is no {key!r}")
    return value, target_path

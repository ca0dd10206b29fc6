"""The schema as it came in: parsed, bounded, well-formed."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from minillm_serve.guided.errors import SchemaError, pointer

MAX_JSON_DEPTH = 130  # 64 objects one inside the other: two JSON levels ("properties", its name) for each
MAX_JSON_VALUES = 300_000
MAX_TEXT = 8_000_000
MAX_INTEGER_BITS = 2_048
_NAMING = frozenset({"$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor"})


def parse_schema(schema: dict | bool | str) -> tuple[dict | bool, bool]:
    """A dict, a boolean or JSON text -> (a checked dict or boolean, has any part below the root a name of its own?).

    Names are those that ``$id`` and the anchors give. Raises :class:`SchemaError`, and nothing else.
    """
    if isinstance(schema, str):
        schema = _parse_text(schema)
    if not isinstance(schema, (dict, bool)):
        raise malformed("schema", "", f"a schema is an object or a boolean, got {type(schema).__name__}")
    return schema, _check(schema)


def malformed(keyword: str, path: str, problem: str) -> SchemaError:
    """The error for what is no JSON Schema at all, which no leniency excuses."""
    return SchemaError(keyword, path, problem, kind="malformed")


def _parse_text(text: str) -> Any:
    if len(text) > MAX_TEXT:
        raise malformed("schema", "", f"the text has {len(text)} characters; the limit is {MAX_TEXT}")
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise malformed("schema", "", f"nested deeper than {MAX_JSON_DEPTH} JSON levels") from None
    except SchemaError:
        raise
    except ValueError as error:
        raise malformed("schema", "", f"not valid JSON: {error}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise malformed(twice, "", "the same key stands twice in one object of the schema")
    return result


def _check(root: Any) -> bool:
    """Bound depth and size and refuse what is no JSON value, level by level; are there names in it?"""
    seen, named, level = 0, False, [root]
    for _ in range(MAX_JSON_DEPTH + 1):
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is str or kind is bool:
                if kind is str and not value.isascii() and not _is_scalar(value):
                    raise _fault(root)
            elif isinstance(value, dict):
                named = named or (value is not root and _names_itself(value))
                for key in value:
                    if type(key) is not str or not (key.isascii() or _is_scalar(key)):
                        raise _fault(root)
                below += value.values()
            elif isinstance(value, (list, tuple)):
                below += value
            elif not _is_scalar(value):
                raise _fault(root)
        seen += len(level)
        if not below:
            return named
        if seen + len(below) > MAX_JSON_VALUES:
            raise malformed("schema", "", f"more than {MAX_JSON_VALUES} JSON values")
        level = below
    raise malformed("schema", "", f"nested deeper than {MAX_JSON_DEPTH} JSON levels")


def _names_itself(value: dict) -> bool:
    return not _NAMING.isdisjoint(value) and any(isinstance(value.get(key), (str, bool)) for key in _NAMING)


def _is_scalar(value: Any) -> bool:
    return _problem(value) is None


def _problem(value: Any) -> str | None:
    """What is wrong with a scalar; None for a JSON one."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return "a lone surrogate, which UTF-8 cannot carry"
    elif isinstance(value, float):
        if not isfinite(value):
            return f"{value} is not a JSON number"
    elif value is not None and not isinstance(value, (bool, int)):
        return f"{type(value).__name__} is not a JSON value"
    elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        return f"an integer of more than {MAX_INTEGER_BITS} bits"
    return None


def _fault(root: Any) -> SchemaError:
    """The error for the first faulty key or scalar, with its path (looked for only when there is one)."""
    stack: list[tuple[Any, str, int]] = [(root, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        if isinstance(value, (dict, list, tuple)) and depth <= MAX_JSON_DEPTH:
            for key, child in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(value, dict) and not isinstance(key, str):
                    return malformed(str(key), path, "object keys must be strings")
                if isinstance(key, str) and not _is_scalar(key):
                    return malformed(_keyword(path), _printable(path), _problem(key) or "")
                stack.append((child, pointer(path, key), depth + 1))
        elif not isinstance(value, (dict, list, tuple)) and not _is_scalar(value):
            return malformed(_keyword(path), path, _problem(value) or "")
    return malformed("schema", "", f"nested deeper than {MAX_JSON_DEPTH} JSON levels")


def _keyword(path: str) -> str:
    """The last token of a pointer that is not an index."""
    names = [token for token in path.split("/") if token and not token.isdigit()]
    return _printable(names[-1]) if names else "schema"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()

"""How the values of keywords are read, and refused where they are none."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from minillm_serve.guided.errors import pointer
from minillm_serve.guided.schema.document import malformed
from minillm_serve.guided.schema.nodes import KINDS

TYPES = (*KINDS, "integer")
_TYPE_SET = frozenset(TYPES)


def read_count(raw: dict, keyword: str, path: str) -> int | None:
    """A non-negative integer (2.0 counts), or None when the keyword is absent."""
    if keyword not in raw:
        return None
    value = raw[keyword]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value != int(value):
        raise malformed(keyword, pointer(path, keyword), f"expected a non-negative integer, got {shown(value)}")
    return int(value)


def read_number(raw: dict, keyword: str, path: str) -> int | float | None:
    if keyword not in raw:
        return None
    value = raw[keyword]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise malformed(keyword, pointer(path, keyword), f"expected a number, got {shown(value)}")
    return value


def read_multiple(raw: dict, path: str) -> tuple[Fraction, ...]:
    """``multipleOf``, exactly as it is written in the schema: 0.1 is one tenth."""
    value = read_number(raw, "multipleOf", path)
    if value is None:
        return ()
    if value <= 0:
        raise malformed("multipleOf", pointer(path, "multipleOf"), f"expected a number above 0, got {shown(value)}")
    return (Fraction(repr(value)),)


def read_flag(raw: dict, keyword: str, path: str) -> bool:
    value = raw.get(keyword, False)
    if not isinstance(value, bool):
        raise malformed(keyword, pointer(path, keyword), f"expected true or false, got {shown(value)}")
    return value


def read_text(raw: dict, keyword: str, path: str) -> str:
    value = raw[keyword]
    if not isinstance(value, str):
        raise malformed(keyword, pointer(path, keyword), f"expected a string, got {shown(value)}")
    return value


def read_types(raw: dict, path: str) -> tuple[str, ...]:
    """The JSON types allowed here, each once; every one when ``type`` is absent."""
    if "type" not in raw:
        return KINDS
    value = raw["type"]
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name in _TYPE_SET for name in names):
        raise malformed("type", pointer(path, "type"), f"expected one of {', '.join(TYPES)}; got {shown(value)}")
    if "number" in names:
        names = [name for name in names if name != "integer"]
    return tuple(dict.fromkeys(names))


def read_names(value: Any, keyword: str, path: str) -> list[str]:
    """An array of strings, each once; ``path`` is that of the array."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise malformed(keyword, path, f"expected an array of strings, got {shown(value)}")
    return list(dict.fromkeys(value))


def read_list(raw: dict, keyword: str, path: str) -> list:
    value = raw[keyword]
    if not isinstance(value, list) or not value:
        raise malformed(keyword, pointer(path, keyword), f"expected a non-empty array, got {shown(value)}")
    return value


def read_map(raw: dict, keyword: str, path: str) -> dict[str, Any]:
    value = raw.get(keyword, {})
    if not isinstance(value, dict):
        raise malformed(keyword, pointer(path, keyword), f"expected an object, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as an error message shows it: short, whatever it is."""
    text = ascii(value) if not isinstance(value, (dict, list)) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= 60 else text[:57] + "..."

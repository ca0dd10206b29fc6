"""Plain values: the only thing a checker ever compares. Anything else is converted first, or refused."""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 32
MAX_BITS = 64
MAX_ELEMENTS = 100_000


class NotPlainValue(TypeError):
    """The value is not made of None, bool, int, float, str, list and dict alone. The message is for the student."""


def to_plain(value: Any, depth: int = 0) -> Any:
    """Convert to JSON-like values by exact type, so that no method of a student's class decides a comparison.

    Tuples become lists; NumPy and torch scalars become Python numbers, their arrays nested lists in which the strings
    "inf", "-inf" and "nan" stand for those numbers. What a JSON file cannot hold, or arithmetic on it would raise, is
    refused: inf and nan, integers of more than 64 bits, strings with half a character, arrays of more than 100,000
    elements. Raises :class:`NotPlainValue`.
    """
    if depth > MAX_DEPTH:
        raise NotPlainValue(f"el valor anida más de {MAX_DEPTH} niveles")
    if value is None or type(value) in (bool, int, float, str):
        return _sound(value)
    if type(value) in (list, tuple):
        return [to_plain(v, depth + 1) for v in value]
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise NotPlainValue("las claves de un diccionario deben ser cadenas")
        return {_sound(key): to_plain(v, depth + 1) for key, v in value.items()}
    if (array := _array(value)) is not None:
        return to_plain(array.item(), depth + 1) if array.ndim == 0 else _elements(array.tolist())
    raise NotPlainValue(f"devolviste un objeto de tipo {type(value).__name__}; se espera un valor simple de Python")


def _array(value: Any) -> Any:
    """``value`` without its gradient if it is NumPy's or torch's array or scalar; what it holds is looked at later."""
    module, name = type(value).__module__.split(".")[0], type(value).__name__
    if module not in ("numpy", "torch") or not hasattr(value, "tolist"):
        return None
    if math.prod(value.shape) > MAX_ELEMENTS:
        raise NotPlainValue(f"devolviste {name} con más de {MAX_ELEMENTS} elementos")
    return value.detach() if module == "torch" else value


def _elements(values: Any) -> Any:
    if type(values) is list:
        return [_elements(inner) for inner in values]
    if type(values) is float and not math.isfinite(values):
        return str(values)
    return to_plain(values)


def _sound(value: bool | int | float | str | None) -> bool | int | float | str | None:
    if type(value) is float and not math.isfinite(value):
        raise NotPlainValue(f"devolviste {value}; se espera un número finito")
    if type(value) is int and value.bit_length() > MAX_BITS:
        raise NotPlainValue(f"devolviste un entero de más de {MAX_BITS} bits")
    if type(value) is str and any("\ud800" <= c <= "\udfff" for c in value):
        raise NotPlainValue("devolviste una cadena con medio carácter (un sustituto de UTF-16 suelto)")
    return value


def equal(expected: Any, got: Any, tolerance: float = 1e-9) -> bool:
    """Equality of plain values: numbers within a relative tolerance, bool never equal to int, dicts without order."""
    if isinstance(expected, bool) or isinstance(got, bool) or expected is None or got is None:
        return expected is got
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        return math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance)
    if type(expected) is not type(got):
        return False
    if isinstance(expected, list):
        return len(expected) == len(got) and all(equal(e, g, tolerance) for e, g in zip(expected, got, strict=True))
    if isinstance(expected, dict):
        return expected.keys() == got.keys() and all(equal(v, got[key], tolerance) for key, v in expected.items())
    return expected == got

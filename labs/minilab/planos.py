"""Plain values: the only thing a checker ever compares. Anything else is converted first, or refused."""

from __future__ import annotations

import math
from typing import Any

MAX_PROFUNDIDAD = 32


class ValorNoPlano(TypeError):
    """The value is not made of None, bool, int, float, str, list and dict alone. The message is for the student."""


def a_plano(valor: Any, profundidad: int = 0) -> Any:
    """Convert to JSON-like values by exact type, so that no method of a student's class decides a comparison.

    Tuples become lists; NumPy and torch scalars (anything outside builtins with ``item()``) become Python numbers.
    Raises :class:`ValorNoPlano`.
    """
    if profundidad > MAX_PROFUNDIDAD:
        raise ValorNoPlano(f"el valor anida más de {MAX_PROFUNDIDAD} niveles")
    if valor is None or type(valor) in (bool, int, float, str):
        return valor
    if type(valor) in (list, tuple):
        return [a_plano(v, profundidad + 1) for v in valor]
    if type(valor) is dict:
        if not all(type(clave) is str for clave in valor):
            raise ValorNoPlano("las claves de un diccionario deben ser cadenas")
        return {clave: a_plano(v, profundidad + 1) for clave, v in valor.items()}
    if type(valor).__module__.split(".")[0] in ("numpy", "torch") and getattr(valor, "ndim", None) == 0:
        return a_plano(valor.item(), profundidad + 1)
    raise ValorNoPlano(f"devolviste un objeto de tipo {type(valor).__name__}; se espera un valor simple de Python")


def iguales(esperado: Any, obtenido: Any, tolerancia: float = 1e-9) -> bool:
    """Equality of plain values: numbers within a relative tolerance, bool never equal to int, dicts without order."""
    if isinstance(esperado, bool) or isinstance(obtenido, bool) or esperado is None or obtenido is None:
        return esperado is obtenido
    if isinstance(esperado, (int, float)) and isinstance(obtenido, (int, float)):
        return math.isclose(esperado, obtenido, rel_tol=tolerancia, abs_tol=tolerancia)
    if type(esperado) is not type(obtenido):
        return False
    if isinstance(esperado, list):
        return len(esperado) == len(obtenido) and all(
            iguales(e, o, tolerancia) for e, o in zip(esperado, obtenido, strict=True)
        )
    if isinstance(esperado, dict):
        return esperado.keys() == obtenido.keys() and all(
            iguales(v, obtenido[clave], tolerancia) for clave, v in esperado.items()
        )
    return esperado == obtenido

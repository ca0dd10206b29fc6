"""The hidden case of the real clock. What is asked for is drawn by the meter at the moment of measuring."""

from __future__ import annotations

from minilab.pruebas.casos import Case, Check

HINT = (
    "Mantén el lote lleno: en cada paso todas las peticiones en decode y, con los tokens que sobren, el prefill de las "
    "que esperan. De una en una no se gana nada."
)


def real_clock_check(seed: int) -> Check:
    """One case, judged by a meter of level ``reloj_real``; the meter uses ``seed`` only where its clock is counted."""
    case = Case(name="cinco veces la pipeline con el modelo real", args=(), hint=HINT)
    return Check("reloj_real", "Planificador", ("planificador",), (case,), level="reloj_real")

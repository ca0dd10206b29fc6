"""From recorded measures to a verdict: the same for a fresh measurement and for one that is judged again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minilab.pruebas.casos import Case, Result
from minilab_grading.medidores.estadistica import WANTED, interval, median, ramp, target_for

PLANNER = "prueba_planificador"
NOT_MEASURED = "no se midió: el planificador no superó ninguna prueba del reloj virtual"


def comma(number: float) -> str:
    return f"{number:.1f}".replace(".", ",")


def ratios_of(measures: Mapping[str, Any]) -> list[float]:
    """The student's tokens per second over the baseline's, pair by pair."""
    base, own = measures["tokens"]
    return [(t_base / base) / (t_own / own) for t_base, t_own in measures["pares"]]


def with_summary(measures: dict[str, Any]) -> dict[str, Any]:
    """``mediana`` and ``ic90`` of the ratios, beside the pairs that they come from."""
    ratios = ratios_of(measures)
    return {**measures, "mediana": median(ratios), "ic90": list(interval(ratios))}


def judge_ratio(case: Case, measures: Mapping[str, Any]) -> Result:
    """The verdict on timed pairs; measures with a ``fallo`` are worth nothing."""
    if complaint := measures.get("fallo"):
        return Result(case.name, False, complaint, hint=case.hint, weight=case.weight)
    ratios = ratios_of(measures)
    middle, target = median(ratios), target_for(measures.get("techo"))
    return graded(case, middle, target, interval(ratios))


def graded(case: Case, ratio: float, target: float, bounds: Sequence[float] = ()) -> Result:
    """Credit by the ramp; the note shows the ratio, its interval and a target that is not the usual one."""
    note = f"{comma(ratio)}×"
    if len(bounds) and bounds[0] != bounds[1]:
        note += f" (intervalo del 90 %: {comma(bounds[0])}–{comma(bounds[1])})"
    if target != WANTED:
        note += f"; en este equipo la nota completa pide {comma(target)}×"
    credit = ramp(ratio, target)
    expected = "" if credit == 1 else f"al menos {comma(target)} veces la pipeline de uno en uno"
    hint = "" if credit == 1 else case.hint
    return Result(case.name, credit == 1, expected, "", hint, note, credit, case.weight)

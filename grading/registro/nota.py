"""``nota.json``: one signed record for each graded submission.

It holds no date, and no duration outside ``medidas``: the same submission graded again with the recorded measures, on
the same machine, gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilab_grading.arnes.calificar import CheckMark, Grading
from minilab_grading.curso import CycleError
from minilab_grading.curso.carpeta import write_atomic
from minilab_grading.registro.claves import same, seed_id, signature
from minilab_grading.registro.version import environment, harness

SCHEMA = "minilab-nota/2"
FILE = "nota.json"
Record = dict[str, Any]


@dataclass(frozen=True)
class Graded:
    """What was graded. sha256: of the bytes that were handed in. fingerprint: SHA-256 of the sources that count.

    notices: what the intake said. late_s: whole seconds after the deadline. penalty: points that takes from the
    automatic ones.
    """

    student: str
    assignment: str
    notebook: str
    sha256: str
    fingerprint: str
    notices: tuple[str, ...] = ()
    late_s: int = 0
    penalty: float = 0.0


def points_of(fraction: float, maximum: float) -> float:
    """Points of a check, in [0, maximum], to the cent. ValueError for a fraction that is no number."""
    points = round(maximum * fraction, 2)
    if points != points:
        raise ValueError("a verdict that is not a number")
    return min(max(points, 0.0), maximum)


def make_record(root: Path, graded: Graded, grading: Grading, maxima: Mapping[str, float]) -> Record:
    """The signed record. maxima: grade id of each check cell of the release -> its points.

    KeyError for a check without verdict: that is an error of the grader, never full marks.
    """
    checks = [_check(grade_id, grading.checks[grade_id], maximum) for grade_id, maximum in maxima.items()]
    version = harness(graded.assignment)
    record: Record = {
        "esquema": SCHEMA,
        "alumno": graded.student,
        "tarea": graded.assignment,
        "cuaderno": graded.notebook,
        "sha256_entrega": graded.sha256,
        "sha256_fuentes": graded.fingerprint,
        "arnes": version,
        "semilla_id": seed_id(root, graded.student, graded.assignment, version["version_casos"]),
        "aislamiento": grading.isolation,
        "entorno": environment(measured=any(c["medidas"] is not None for c in checks)),
        "pruebas": checks,
        "avisos": list(graded.notices),
        "retraso": {"segundos": graded.late_s, "penalizacion": graded.penalty},
        "puntos_automaticos": total(checks),
        "maximo_automatico": round(sum(maxima.values()), 2),
    }
    return sign(root, record)


def total(checks: list[dict[str, Any]]) -> float:
    return round(sum(c["puntos"] for c in checks), 2)


def fraction_of(cases: list[dict[str, Any]]) -> float:
    """The part of its points that a recorded check earned: credits by weight."""
    return sum(c["credito"] * c["peso"] for c in cases) / sum(c["peso"] for c in cases)


def sign(root: Path, record: Record) -> Record:
    """A copy with its ``firma``, over everything else."""
    unsigned = {k: v for k, v in record.items() if k != "firma"}
    return {**unsigned, "firma": signature(root, to_bytes(unsigned))}


def is_signed(root: Path, record: Record) -> bool:
    return same(str(record.get("firma", "")), sign(root, record)["firma"])


def to_bytes(record: Record) -> bytes:
    """The one way to write a record: sorted keys, UTF-8, a newline at the end. ValueError for NaN."""
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def write_record(folder: Path, record: Record) -> Path:
    """Write ``nota.json`` into ``folder``, whole or not at all."""
    path = folder / FILE
    write_atomic(path, to_bytes(record))
    return path


def read_record(path: Path) -> Record:
    """The record in a file, not verified. :class:`CycleError` if it is none."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CycleError(f"{path.name} no se puede leer como nota: {error}. Vuelve a calificar la entrega.") from None
    if not isinstance(record, dict) or record.get("esquema") != SCHEMA:
        raise CycleError(f"{path.name} no es una nota «{SCHEMA}». Vuelve a calificar la entrega con esta versión.")
    return record


def _check(grade_id: str, mark: CheckMark, maximum: float) -> dict[str, Any]:
    """Names, hints and figures that the student may see; never an argument, an expected value or an answer."""
    cases = [
        {
            "nombre": r.name,
            "superado": r.passed,
            "credito": r.credit,
            "peso": r.weight,
            "nota": r.note,
            "pista": "" if r.passed else r.hint,
        }
        for r in mark.results
    ]
    return {
        "id": grade_id,
        "puntos": points_of(mark.fraction, maximum),
        "maximo": maximum,
        "casos": cases,
        "aviso": mark.notice,
        "medidas": mark.measures,
    }

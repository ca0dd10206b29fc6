"""Grade a kept submission again and compare the record byte for byte."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat

from minilab_grading.arnes.aislamiento import choose_isolation
from minilab_grading.arnes.calificar import Grading, Meter, all_missed, grade_timed, teacher_folders
from minilab_grading.casos import cases_of
from minilab_grading.curso import CycleError
from minilab_grading.curso.calificacion import maxima_of
from minilab_grading.curso.intentos import BYTES, REBUILT, attempts
from minilab_grading.curso.paralelo import Job, grade_attempt
from minilab_grading.registro.claves import seed_of
from minilab_grading.registro.nota import Graded, Record, is_signed, make_record, read_record, to_bytes

CAUSES = {
    "arnes": "cambió el calificador o sus casos desde entonces",
    "entorno": "se calificó en otro equipo o con otra versión de Python",
    "aislamiento": "este equipo aísla de otro modo",
}


@dataclass(frozen=True)
class Regraded:
    """old, new: the records. differences: Spanish, one for each field. causes: what may explain them."""

    old: Record
    new: Record
    differences: tuple[str, ...]
    causes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return to_bytes(self.old) == to_bytes(self.new)

    def text(self) -> str:
        who = f"{self.old['alumno']} · {self.old['tarea']}"
        if self.equal:
            return f"{who}: igual, byte por byte ({self.new['puntos_automaticos']:g} puntos automáticos)."
        reasons = self.causes or ("nada de lo registrado lo explica: revísalo",)
        return "\n".join(
            [f"{who}: distinta.", *(f"  - {d}" for d in self.differences), *(f"  Posible causa: {c}." for c in reasons)]
        )


def regrade(
    path: Path, root: Path, meters: Mapping[str, Meter] | None = None, allow_unisolated: bool = False
) -> Regraded:
    """Grade the submission of the record at ``path`` again: same bytes, same seed, the recorded measures.

    root: the course folder. meters: level -> what judges its measures again; they measure nothing here.
    Raises :class:`CycleError` for a record that is not authentic and for a submission that is no longer kept.
    """
    old = read_record(path)
    if not is_signed(root, old):
        raise CycleError(f"La firma de {path} no corresponde: no hay con qué comparar. Vuelve a calificar la entrega.")
    assignment = old["tarea"]
    released = root / "release" / assignment / f"{assignment}.ipynb"
    if not released.is_file():
        raise CycleError(f"Falta {released}. Genérala otra vez: minilab-grading generar {assignment}")
    seed = seed_of(root, old["alumno"], assignment, old["arnes"]["version_casos"])
    isolation = choose_isolation([*teacher_folders(), root], allow_unisolated)
    with tempfile.TemporaryDirectory(prefix="recalificar-") as folder:
        (Path(folder) / BYTES).write_bytes(_handed_in(old, root))
        job = Job(Path(folder), released, assignment, seed, "", root, isolation, allow_unisolated)
        verdict = grade_attempt(job)
        grading = verdict.grading
        if not verdict.problem:
            grading = _judge_measures(job, old, grading, meters or {})
    late = old["retraso"]
    graded = Graded(
        old["alumno"],
        assignment,
        old["cuaderno"],
        old["sha256_entrega"],
        verdict.fingerprint,
        verdict.notices,
        late["segundos"],
        late["penalizacion"],
    )
    new = make_record(root, graded, grading, maxima_of(released))
    causes = tuple(text for key, text in CAUSES.items() if old[key] != new[key])
    return Regraded(old, new, tuple(_differences(old, new)), causes)


def _handed_in(record: Record, root: Path) -> bytes:
    for attempt in attempts(root, record["tarea"], record["alumno"]):
        if hashlib.sha256(attempt.data).hexdigest() == record["sha256_entrega"]:
            return attempt.data
    raise CycleError(
        f"No se conserva la entrega de {record['alumno']} que se calificó: en intentos/{record['tarea']}/ ninguna "
        "tiene su sha256. Recupérala de una copia o califica la que haya."
    )


def _judge_measures(job: Job, old: Record, grading: Grading, meters: Mapping[str, Meter]) -> Grading:
    """The timed checks, from what was measured then. One that was never measured says why again."""
    _, _, checks = cases_of(job.assignment, job.seed)
    timed = [c for c in old["pruebas"] if c["id"] in checks and checks[c["id"]].level]
    recorded = {c["id"]: c["medidas"] for c in timed if c["medidas"] is not None}
    unmeasured = {c["id"]: all_missed(checks[c["id"]], c["aviso"]) for c in timed if c["medidas"] is None}
    grading = replace(grading, checks=grading.checks | unmeasured)
    if not recorded:
        return grading
    levels = {checks[name].level for name in recorded}
    if missing := sorted(levels - set(meters)):
        raise CycleError(f"Para recalificar hacen falta los medidores de: {', '.join(missing)}.")
    marks = {k: replace(m, measures=recorded.get(k, m.measures)) for k, m in grading.checks.items()}
    used = {level: meters[level] for level in levels}
    notebook = nbformat.read(job.folder / REBUILT, 4)
    with_measures = replace(grading, checks=marks)
    judged = grade_timed(notebook, job.assignment, job.seed, with_measures, used, [job.root], job.allow_unisolated)
    return replace(judged, checks=judged.checks | unmeasured)


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """The fields that differ, by their path; the signature follows from the rest and is left out."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if where or key != "firma":
                yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            name = one.get("id") or one.get("nombre") if isinstance(one, dict) else None
            yield from _differences(one, other, f"{where}[{name or i}]")
    elif old != new:
        yield f"{where}: {old!r} → {new!r}"

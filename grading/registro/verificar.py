"""Is a record what the grader wrote, and do the files around it still agree with it?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry

from minilab_grading.curso import CycleError
from minilab_grading.curso.carpeta import COURSE_ID
from minilab_grading.curso.intentos import BYTES
from minilab_grading.curso.paralelo import fingerprint
from minilab_grading.registro.nota import FILE, Record, fraction_of, is_signed, points_of, read_record, to_bytes, total

CENT = 0.005


@dataclass(frozen=True)
class Verified:
    """problems: Spanish sentences; none when everything agrees."""

    path: Path
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    records: tuple[Verified, ...]

    @property
    def sound(self) -> bool:
        return not any(r.problems for r in self.records)

    def text(self) -> str:
        """One line for each record and for each problem, in Spanish."""
        lines = []
        for record in self.records:
            lines.append(f"{record.path}: {'no concuerda' if record.problems else 'correcta'}")
            lines += [f"  - {problem}" for problem in record.problems]
        wrong = sum(bool(r.problems) for r in self.records)
        return "\n".join([*lines, f"{len(self.records)} notas, {wrong} con problemas."])


def verify(paths: Path | Iterable[Path], root: Path) -> Report:
    """Check records: files, or folders searched for them. root: the course folder, with its secret and gradebook.

    Raises :class:`CycleError` where there is no record at all.
    """
    wanted = [paths] if isinstance(paths, Path) else list(paths)
    files = [f for path in wanted for f in (sorted(path.rglob(FILE)) if path.is_dir() else [path])]
    if not files:
        raise CycleError(f"No hay ningún {FILE} que verificar. Califica primero: minilab-grading calificar TAREA")
    return Report(tuple(Verified(f, tuple(_problems(f, root))) for f in files))


def _problems(path: Path, root: Path) -> Iterator[str]:
    try:
        record = read_record(path)
    except CycleError as error:
        yield str(error)
        return
    if not is_signed(root, record):
        yield "la firma no corresponde: el contenido cambió después de calificar, o la hizo otro curso"
        return
    if path.read_bytes() != to_bytes(record):
        yield "el archivo no está escrito como lo escribe el calificador: se tocó aunque los valores coincidan"
    yield from _points(record)
    yield from _place(path, record)
    yield from _handed_in(record, root)
    yield from _gradebook(record, root)


def _points(record: Record) -> Iterator[str]:
    for check in record["pruebas"]:
        if not 0 <= check["puntos"] <= check["maximo"]:
            yield f"{check['id']}: {check['puntos']:g} puntos, fuera de 0 a {check['maximo']:g}"
        earned = points_of(fraction_of(check["casos"]), check["maximo"])
        if abs(earned - check["puntos"]) > CENT:
            yield f"{check['id']}: sus casos dan {earned:g} puntos y dice {check['puntos']:g}"
    if abs(total(record["pruebas"]) - record["puntos_automaticos"]) > CENT:
        yield f"las pruebas suman {total(record['pruebas']):g} y dice {record['puntos_automaticos']:g}"
    if not 0 <= record["retraso"]["penalizacion"] <= record["puntos_automaticos"] + CENT:
        yield "la penalización por retraso está fuera de los puntos automáticos"


def _place(path: Path, record: Record) -> Iterator[str]:
    """A record in ``autograded/ALUMNO/TAREA/`` belongs there, and with the notebook beside it."""
    folder = path.resolve().parent
    if folder.parents[1].name == "autograded" and (folder.parent.name, folder.name) != (
        record["alumno"],
        record["tarea"],
    ):
        yield f"es de {record['alumno']} ({record['tarea']}) y está en la carpeta de {folder.parent.name}"
    notebook = folder / f"{record['cuaderno']}.ipynb"
    if notebook.is_file() and fingerprint(nbformat.read(notebook, 4)) != record["sha256_fuentes"]:
        yield "el código del cuaderno que está a su lado no es el que se calificó"


def _handed_in(record: Record, root: Path) -> Iterator[str]:
    """Some kept attempt (or, without attempts, the submitted file) has the bytes that were graded."""
    student, assignment = record["alumno"], record["tarea"]
    files = [
        *(root / "intentos" / assignment / student).glob(f"*/{BYTES}"),
        *(root / "submitted" / student / assignment).glob("*.ipynb"),
    ]
    if files and all(hashlib.sha256(f.read_bytes()).hexdigest() != record["sha256_entrega"] for f in files):
        yield "ninguna entrega guardada de esta persona es la que se calificó (sha256 distinto)"


def _gradebook(record: Record, root: Path) -> Iterator[str]:
    database = root / "gradebook.db"
    if not database.is_file():
        return
    with Gradebook(f"sqlite:///{database}", COURSE_ID) as gradebook:
        try:
            notebook = gradebook.find_submission_notebook(record["cuaderno"], record["tarea"], record["alumno"])
        except MissingEntry:
            yield "el libro de notas no tiene esta entrega"
            return
        grades = {g.name: (g.auto_score, g.max_score) for g in notebook.grades}
    recorded = {c["id"]: c for c in record["pruebas"]}
    for name, check in recorded.items():
        score, maximum = grades.get(name, (None, None))
        if score is None or abs(score - check["puntos"]) > CENT:
            yield f"{name}: el libro de notas dice {_shown(score)} y la nota {check['puntos']:g}"
        elif maximum != check["maximo"]:
            yield f"{name}: el máximo es {maximum:g} en el libro de notas y {check['maximo']:g} en la nota"
    for name in sorted(n for n, (score, _) in grades.items() if score and n not in recorded):
        yield f"{name}: tiene {grades[name][0]:g} puntos automáticos en el libro de notas y ningún registro"


def _shown(score: float | None) -> str:
    return "nada" if score is None else f"{score:g}"

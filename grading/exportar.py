"""Marks for other programs: a CSV, Moodle's grading worksheet or gradebook import, and Canvas' gradebook import.

As functions, and as plugins of ``nbgrader export --exporter=minilab_grading.exportar.ExportadorMoodle``. Everybody on
the list appears. A mark that a person still has to complete is left empty and said so: it is not a 0. Text that a
spreadsheet would run as a formula is made plain; numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nbgrader.api import Assignment, Gradebook, MissingEntry
from nbgrader.plugins import ExportPlugin
from traitlets import Bool, Enum, Unicode

from minilab_grading.curso import CycleError
from minilab_grading.curso.carpeta import COURSE_ID, ROSTER, write_atomic
from minilab_grading.entregas import Roster, Student

FORMATS = ("csv", "moodle", "canvas")
LEADS_TO_FORMULA = re.compile(r"""[\s'"]*[=+\-@\t\r\n＝＋－＠]|[\t\r\n]""")
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
GRADED, PENDING, MISSING = "calificada", "pendiente de leer", "sin entrega"
WORKSHEET = (
    "Identificador",
    "Nombre completo",
    "Dirección de correo",
    "Estado",
    "Calificación",
    "Calificación máxima",
    "La calificación puede ser cambiada",
    "Última modificación (entrega)",
    "Última modificación (calificación)",
    "Comentarios de retroalimentación",
)
Value = str | int | float | None


@dataclass(frozen=True)
class Mark:
    """One person in one assignment. submitted: UTC, None where nobody wrote it down. late_s: seconds after the
    deadline. pending: grade ids that a person has yet to read. parts: grade id -> points, None while pending."""

    person: Student
    assignment: str
    maximum: float
    handed_in: bool = False
    submitted: datetime | None = None
    late_s: int = 0
    penalty: float = 0.0
    automatic: float = 0.0
    manual: float = 0.0
    pending: tuple[str, ...] = ()
    parts: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return MISSING if not self.handed_in else PENDING if self.pending else GRADED

    @property
    def score(self) -> float | None:
        """The final mark; None where there is no submission or something is still to be read."""
        if self.status != GRADED:
            return None
        return round(max(0.0, self.automatic + self.manual - self.penalty), 2)

    @property
    def comment(self) -> str:
        if not self.handed_in:
            return "Sin entrega."
        parts = [f"Automático: {spanish(self.automatic)}"]
        parts.append(
            f"pendiente de leer: {', '.join(self.pending)}" if self.pending else f"leído: {spanish(self.manual)}"
        )
        if self.penalty:
            parts.append(f"por retraso: −{spanish(self.penalty)}")
        return "; ".join(parts) + "."


@dataclass(frozen=True)
class Sheet:
    """How the file is written. bom: so that Excel reads it as UTF-8. decimal_comma: «7,5», and semicolons between
    columns, as a Spanish spreadsheet expects."""

    bom: bool = False
    decimal_comma: bool = False

    def write(self, rows: Iterable[Sequence[Value]]) -> bytes:
        """The file's bytes, CRLF between rows (RFC 4180)."""
        output = io.StringIO(newline="")
        writer = csv.writer(output, delimiter=";" if self.decimal_comma else ",")
        writer.writerows([self._cell(v) for v in row] for row in rows)
        return output.getvalue().encode("utf-8-sig" if self.bom else "utf-8", "replace")

    def _cell(self, value: Value) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            return guarded(value)
        text = str(value) if isinstance(value, int) else f"{value:.2f}"
        return text.replace(".", ",") if self.decimal_comma else text


def guarded(text: str) -> str:
    """``text`` with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if LEADS_TO_FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def spanish(points: float) -> str:
    return f"{points:.2f}".rstrip("0").rstrip(".").replace(".", ",")


def read_marks(gradebook: Gradebook, assignment: str, people: Iterable[Student] = ()) -> list[Mark]:
    """A mark for each person of ``people`` and each student of the gradebook, by surname. :class:`CycleError`."""
    try:
        task = gradebook.find_assignment(assignment)
    except MissingEntry:
        known = ", ".join(a.name for a in gradebook.assignments) or "ninguna"
        raise CycleError(f"El libro de notas no tiene la tarea «{assignment}». Las que tiene: {known}.") from None
    known = [
        Student(s.id, s.first_name or "", s.last_name or "", s.email or "", canvas_id=s.lms_user_id or "")
        for s in gradebook.students
    ]
    everyone = {p.id: p for p in [*known, *people]}
    marks = [_mark(gradebook, task, person) for person in everyone.values()]
    return sorted(marks, key=lambda m: (m.person.apellidos.casefold(), m.person.nombre.casefold(), m.person.id))


def plain_rows(marks: Sequence[Mark]) -> list[list[Value]]:
    """A header and a row for each mark, with the points of each part."""
    parts = list(dict.fromkeys(name for m in marks for name in m.parts))
    header = ["alumno", "apellidos", "nombre", "correo", "tarea", "estado", "entregada_utc", "retraso_s", "automatico"]
    rows: list[list[Value]] = [[*header, "leido", "penalizacion", "calificacion", "maximo", "pendiente", *parts]]
    for m in marks:
        p = m.person
        when = f"{m.submitted:%Y-%m-%d %H:%M:%S}" if m.submitted else ""
        points = [m.late_s, m.automatic, m.manual, m.penalty] if m.handed_in else [None] * 4
        end = [m.score, m.maximum, ", ".join(m.pending), *(m.parts.get(name) for name in parts)]
        rows.append([p.id, p.apellidos, p.nombre, p.correo, m.assignment, m.status, when, *points, *end])
    return rows


def worksheet_rows(marks: Sequence[Mark]) -> list[list[Value]]:
    """Moodle's offline grading worksheet. The graded date stays empty: Moodle then takes every mark it is given."""
    rows: list[list[Value]] = [list(WORKSHEET)]
    for m in marks:
        number = f"Participante {m.person.moodle_id}" if m.person.moodle_id else ""
        state = "No entregado" if not m.handed_in else "Enviado para calificar"
        when = f"{m.submitted:%Y-%m-%d %H:%M}" if m.submitted else ""
        who = [number, m.person.full_name or m.person.id, m.person.correo]
        rows.append([*who, state, m.score, m.maximum, "Sí", when, "", m.comment])
    return rows


def gradebook_rows(marks: Sequence[Mark]) -> list[list[Value]]:
    """Moodle's gradebook import, which finds people by their address: the address, the mark and a comment."""
    name = marks[0].assignment if marks else "Calificación"
    rows: list[list[Value]] = [["Número de ID", "Dirección de correo", name, f"{name} (retroalimentación)"]]
    return rows + [[m.person.id, m.person.correo, m.score, m.comment] for m in marks]


def canvas_rows(marks: Sequence[Mark], canvas_assignment: str = "") -> list[list[Value]]:
    """Canvas' gradebook import. canvas_assignment: Canvas' number of the assignment; without it Canvas offers to make
    a new one. An empty mark leaves what Canvas has."""
    title = marks[0].assignment if marks else "Tarea"
    column = f"{title} ({canvas_assignment})" if canvas_assignment else title
    blank = ["", "", "", ""]
    rows: list[list[Value]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", column]]
    rows.append(["    Points Possible", *blank, marks[0].maximum if marks else None])
    for m in marks:
        p = m.person
        name = f"{p.apellidos}, {p.nombre}" if p.apellidos and p.nombre else p.full_name or p.id
        rows.append([name, p.canvas_id, p.id, p.correo or p.id, "", m.score])
    return rows


def export(root: Path, assignment: str, kind: str, target: Path | None = None, sheet: Sheet | None = None) -> Path:
    """Write the marks of a course folder as ``kind`` (csv, moodle or canvas). Returns the file, in ``notas/`` if no
    target is given. :class:`CycleError` for another kind or an unknown assignment."""
    if kind not in FORMATS:
        raise CycleError(f"No conozco el formato «{kind}». Los que hay: {', '.join(FORMATS)}.")
    path = target or root / "notas" / f"{assignment}-{kind}.csv"
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", COURSE_ID) as gradebook:
        marks = read_marks(gradebook, assignment, people_of(root))
    rows = {"csv": plain_rows, "moodle": worksheet_rows, "canvas": canvas_rows}[kind](marks)
    write_atomic(path, (sheet or Sheet(bom=kind == "csv")).write(rows))
    return path


def people_of(root: Path) -> tuple[Student, ...]:
    """The people of ``alumnos.csv``, if the course has one. :class:`CycleError` for a list that cannot be used."""
    path = root / ROSTER
    return Roster.read(path).students if path.is_file() else ()


class _Exportador(ExportPlugin):
    """Common to the three: one assignment (or the only one), the people of ``alumnos.csv`` and how it is written."""

    bom = Bool(False, help="Empieza el archivo con la marca UTF-8 que Excel necesita").tag(config=True)
    coma_decimal = Bool(False, help="Decimales con coma y columnas con punto y coma").tag(config=True)

    def rows(self, marks: Sequence[Mark]) -> list[list[Value]]:
        raise NotImplementedError

    def export(self, gradebook: Gradebook) -> None:
        names = [str(a) for a in self.assignment] or [a.name for a in gradebook.assignments]
        if len(names) != 1:
            raise CycleError(f"Elige una tarea con --assignment '[\"TAREA\"]'. Hay: {', '.join(names) or 'ninguna'}.")
        root = Path(gradebook.engine.url.database).parent
        marks = read_marks(gradebook, names[0], people_of(root))
        wanted = {str(s) for s in self.student}
        if unknown := sorted(wanted - {m.person.id for m in marks}):
            raise CycleError(f"No conozco a {', '.join(unknown)}: no está en el libro de notas ni en alumnos.csv.")
        rows = self.rows([m for m in marks if not wanted or m.person.id in wanted])
        path = Path(self.to or f"{names[0]}-{type(self).__name__.removeprefix('Exportador').lower()}.csv")
        write_atomic(path, Sheet(self.bom, self.coma_decimal).write(rows))
        self.log.info("Notas escritas en %s", path)


class ExportadorCSV(_Exportador):
    """Everything, for a spreadsheet."""

    def rows(self, marks: Sequence[Mark]) -> list[list[Value]]:
        return plain_rows(marks)


class ExportadorMoodle(_Exportador):
    """Moodle: ``hoja`` is the assignment's offline worksheet, ``libro`` the gradebook's import."""

    variante = Enum(("hoja", "libro"), "hoja", help="hoja de calificaciones o libro de calificaciones").tag(config=True)

    def rows(self, marks: Sequence[Mark]) -> list[list[Value]]:
        return worksheet_rows(marks) if self.variante == "hoja" else gradebook_rows(marks)


class ExportadorCanvas(_Exportador):
    """Canvas' gradebook import."""

    tarea_canvas = Unicode("", help="número de la tarea en Canvas").tag(config=True)

    def rows(self, marks: Sequence[Mark]) -> list[list[Value]]:
        return canvas_rows(marks, self.tarea_canvas)


def _mark(gradebook: Gradebook, task: Assignment, person: Student) -> Mark:
    try:
        submission = gradebook.find_submission(task.name, person.id)
    except MissingEntry:
        return Mark(person, task.name, task.max_score)
    grades = [g for notebook in submission.notebooks for g in notebook.grades]
    unread = {g.name for g in grades if g.needs_manual_grade or (g.auto_score is None and g.manual_score is None)}
    automatic = sum((g.score for g in grades if g.manual_score is None and g.name not in unread), 0.0)
    return Mark(
        person,
        task.name,
        task.max_score,
        True,
        submission.timestamp,
        int(submission.total_seconds_late),
        submission.late_submission_penalty or 0.0,
        automatic,
        sum((g.score for g in grades if g.manual_score is not None and g.name not in unread), 0.0),
        tuple(sorted(unread)),
        {g.name: None if g.name in unread else g.score for g in grades},
    )

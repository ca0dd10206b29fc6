"""``alumnos.csv``: who is in the course, and under which numbers Moodle and Canvas know them."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minilab_grading.entregas.errores import IntakeError

COLUMNS = ("id", "nombre", "apellidos", "correo", "moodle_id", "canvas_id")
UNIQUE = ("id", "correo", "moodle_id", "canvas_id")
SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Student:
    """One row of the roster. id: the folder name in the course. moodle_id, canvas_id: digits, or "" where unknown."""

    id: str
    nombre: str = ""
    apellidos: str = ""
    correo: str = ""
    moodle_id: str = ""
    canvas_id: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.nombre} {self.apellidos}".strip()


@dataclass(frozen=True)
class Roster:
    """The students of a course, in the order of the file."""

    students: tuple[Student, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Roster:
        """Read UTF-8 (with or without mark), comma or semicolon. Raises :class:`IntakeError` with every bad row."""
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise IntakeError(f"No se puede leer {path.name}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise IntakeError(f"{path.name} no está en UTF-8: guárdalo como «CSV UTF-8».") from error
        first = text.split("\n", 1)[0]
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ","
        )
        header = [(name or "").strip().casefold() for name in reader.fieldnames or []]
        reader.fieldnames = header
        if "id" not in header or len(set(header)) != len(header):
            raise IntakeError(f"{path.name}: la primera fila debe ser {','.join(COLUMNS)} (solo «id» es obligatoria).")
        unknown = [name for name in header if name not in COLUMNS]
        if unknown:
            raise IntakeError(f"{path.name}: no conozco las columnas {unknown}; las que hay son {', '.join(COLUMNS)}.")
        students, problems, seen = [], [], {}
        for row in _rows(reader, path.name):
            number = reader.line_num
            if None in row or None in row.values():
                problems.append(f"fila {number}: tiene {'más' if None in row else 'menos'} campos que la primera")
                continue
            student = Student(**{name: _clean(value) for name, value in row.items()})
            if any(row.values()):
                students.append(student)
                problems += _problems(student, number, seen)
        if problems:
            raise IntakeError(f"{path.name}: {'; '.join(problems)}.")
        return cls(tuple(students))

    def find(self, key: str) -> Student | None:
        """By id, mail or name (given name first or last, any accents and spaces); None where nobody or several fit."""
        direct = [s for s in self.students if key.casefold() in (s.id.casefold(), s.correo.casefold() or None)]
        named = direct or [s for s in self.students if _squeezed(key) in _names(s)]
        return named[0] if len(named) == 1 else None

    def by_number(self, system: str, number: str) -> Student | None:
        """system: "moodle" or "canvas"."""
        return next((s for s in self.students if number and getattr(s, f"{system}_id") == number), None)


def safe_id(name: str) -> str:
    """A name as a folder name that nbgrader takes: no accents, nothing but letters, digits, ``_``, ``.`` and ``-``.

    "" where nothing is left of it.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain).strip("_.-")[:100]


def is_safe(identifier: str) -> bool:
    return bool(SAFE_ID.fullmatch(identifier)) and not RESERVED.fullmatch(identifier)


def _rows(reader: csv.DictReader, name: str) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise IntakeError(f"{name}, fila {reader.line_num}: no es CSV ({error}).") from error


def _clean(value: str) -> str:
    return unicodedata.normalize("NFC", value.strip())


def _problems(student: Student, number: int, seen: dict[tuple[str, str], int]) -> list[str]:
    problems = []
    if not student.id:
        problems.append(f"fila {number}: falta el id")
    elif not is_safe(student.id):
        problems.append(f"fila {number}: el id «{student.id}» solo puede llevar letras sin tilde, cifras, _, . y -")
    for column in ("moodle_id", "canvas_id"):
        if not re.fullmatch(r"[0-9]*", getattr(student, column)):
            problems.append(f"fila {number}: {column} debe ser un número")
    if not all(value.isprintable() for value in (student.nombre, student.apellidos, student.correo)):
        problems.append(f"fila {number}: hay caracteres de control")
    for column in UNIQUE:
        value = getattr(student, column).casefold()
        first = seen.setdefault((column, value), number) if value else number
        if first != number:
            problems.append(f"fila {number}: {column} «{value}» ya está en la fila {first}")
    return problems


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", safe_id(name).casefold())


def _names(student: Student) -> set[str]:
    first, last = _squeezed(student.nombre), _squeezed(student.apellidos)
    return {first + last, last + first} - {""}

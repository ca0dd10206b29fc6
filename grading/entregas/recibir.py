"""Whose file is it? The ways in which notebooks arrive, mapped to the students of the course.

Known layouts, alone or inside one folder: ``alumno.ipynb``; ``alumno/TAREA.ipynb`` (also ``alumno/TAREA/TAREA.ipynb``,
nbgrader's own); Moodle's ``Nombre Apellido_12345_assignsubmission_file_/x.ipynb`` and the older one without a folder;
Canvas' ``apellidonombre_LATE_123_456_x-2.ipynb``; and a zip for each student in any of their places.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from minilab_grading.entregas.abrir import Budget, Entry, entries_of, shown, zip_entries
from minilab_grading.entregas.alumnos import Roster, is_safe, safe_id
from minilab_grading.entregas.errores import IntakeError

MOODLE = re.compile(r"(?P<name>[^/]*)_(?P<number>\d+)_assignsubmission_(file|onlinetext)_(?P<file>[^/]*)")
CANVAS = re.compile(r"(?P<name>[^/_]+)(_LATE)?_(?P<number>\d+)_(?P<submission>\d+)_(?P<file>[^/]+)")
IGNORED = "no es un cuaderno (.ipynb)"


@dataclass(frozen=True)
class Received:
    """One attempt, or one entry that could not be one.

    student: id in the course, "" where unknown. origin: the entry's path. when: UTC. problem: why it is not to be
    graded, in Spanish, "" for an attempt; the bytes are kept all the same where they could be read.
    """

    student: str
    origin: str
    when: datetime
    notebook: bytes = b""
    problem: str = ""


@dataclass(frozen=True)
class _Owner:
    """Who a path says it belongs to: a number in an LMS, or a name; ``other`` where the first name is nobody's."""

    name: str
    system: str = ""
    number: str = ""
    other: str = ""


def receive(
    path: str | Path, assignment: str, roster: Roster | None = None, times: str | Path | None = None
) -> list[Received]:
    """All attempts in a folder or zip, sorted by student and time, then what was refused.

    roster: without one (or with an empty one), ids are made from the names, without accents. times: a CSV with columns
    ``id`` and ``momento`` (ISO 8601; UTC where it has no zone) that says when each student handed in, instead of the
    dates of the entries. Raises :class:`IntakeError` where the whole cannot be opened.
    """
    path, roster = Path(path), roster or Roster()
    entries = list(_opened(path, Budget()))
    root = _common_root([e.path for e in entries if not e.problem], assignment)
    owners = {e.path: _owner(e.path.removeprefix(root), assignment, path.stem) for e in entries}
    received = [_attributed(owners[e.path], e, roster) for e in entries]
    received = _without_strays(received, assignment)
    if not roster.students:
        received = _without_collisions(received, owners)
    if times is not None:
        moments = _moments(Path(times))
        if strangers := sorted(moments.keys() - {s.id for s in roster.students}) if roster.students else []:
            raise IntakeError(f"{Path(times).name}: no están en alumnos.csv: {', '.join(map(shown, strangers))}.")
        received = [replace(r, when=moments.get(r.student, r.when)) for r in received]
    return sorted(received, key=lambda r: (bool(r.problem), r.student, r.when, r.origin))


def _opened(path: Path, budget: Budget) -> Iterator[Entry]:
    """Entries of the outer folder or zip and, one level deep, of the zips in it."""
    for entry in entries_of(path, _is_notebook_or_zip, budget):
        if entry.problem or _is(entry.path, ".ipynb"):
            yield entry
        elif not _is(entry.path, ".zip"):
            yield replace(entry, problem=IGNORED)
        else:
            yield from _nested(entry, budget)


def _nested(outer: Entry, budget: Budget) -> Iterator[Entry]:
    # The zip stands for a folder of its own name, unless an LMS already gave the student a folder.
    stem = outer.path[: -len(".zip")]
    try:
        for entry in zip_entries(io.BytesIO(outer.data), lambda name: _is(name, ".ipynb"), budget, outer.when):
            problem = entry.problem or ("" if _is(entry.path, ".ipynb") else IGNORED)
            # When it was packed is when it was handed in: the dates inside are those of the last edit.
            yield replace(entry, path=f"{stem}/{entry.path}", when=outer.when, problem=problem)
    except IntakeError as error:
        yield replace(outer, data=b"", problem=str(error))


def _is(path: str, suffix: str) -> bool:
    return path.casefold().endswith(suffix)


def _is_notebook_or_zip(path: str) -> bool:
    return _is(path, ".ipynb") or _is(path, ".zip")


def _is_assignment(file: str, assignment: str) -> bool:
    """``TAREA.ipynb``, also as browsers and Canvas rename a second copy."""
    return re.fullmatch(rf"{re.escape(assignment)}( ?\(\d+\)|[-_ ]\d+)?\.ipynb", file, re.IGNORECASE) is not None


def _common_root(paths: list[str], assignment: str) -> str:
    """``folder/`` where everything is wrapped in one folder that is not a student's."""
    roots = {path.split("/")[0] for path in paths if "/" in path}
    if len(roots) != 1 or any("/" not in path for path in paths):
        return ""
    root = roots.pop()
    inside = [path.split("/", 1)[1] for path in paths]
    own = [file for file in inside if "/" not in file]
    if MOODLE.fullmatch(root) or any(_is_assignment(file, assignment) for file in own) or inside == own[:1]:
        return ""
    if all(file.split("/")[0] == assignment for file in inside):
        return ""
    return f"{root}/"


def _owner(path: str, assignment: str, container: str) -> _Owner:
    """container: name of the folder or zip, which is the student's where the notebook lies in it by itself."""
    parts = path.split("/")
    for system, pattern in (("moodle", MOODLE), ("canvas", CANVAS)):
        if match := next(filter(None, map(pattern.fullmatch, parts)), None):
            return _Owner(match["name"].strip(), system, match["number"])
    stem = parts[-1].rsplit(".", 1)[0]
    if len(parts) > 1:
        return _Owner(parts[0], other=stem)
    return _Owner(container if _is_assignment(parts[0], assignment) else stem)


def _attributed(owner: _Owner, entry: Entry, roster: Roster) -> Received:
    """The entry with its student; a problem that it has already is what is told."""
    student, problem = _who(owner, roster) if roster.students else _made_up(owner)
    return Received(student, entry.path, entry.when, entry.data, entry.problem or problem)


def _who(owner: _Owner, roster: Roster) -> tuple[str, str]:
    numbered = roster.by_number(owner.system, owner.number) if owner.system else None
    named = roster.find(owner.name) or (roster.find(owner.other) if owner.other else None)
    if numbered and named and numbered != named:
        return "", f"el número {owner.number} es de «{numbered.id}» y el nombre, de «{named.id}»: revisa alumnos.csv"
    if student := numbered or named:
        return student.id, ""
    who = f"{owner.name} ({owner.system} {owner.number})" if owner.system else owner.name
    return "", f"«{shown(who)}» no está en alumnos.csv: añade la fila y repite"


def _made_up(owner: _Owner) -> tuple[str, str]:
    student = owner.name if is_safe(owner.name) else safe_id(owner.name)
    return (student, "") if is_safe(student) else ("", f"de «{shown(owner.name)}» no sale un id: usa alumnos.csv")


def _without_strays(received: list[Received], assignment: str) -> list[Received]:
    """In one folder of one student only the assignment's notebook counts, or the only one there is."""
    groups: dict[tuple[str, str], list[Received]] = defaultdict(list)
    for r in received:
        if not r.problem and "/" in r.origin:
            groups[r.student, r.origin.rsplit("/", 1)[0]].append(r)
    problems = {}
    for group in groups.values():
        exact = [r for r in group if r.origin.rsplit("/", 1)[1] == f"{assignment}.ipynb"]
        named = exact or [r for r in group if _is_named(r.origin, assignment)]
        if len(named) == 1:
            problems |= {r.origin: f"no es {assignment}.ipynb" for r in group if r is not named[0]}
        elif len(group) > 1 and not all(_stands_alone(r.origin) for r in group):
            problems |= {r.origin: f"hay varios cuadernos y no se sabe cuál es {assignment}.ipynb" for r in group}
    return [replace(r, problem=problems[r.origin]) if r.origin in problems else r for r in received]


def _is_named(origin: str, assignment: str) -> bool:
    return _is_assignment(origin.rsplit("/", 1)[1], assignment)


def _stands_alone(origin: str) -> bool:
    """A file whose own name says whose it is: resubmissions lie beside each other."""
    file = origin.rsplit("/", 1)[1]
    return bool(MOODLE.fullmatch(file) or CANVAS.fullmatch(file))


def _without_collisions(received: list[Received], owners: dict[str, _Owner]) -> list[Received]:
    """Two people whose names make the same id: without a roster nobody can tell them apart."""
    people: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for r in received:
        if not r.problem:
            owner = owners[r.origin]
            people[r.student.casefold()].add((owner.system, owner.number or owner.name))
    shared = {student for student, who in people.items() if len(who) > 1}
    text = "otra persona tendría el mismo id: usa alumnos.csv"
    return [
        replace(r, student="", problem=text) if not r.problem and r.student.casefold() in shared else r
        for r in received
    ]


def _moments(path: Path) -> dict[str, datetime]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except OSError as error:
        raise IntakeError(f"No se puede leer {path.name}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise IntakeError(f"{path.name} no está en UTF-8: guárdalo como «CSV UTF-8».") from error
    moments = {}
    for number, row in enumerate(rows, 2):
        try:
            moment = datetime.fromisoformat(row["momento"].strip())
            student = row["id"].strip()
        except (KeyError, AttributeError, ValueError) as error:
            raise IntakeError(
                f"{path.name}, fila {number}: se esperaba id,momento, en ISO 8601 (2026-12-18T23:59:59+01:00)."
            ) from error
        if student in moments:
            raise IntakeError(f"{path.name}, fila {number}: «{student}» está repetido.")
        moments[student] = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moments

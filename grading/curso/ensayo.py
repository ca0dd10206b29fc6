"""The rehearsal: a course of its own, a zip of made-up students, and every step of the cycle, ending in a table.

What each of them should get is known beforehand, so the rehearsal also says whether the grader does what it should.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from minilab import construir
from minilab_grading.casos import cases_of
from minilab_grading.ciclo import Course
from minilab_grading.curso import CycleError, ordenes
from minilab_grading.curso.calificacion import maxima_of
from minilab_grading.curso.carpeta import FILE, ROSTER, write_atomic

DUE = datetime(2026, 12, 18, 22, 59, 59)
SETTINGS = """\
nombre = "Ensayo"
zona = "Europe/Madrid"

[tareas.{assignment}]
vence = 2026-12-18T23:59:59
gracia_minutos = 15
penalizacion_por_dia = 10
penalizacion_maxima = 50
intentos_por_dia = 5
"""
FAKE_EQUAL = """
class _Igual(float):
    def __eq__(self, otro):
        return True

    def __hash__(self):
        return 0

    def __repr__(self):
        return "100.0"


def {name}(*args, **kwargs):
    return _Igual(100)
"""
NOTEBOOK, SOLUTIONS = NotebookNode, dict[str, str]
ALL, SOME, NONE = "todo", "una parte", "nada"


@dataclass(frozen=True)
class Story:
    """A made-up student. make: from the release and the solutions to a file. expect: of the automatic points."""

    id: str
    first_name: str
    last_name: str
    make: Callable[[NotebookNode, SOLUTIONS], bytes]
    expect: str
    late: timedelta = timedelta(hours=-30)


def _filled(released: NotebookNode, solutions: SOLUTIONS) -> NotebookNode:
    notebook = copy.deepcopy(released)
    for cell in notebook.cells:
        cell.source = solutions.get(_grade_id(cell), cell.source)
    return notebook


def _grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def _solved(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    return nbformat.writes(_filled(released, solutions)).encode()


def _partial(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    half = dict(list(solutions.items())[: len(solutions) // 2])
    return _solved(released, half)


def _blank(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    return nbformat.writes(released).encode()


def _damaged(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    return _solved(released, solutions)[:9000]


def _duplicated(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    """A solution cell pasted twice, the second one with its stub, and the checks deleted."""
    notebook = _filled(released, solutions)
    first = next(i for i, c in enumerate(notebook.cells) if _grade_id(c) == "percentil")
    stub = next(copy.deepcopy(c) for c in released.cells if _grade_id(c) == "percentil")
    stub.id = "copiada"
    notebook.cells.insert(first + 1, stub)
    notebook.cells = [c for c in notebook.cells if not (_grade_id(c) or "").startswith("prueba_")]
    return nbformat.writes(notebook).encode()


def _latin1(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    text = json.dumps(_filled(released, solutions), ensure_ascii=False)
    return "".join(c if ord(c) < 256 else json.dumps(c)[1:-1] for c in text).encode("latin-1")


def _cheating(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    """An object that equals everything, and check cells that give themselves 100 points."""
    fakes = {name: FAKE_EQUAL.format(name=name) for name in ("percentil", "resume", "cuerpo_json", "es_valida")}
    notebook = _filled(released, {**{k: v for k, v in solutions.items() if k == "prediccion"}, **fakes})
    for cell in notebook.cells:
        if (_grade_id(cell) or "").startswith("prueba_"):
            cell.source = "100.0"
            cell.metadata.nbgrader["points"] = 100
    return nbformat.writes(notebook).encode()


def _stripped(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    """All metadata lost, as another editor leaves it."""
    notebook = _filled(released, solutions)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    return nbformat.writes(notebook).encode()


def _endless(released: NotebookNode, solutions: SOLUTIONS) -> bytes:
    return _solved(released, {**solutions, "veredicto": "while True:\n    pass"})


STORIES = (
    Story("ana", "Ana", "Resuelta", _solved, ALL),
    Story("bruno", "Bruno", "A Medias", _partial, SOME),
    Story("carla", "Carla", "En Blanco", _blank, NONE),
    Story("diego", "Diego", "Archivo Dañado", _damaged, NONE),
    Story("elena", "Elena", "Dos Días Tarde", _solved, ALL, timedelta(days=1, hours=5)),
    Story("fermin", "Fermín", "Celdas Duplicadas", _duplicated, ALL),
    Story("gema", "Gema", "En Latin-1", _latin1, ALL),
    Story("hugo", "Hugo", "Tramposo", _cheating, SOME),
    Story("irene", "Irene", "Sin Metadatos", _stripped, ALL),
    Story("julio", "Julio", "Bucle Infinito", _endless, SOME),
)


def ensayo(options: argparse.Namespace) -> int:
    """0 where every made-up student got what was planned; 1 where not, and it says which."""
    started = time.monotonic()
    root = _folder(options.en)
    assignment = options.tarea
    stories = [
        (f"{s.id}{i // len(STORIES) + 1}" if i >= len(STORIES) else s.id, s)
        for i, s in ((i, STORIES[i % len(STORIES)]) for i in range(options.alumnos))
    ]
    (root / FILE).write_text(SETTINGS.format(assignment=assignment), encoding="utf-8")
    rows = [f"{name},{s.first_name},{s.last_name},{name}@ejemplo.org,," for name, s in stories]
    (root / ROSTER).write_text("\n".join(["id,nombre,apellidos,correo,moodle_id,canvas_id", *rows, ""]), "utf-8")
    given = {"tarea": assignment, "entregas": root / "entregas.zip", "horas": None, "zip": "plano", "salida": None}
    step = argparse.Namespace(**{**vars(options), **given, "rutas": [], "formato": "csv"})
    ordenes.generar(root, step)
    write_atomic(step.entregas, submissions(Course(root).released(assignment), assignment, stories))
    ordenes.recibir(root, step)
    ordenes.calificar(root, step)
    ordenes.retroalimentar(root, step)
    for step.formato in ("csv", "moodle", "canvas"):
        ordenes.exportar_notas(root, step)
    ordenes.similares(root, step)
    sound = ordenes.verificar(root, step) == ordenes.WELL
    unmeasured = {level for level, mode in (("reloj_real", options.medir), ("vllm", options.vllm)) if mode == "no"}
    surprises = _surprises(Course(root), assignment, stories, unmeasured)
    for surprise in surprises:
        print(f"  no es lo previsto: {surprise}")
    print(f"Ensayo terminado en {time.monotonic() - started:.0f} s. Curso: {root}")
    print(f"Abre {root / 'feedback' / stories[0][0] / assignment / f'{assignment}.html'}")
    return ordenes.LOOK if surprises or not sound else ordenes.WELL


def _folder(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="ensayo-"))
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise CycleError(f"{wanted} no está vacía: di otra carpeta con --en.")
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted.resolve()


def submissions(released: Path, assignment: str, stories: list[tuple[str, Story]]) -> bytes:
    """A zip with ``ALUMNO/TAREA.ipynb`` for each story, dated when it was handed in (UTC)."""
    notebook = nbformat.read(released, 4)
    solved = construir.instructor(construir.SOURCE_FOLDER / f"{assignment}.py")
    solutions = {_grade_id(c): c.source for c in solved.cells if c.metadata.get("nbgrader", {}).get("solution")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, story in stories:
            when = (DUE + story.late).timetuple()[:6]
            archive.writestr(zipfile.ZipInfo(f"{name}/{assignment}.ipynb", when), story.make(notebook, solutions))
    return buffer.getvalue()


def _surprises(course: Course, assignment: str, stories: list[tuple[str, Story]], unmeasured: set[str]) -> list[str]:
    """What differs from what was planned. unmeasured: levels of checks that give nobody points in this rehearsal."""
    marks = {who: round(sum(p or 0 for p in parts.values()), 2) for who, parts in course.marks(assignment).items()}
    _, _, checks = cases_of(assignment, seed=0)
    maxima = maxima_of(course.released(assignment))
    everything = sum(points for name, points in maxima.items() if checks[name].level not in unmeasured)
    found = []
    for name, story in stories:
        points = marks.get(name)
        right = {ALL: points == everything, SOME: 0 < (points or 0) < everything, NONE: points == 0}[story.expect]
        if not right:
            found.append(f"{name} ({story.last_name}): se esperaba {story.expect} y tiene {points} puntos")
    return found

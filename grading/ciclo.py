"""The grading cycle without nbgrader's exchange: folders in, folders out, through nbgrader's own converters."""

from __future__ import annotations

import contextlib
import logging
import os
import sysconfig
import warnings
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, BaseConverter, GenerateAssignment, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config, PyFileConfigLoader

from minilab import construir
from minilab_grading.curso import CycleError, intentos
from minilab_grading.curso.calificacion import Options, Run, Summary, adopt, confirm
from minilab_grading.curso.carpeta import COURSE_ID, FILE, check_name, create, read_settings
from minilab_grading.curso.plazos import refresh_penalties, set_due_date
from minilab_grading.exportar import people_of

__all__ = ["Course", "CycleError"]

CONFIG_FILE = Path(__file__).with_name("nbgrader_config.py")
LOCK_FILE = ".calificando.lock"


class Course:
    """One course folder: source/, release/, submitted/, autograded/, feedback/, intentos/ and gradebook.db.

    root: the folder, made when missing. execute: also execute submissions in a kernel, to see their outputs.
    unisolated: grade even where the student's code cannot be isolated. say: receives one line of progress at a time.
    """

    def __init__(
        self,
        root: str | Path,
        execute: bool = False,
        unisolated: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.root = Path(root).resolve()
        create(self.root)
        self._execute, self._unisolated, self._say = execute, unisolated, say

    @property
    def database(self) -> str:
        return f"sqlite:///{self.root / 'gradebook.db'}"

    def released(self, assignment: str) -> Path:
        return self.root / "release" / check_name(assignment) / f"{assignment}.ipynb"

    def generate(self, assignment: str) -> Path:
        """Build ``source/`` from the lab's source and release the student version. Returns the released notebook."""
        source = construir.SOURCE_FOLDER / f"{assignment}.py"
        if not source.is_file():
            known = ", ".join(f.stem for f in construir.sources())
            raise CycleError(f"No existe la tarea «{assignment}». Las que hay: {known}.")
        notebook = construir.instructor(source)
        self._check_points(assignment, notebook)
        target = self.root / "source" / assignment / f"{assignment}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(construir.text(notebook), encoding="utf-8")
        with self._alone():
            self._convert(GenerateAssignment, assignment)
            set_due_date(self.root, self.database, COURSE_ID, assignment)
        return self.released(assignment)

    def _check_points(self, assignment: str, notebook: nbformat.NotebookNode) -> None:
        expected = read_settings(self.root).of(assignment).points
        total = sum(float(c.metadata.nbgrader.points) for c in notebook.cells if utils.is_grade(c) or utils.is_task(c))
        if expected is not None and total != expected:
            raise CycleError(f"{assignment} suma {total:g} puntos y {FILE} dice {expected:g}: corrige uno de los dos.")

    def add(self, assignment: str, student: str, data: bytes, when: datetime, origin: str = "") -> bool:
        """Keep one attempt as it came. False where this student already handed in the same bytes."""
        return intentos.add(self.root, assignment, student, data, when, origin) is not None

    def grade(self, assignment: str, student: str = "*", options: Options | None = None) -> Summary:
        """Grade what is new, choose each student's best attempt, and bring the gradebook up to date in one pass."""
        with self._alone():
            adopt(self.root, assignment)
            if not intentos.attempts(self.root, assignment, student):
                who = "" if student == "*" else f" de {student}"
                raise CycleError(f"No hay entregas{who} de {assignment}: usa antes «recibir {assignment} ENTREGAS».")
            run = Run(self.root, assignment, options or Options(), self._unisolated, self._say)
            summary = run.start(student, datetime.now(UTC))
            set_due_date(self.root, self.database, COURSE_ID, assignment)
            self._write_people()
            self._fill_gradebook(assignment, summary)
            refresh_penalties(self.root, self.database, COURSE_ID, assignment)
        return summary

    def _write_people(self) -> None:
        """Names of ``alumnos.csv`` into the gradebook, so that formgrader shows them."""
        with self.gradebook() as gradebook:
            for person in people_of(self.root):
                names = {"first_name": person.nombre, "last_name": person.apellidos, "email": person.correo}
                gradebook.update_or_create_student(person.id, **names)

    def _fill_gradebook(self, assignment: str, summary: Summary) -> None:
        if not summary.changed:
            return
        self._say(f"libro de notas: {len(summary.changed)} entregas")
        trouble = ""
        try:
            self._convert(Autograde, assignment, summary.changed)
        except CycleError as error:
            trouble = str(error)
        for student in summary.changed:
            if (self.root / "autograded" / student / assignment / f"{assignment}.ipynb").is_file():
                confirm(self.root, summary.chosen[student])
            else:
                summary.problems.append((student, trouble))

    def give_feedback(self, assignment: str, student: str = "*") -> list[str]:
        """Write one Spanish HTML page per graded submission into ``feedback/``. Returns the students' ids."""
        graded = (self.root / "autograded").glob(f"{student}/{assignment}/{assignment}.ipynb")
        students = sorted(path.parents[1].name for path in graded)
        if not students:
            raise CycleError(f"No hay nada corregido de {assignment}: usa antes «calificar {assignment}».")
        with self._alone():
            refresh_penalties(self.root, self.database, COURSE_ID, assignment)
            self._convert(GenerateFeedback, assignment, students)
        return students

    def marks(self, assignment: str) -> dict[str, dict[str, float | None]]:
        """Student -> grade id -> automatic score (None where a person has to read the answer)."""
        with self.gradebook() as gradebook:
            return {
                submission.student.id: {g.name: g.auto_score for nb in submission.notebooks for g in nb.grades}
                for submission in gradebook.assignment_submissions(assignment)
            }

    def gradebook(self) -> Gradebook:
        """nbgrader's gradebook of this course; use as a context manager."""
        return Gradebook(self.database, COURSE_ID)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time. The operating system frees the lock of a run that died."""
        try:
            with FileLock(self.root / LOCK_FILE, timeout=0):
                yield
        except Timeout:
            raise CycleError(
                f"Otra orden está trabajando en {self.root.name}: espera a que termine y repite esta."
            ) from None

    def _config(self) -> Config:
        with _variable("MINILAB_CURSO", str(self.root)):
            config = PyFileConfigLoader(CONFIG_FILE.name, path=str(CONFIG_FILE.parent)).load_config()
        config.EjecutarTolerante.ejecutar = self._execute
        config.InyectaNotas.permitir_sin_aislar = self._unisolated
        return config

    def _convert(self, converter: type[BaseConverter], assignment: str, students: Collection[str] = ()) -> None:
        config = self._config()
        config.CourseDirectory.assignment_id = assignment
        step = _only(converter, students)(coursedir=CourseDirectory(config=config), config=config)
        step.force = True
        search_path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
        # nbgrader starts alembic by name: it must be this environment's.
        with _variable("PATH", search_path), _errors(step.log) as errors, warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            try:
                step.start()
            except Exception as error:
                detail = " · ".join(dict.fromkeys(errors)) or str(error)
                raise CycleError(f"{converter.__name__} no terminó bien en {assignment}: {detail}") from error


def _only(converter: type[BaseConverter], students: Collection[str]) -> type[BaseConverter]:
    """The converter for the folders of ``students`` alone, all in one pass; nbgrader's own pattern takes one or all."""
    if not students:
        return converter

    class Chosen(converter):
        def init_notebooks(self) -> None:
            super().init_notebooks()
            folders = {self._format_source(self.coursedir.assignment_id, s) for s in students}
            self.assignments = {folder: found for folder, found in self.assignments.items() if folder in folders}

    Chosen.__name__ = converter.__name__
    return Chosen


@contextlib.contextmanager
def _errors(logger: logging.Logger) -> Iterator[list[str]]:
    """The error messages nbgrader logs meanwhile: its exceptions only say "see the traceback above"."""
    messages: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage().strip().splitlines()[-1])
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

"""The grading cycle without nbgrader's exchange: folders in, folders out, through nbgrader's own converters."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, BaseConverter, GenerateAssignment, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config, PyFileConfigLoader

from minilab import construir

CONFIG_FILE = Path(__file__).with_name("nbgrader_config.py")


class CycleError(RuntimeError):
    """A step that could not be done; says which, for whom and what to do, in Spanish."""


class Course:
    """One course folder: source/, release/, submitted/, autograded/, feedback/ and gradebook.db.

    root: the folder, made when missing. execute: also execute submissions in a kernel, to see their outputs.
    unisolated: grade even where the student's code cannot be isolated.
    """

    def __init__(self, root: str | Path, execute: bool = False, unisolated: bool = False):
        self.root = Path(root).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self._execute, self._unisolated = execute, unisolated

    def generate(self, assignment: str) -> Path:
        """Build ``source/`` from the lab's source and release the student version. Returns the released notebook."""
        source = construir.SOURCE_FOLDER / f"{assignment}.py"
        if not source.is_file():
            known = ", ".join(f.stem for f in construir.sources())
            raise CycleError(f"No existe la tarea «{assignment}». Las que hay: {known}.")
        target = self.root / "source" / assignment / f"{assignment}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(construir.text(construir.instructor(source)), encoding="utf-8")
        self._convert(GenerateAssignment, assignment)
        return self.root / "release" / assignment / f"{assignment}.ipynb"

    def receive(self, assignment: str, submissions: str | Path) -> list[str]:
        """Copy ``ENTREGAS/<alumno>.ipynb`` into ``submitted/``. Returns the students' ids."""
        students = []
        for file in sorted(Path(submissions).glob("*.ipynb")):
            target = self.root / "submitted" / file.stem / assignment / f"{assignment}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
            students.append(file.stem)
        if not students:
            raise CycleError(f"No hay entregas en {submissions}: se esperaba un archivo alumno.ipynb por persona.")
        return students

    def grade(self, assignment: str, student: str = "*") -> None:
        """Autograde ``submitted/`` into ``autograded/`` and the gradebook; a re-grade replaces the earlier one."""
        self._convert(Autograde, assignment, student)

    def give_feedback(self, assignment: str, student: str = "*") -> None:
        """Write one Spanish HTML page per submission into ``feedback/``."""
        self._convert(GenerateFeedback, assignment, student)

    def marks(self, assignment: str) -> dict[str, dict[str, float | None]]:
        """Student -> grade id -> automatic score (None where a person has to read the answer)."""
        with Gradebook(f"sqlite:///{self.root / 'gradebook.db'}", "serving-llm") as gradebook:
            return {
                submission.student.id: {g.name: g.auto_score for nb in submission.notebooks for g in nb.grades}
                for submission in gradebook.assignment_submissions(assignment)
            }

    def _config(self) -> Config:
        with _variable("MINILAB_CURSO", str(self.root)):
            config = PyFileConfigLoader(CONFIG_FILE.name, path=str(CONFIG_FILE.parent)).load_config()
        config.EjecutarTolerante.ejecutar = self._execute
        config.InyectaNotas.permitir_sin_aislar = self._unisolated
        return config

    def _convert(self, converter: type[BaseConverter], assignment: str, student: str = "*") -> None:
        config = self._config()
        config.CourseDirectory.assignment_id = assignment
        if converter is not GenerateAssignment:
            config.CourseDirectory.student_id = student
        step = converter(coursedir=CourseDirectory(config=config), config=config)
        step.force = True
        search_path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
        # nbgrader starts alembic by name: it must be this environment's.
        with _variable("PATH", search_path), _errors(step.log) as errors, warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            try:
                step.start()
            except Exception as error:
                detail = " · ".join(dict.fromkeys(errors)) or str(error)
                raise CycleError(
                    f"{converter.__name__} no terminó bien en {assignment} ({student}): {detail}"
                ) from error


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

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

CONFIGURACION = Path(__file__).with_name("nbgrader_config.py")


class ErrorDeCiclo(RuntimeError):
    """A step that could not be done; says which, for whom and what to do, in Spanish."""


class Curso:
    """One course folder: source/, release/, submitted/, autograded/, feedback/ and gradebook.db.

    raiz: the folder, made when missing. ejecutar: also execute submissions in a kernel, to see their outputs.
    sin_aislar: grade even where the student's code cannot be isolated.
    """

    def __init__(self, raiz: str | Path, ejecutar: bool = False, sin_aislar: bool = False):
        self.raiz = Path(raiz).resolve()
        self.raiz.mkdir(parents=True, exist_ok=True)
        self._ejecutar, self._sin_aislar = ejecutar, sin_aislar

    def genera(self, tarea: str) -> Path:
        """Build ``source/`` from the lab's source and release the student version. Returns the released notebook."""
        fuente = construir.FUENTE / f"{tarea}.py"
        if not fuente.is_file():
            hay = ", ".join(f.stem for f in construir.fuentes())
            raise ErrorDeCiclo(f"No existe la tarea «{tarea}». Las que hay: {hay}.")
        destino = self.raiz / "source" / tarea / f"{tarea}.ipynb"
        destino.parent.mkdir(parents=True, exist_ok=True)
        destino.write_text(construir.texto(construir.instructor(fuente)), encoding="utf-8")
        self._convierte(GenerateAssignment, tarea)
        return self.raiz / "release" / tarea / f"{tarea}.ipynb"

    def recibe(self, tarea: str, entregas: str | Path) -> list[str]:
        """Copy ``ENTREGAS/<alumno>.ipynb`` into ``submitted/``. Returns the students' ids."""
        alumnos = []
        for archivo in sorted(Path(entregas).glob("*.ipynb")):
            destino = self.raiz / "submitted" / archivo.stem / tarea / f"{tarea}.ipynb"
            destino.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(archivo, destino)
            alumnos.append(archivo.stem)
        if not alumnos:
            raise ErrorDeCiclo(f"No hay entregas en {entregas}: se esperaba un archivo alumno.ipynb por persona.")
        return alumnos

    def califica(self, tarea: str, alumno: str = "*") -> None:
        """Autograde ``submitted/`` into ``autograded/`` and the gradebook; a re-grade replaces the earlier one."""
        self._convierte(Autograde, tarea, alumno)

    def retroalimenta(self, tarea: str, alumno: str = "*") -> None:
        """Write one Spanish HTML page per submission into ``feedback/``."""
        self._convierte(GenerateFeedback, tarea, alumno)

    def notas(self, tarea: str) -> dict[str, dict[str, float | None]]:
        """Student -> grade id -> automatic score (None where a person has to read the answer)."""
        with Gradebook(f"sqlite:///{self.raiz / 'gradebook.db'}", "serving-llm") as libro:
            return {
                entrega.student.id: {g.name: g.auto_score for nb in entrega.notebooks for g in nb.grades}
                for entrega in libro.assignment_submissions(tarea)
            }

    def _config(self) -> Config:
        with _variable("MINILAB_CURSO", str(self.raiz)):
            config = PyFileConfigLoader(CONFIGURACION.name, path=str(CONFIGURACION.parent)).load_config()
        config.EjecutarTolerante.ejecutar = self._ejecutar
        config.InyectaNotas.permitir_sin_aislar = self._sin_aislar
        return config

    def _convierte(self, conversor: type[BaseConverter], tarea: str, alumno: str = "*") -> None:
        config = self._config()
        config.CourseDirectory.assignment_id = tarea
        if conversor is not GenerateAssignment:
            config.CourseDirectory.student_id = alumno
        paso = conversor(coursedir=CourseDirectory(config=config), config=config)
        paso.force = True
        programas = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
        # nbgrader starts alembic by name: it must be this environment's.
        with _variable("PATH", programas), _errores(paso.log) as errores, warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            try:
                paso.start()
            except Exception as error:
                detalle = " · ".join(dict.fromkeys(errores)) or str(error)
                raise ErrorDeCiclo(f"{conversor.__name__} no terminó bien en {tarea} ({alumno}): {detalle}") from error


@contextlib.contextmanager
def _errores(registro: logging.Logger) -> Iterator[list[str]]:
    """The error messages nbgrader logs meanwhile: its exceptions only say "see the traceback above"."""
    mensajes: list[str] = []
    oyente = logging.Handler(logging.ERROR)
    oyente.emit = lambda suceso: mensajes.append(suceso.getMessage().strip().splitlines()[-1])
    registro.addHandler(oyente)
    try:
        yield mensajes
    finally:
        registro.removeHandler(oyente)


@contextlib.contextmanager
def _variable(nombre: str, valor: str) -> Iterator[None]:
    antes = os.environ.get(nombre)
    os.environ[nombre] = valor
    try:
        yield
    finally:
        if antes is None:
            del os.environ[nombre]
        else:
            os.environ[nombre] = antes

"""The course folder and ``curso.toml``: what an instructor sets for each assignment."""

from __future__ import annotations

import os
import re
import tomllib
import zoneinfo
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minilab_grading.curso import CycleError

COURSE_ID = "serving-llm"
FILE = "curso.toml"
ROSTER = "alumnos.csv"
FOLDERS = ("source", "release", "submitted", "autograded", "feedback", "intentos")
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

TEMPLATE = """\
# Ajustes del curso. Si cambias una fecha o una penalización, repite: minilab-grading calificar TAREA
nombre = "Servir modelos de lenguaje"
zona = "Europe/Madrid"            # zona horaria de las fechas sin desfase propio

[tareas.P_sirve_y_demuestralo]
# vence = 2026-12-18T23:59:59     # quita la almohadilla para que haya fecha de entrega
gracia_minutos = 15               # dentro de la gracia no se resta nada
penalizacion_por_dia = 10         # % de la nota por día (o parte de un día) desde que vence
penalizacion_maxima = 50          # % como mucho
intentos_por_dia = 5              # los que se califican en 24 h; los demás esperan su turno (0: sin límite)
puntos = 100                      # se comprueba al generar la tarea
"""
NBGRADER = """\
# Para usar en esta carpeta las órdenes de nbgrader y formgrader en JupyterLab. Usa la configuración de minilab_grading.
import os
from pathlib import Path

import minilab_grading

os.environ["MINILAB_CURSO"] = str(Path(__file__).resolve().parent)
load_subconfig(str(Path(minilab_grading.__file__).with_name("nbgrader_config.py")))
"""
ROSTER_TEMPLATE = "id,nombre,apellidos,correo,moodle_id,canvas_id\n"


@dataclass(frozen=True)
class AssignmentSettings:
    """due: aware, in UTC, or None. Percentages of the mark, per started day and at most. grace: seconds.

    attempts_per_day: how many are graded in any 24 h (0: all). points: what the released notebook must add up to.
    """

    due: datetime | None = None
    percent_per_day: float = 0.0
    percent_maximum: float = 100.0
    grace: float = 0.0
    attempts_per_day: int = 0
    points: float | None = None


@dataclass(frozen=True)
class Settings:
    name: str = "Curso"
    assignments: dict[str, AssignmentSettings] = field(default_factory=dict)

    def of(self, assignment: str) -> AssignmentSettings:
        return self.assignments.get(assignment, AssignmentSettings())


def create(root: Path) -> list[str]:
    """Make what the course folder lacks; what is there stays as it is. Returns the names of the files written."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in ((FILE, TEMPLATE), (ROSTER, ROSTER_TEMPLATE), ("nbgrader_config.py", NBGRADER)):
        if not (root / name).exists():
            write_atomic(root / name, text.encode())
            written.append(name)
    return written


def read_settings(root: Path) -> Settings:
    """``curso.toml`` checked key by key; :class:`CycleError` says what is wrong and what was expected."""
    path = root / FILE
    if not path.is_file():
        return Settings()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CycleError(
            f"{FILE} no se puede leer: {error}. Corrígelo o crea otro con «minilab-grading nuevo»."
        ) from None
    _refuse_unknown(data, {"nombre", "zona", "tareas"}, FILE)
    zone = _zone(data.get("zona", "UTC"))
    tasks = data.get("tareas", {})
    if not isinstance(tasks, dict) or not all(isinstance(t, dict) for t in tasks.values()):
        raise CycleError(f"{FILE}: «tareas» debe ser una tabla por tarea, por ejemplo [tareas.P_sirve_y_demuestralo].")
    return Settings(str(data.get("nombre", "Curso")), {name: _assignment(name, t, zone) for name, t in tasks.items()})


def _assignment(name: str, table: dict[str, Any], zone: zoneinfo.ZoneInfo) -> AssignmentSettings:
    where = f"{FILE}, tarea {name}"
    known = {"vence", "gracia_minutos", "penalizacion_por_dia", "penalizacion_maxima", "intentos_por_dia", "puntos"}
    _refuse_unknown(table, known, where)
    attempts = _number(table, "intentos_por_dia", 0, where)
    if attempts != int(attempts):
        raise CycleError(f"{where}: «intentos_por_dia» debe ser un entero.")
    return AssignmentSettings(
        due=_due(table["vence"], zone, where) if "vence" in table else None,
        percent_per_day=_number(table, "penalizacion_por_dia", 0, where, 100),
        percent_maximum=_number(table, "penalizacion_maxima", 100, where, 100),
        grace=60 * _number(table, "gracia_minutos", 0, where),
        attempts_per_day=int(attempts),
        points=_number(table, "puntos", 0, where) if "puntos" in table else None,
    )


def _due(value: Any, zone: zoneinfo.ZoneInfo, where: str) -> datetime:
    """In UTC. An hour that the clocks repeat is its second pass, in the student's favour; one they skip is refused."""
    if not isinstance(value, datetime):
        raise CycleError(f"{where}: «vence» debe ser una fecha con hora y sin comillas: vence = 2026-12-18T23:59:59")
    if value.tzinfo is not None:
        return value.astimezone(UTC)
    local = value.replace(tzinfo=zone, fold=1)
    utc = local.astimezone(UTC)
    if utc.astimezone(zone).replace(tzinfo=None, fold=0) != value:
        raise CycleError(f"{where}: la hora {value} no existe en {zone.key} (cambio de hora). Elige otra.")
    return utc


def _zone(name: Any) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise CycleError(f'{FILE}: no conozco la zona horaria {name!r}. Ejemplo: zona = "Europe/Madrid"') from None


def _number(table: dict[str, Any], key: str, default: float, where: str, maximum: float = 1e6) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
        raise CycleError(f"{where}: «{key}» debe ser un número entre 0 y {maximum:g}, y es {value!r}.")
    return value


def _refuse_unknown(table: dict[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise CycleError(f"{where}: no conozco «{unknown[0]}». Se puede poner: {', '.join(sorted(known))}.")


def check_name(name: str) -> str:
    """A student or assignment id that is safe as a folder's name."""
    if not SAFE_NAME.fullmatch(name):
        raise CycleError(
            f"«{name}» no sirve como identificador: usa letras sin tilde, cifras, punto, guion y guion bajo."
        )
    return name


def write_atomic(path: Path, data: bytes) -> None:
    """All of ``data`` or nothing: a reader never sees half a file, and a crash leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)

"""Zips out: feedback pages for an LMS, and what students get. The same course gives the same bytes."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from minilab_grading.entregas.alumnos import Roster
from minilab_grading.entregas.errores import IntakeError

FIXED_DATE = (1980, 1, 1, 0, 0, 0)
LAYOUTS = ("plano", "moodle")
README = """\
{assignment}

1. Abre {assignment}.ipynb con JupyterLab y el entorno del curso.
2. Escribe solo en las celdas que dicen «TU CÓDIGO AQUÍ» o «Escribe aquí tu respuesta». No borres ni copies celdas.
3. Cada apartado tiene una comprobación pública: ejecútala cuantas veces quieras.
4. Antes de entregar, en una terminal:

       minilab revisar {assignment}.ipynb

   Te dice qué pasará al calificar. Si algo está desordenado:

       minilab reparar {assignment}.ipynb -o arreglado.ipynb

5. Entrega un único archivo: {assignment}.ipynb. Las salidas no cuentan: puedes borrarlas.
"""


def feedback_zip(
    course_root: str | Path, assignment: str, layout: str = "plano", roster: Roster | None = None
) -> bytes:
    """Every feedback page of an assignment.

    layout: "plano" gives ``alumno.html``; "moodle" the names under which Moodle takes «archivos de retroalimentación»
    back, which need the roster's ``moodle_id``. Raises :class:`IntakeError` where there is nothing to give, or where a
    student cannot be named.
    """
    if layout not in LAYOUTS:
        raise IntakeError(f"No existe el formato «{layout}»; los que hay: {', '.join(LAYOUTS)}.")
    pages: dict[str, Path] = {}
    unknown = []
    for page in _pages(Path(course_root), assignment):
        student = page.parent.parent.name
        own = page.name if page.stem != assignment else f"{assignment}.html"
        if layout == "plano":
            pages[f"{student}.html" if page.stem == assignment else f"{student}/{own}"] = page
            continue
        known = next((s for s in (roster or Roster()).students if s.id == student and s.moodle_id), None)
        if known is None:
            unknown.append(student)
        else:
            name = re.sub(r"[\\/:*?\"<>|]", "", known.full_name) or known.id
            pages[f"{name}_{known.moodle_id}_assignsubmission_file_/{own}"] = page
    if unknown:
        raise IntakeError(f"Falta el moodle_id en alumnos.csv de: {', '.join(sorted(set(unknown)))}.")
    if not pages:
        raise IntakeError(f"No hay retroalimentación de {assignment}: genérala antes (retroalimentar).")
    return _zip({name: page.read_bytes() for name, page in pages.items()})


def release_zip(course_root: str | Path, assignment: str) -> bytes:
    """The released folder of an assignment and a Spanish ``LEEME.txt``."""
    folder = Path(course_root) / "release" / assignment
    files = {
        f"{assignment}/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    }
    if f"{assignment}/{assignment}.ipynb" not in files:
        raise IntakeError(f"{assignment} no está publicada: usa antes «generar {assignment}».")
    return _zip({**files, f"{assignment}/LEEME.txt": README.format(assignment=assignment).encode()})


def _pages(root: Path, assignment: str) -> list[Path]:
    return sorted(root.glob(f"feedback/*/{assignment}/*.html"))


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, FIXED_DATE)
            info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o100644 << 16, 3
            archive.writestr(info, files[name])
    return buffer.getvalue()

"""``python -m minilab_grading ciclo TAREA ENTREGAS``: release, autograde and feedback in one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from minilab_grading.ciclo import Course, CycleError

WORK_FOLDER = Path(__file__).resolve().parent / "trabajo"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    course = Course(options.curso, options.ejecutar, options.sin_aislar)
    try:
        if options.paso in ("generar", "ciclo"):
            print(f"publicado: {course.generate(options.tarea)}")
        if options.paso == "ciclo":
            print(f"recibidas: {', '.join(course.receive(options.tarea, options.entregas))}")
        if options.paso in ("calificar", "ciclo"):
            course.grade(options.tarea)
            _print_marks(course.marks(options.tarea))
        if options.paso in ("retroalimentar", "ciclo"):
            course.give_feedback(options.tarea)
            print(f"retroalimentación: {course.root / 'feedback'}")
    except CycleError as error:
        print(f"minilab_grading: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minilab_grading", description=__doc__)
    steps = parser.add_subparsers(dest="paso", required=True)
    help_texts = {
        "generar": "source y release a partir de labs/fuente",
        "calificar": "corrige submitted/ y actualiza el libro de notas",
        "retroalimentar": "escribe feedback/ en HTML",
        "ciclo": "todo seguido, desde una carpeta con un alumno.ipynb por entrega",
    }
    for name, help_text in help_texts.items():
        step = steps.add_parser(name, help=help_text, description=help_text)
        step.add_argument("tarea", help="por ejemplo P_sirve_y_demuestralo")
        if name == "ciclo":
            step.add_argument("entregas", type=Path, help="carpeta con las entregas")
        step.add_argument(
            "--curso", type=Path, default=WORK_FOLDER, help="carpeta del curso (por omisión: %(default)s)"
        )
        step.add_argument("--ejecutar", action="store_true", help="ejecuta los cuadernos para ver sus salidas")
        step.add_argument("--sin-aislar", action="store_true", help="califica aunque no haya aislamiento")
    return parser


def _print_marks(marks: dict[str, dict[str, float | None]]) -> None:
    for student, cells in marks.items():
        automatic = sum(v for v in cells.values() if v is not None)
        to_read = sorted(c for c, v in cells.items() if v is None)
        print(f"{student}: {automatic:g} puntos automáticos" + (f"; por leer: {', '.join(to_read)}" if to_read else ""))


if __name__ == "__main__":
    sys.exit(main())

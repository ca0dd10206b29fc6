"""``python -m minilab_grading ciclo TAREA ENTREGAS``: release, autograde and feedback in one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from minilab_grading.ciclo import Curso, ErrorDeCiclo

TRABAJO = Path(__file__).resolve().parent / "trabajo"


def main(argumentos: Sequence[str] | None = None) -> int:
    opciones = _opciones().parse_args(argumentos)
    curso = Curso(opciones.curso, opciones.ejecutar, opciones.sin_aislar)
    try:
        if opciones.paso in ("generar", "ciclo"):
            print(f"publicado: {curso.genera(opciones.tarea)}")
        if opciones.paso == "ciclo":
            print(f"recibidas: {', '.join(curso.recibe(opciones.tarea, opciones.entregas))}")
        if opciones.paso in ("calificar", "ciclo"):
            curso.califica(opciones.tarea)
            _imprime(curso.notas(opciones.tarea))
        if opciones.paso in ("retroalimentar", "ciclo"):
            curso.retroalimenta(opciones.tarea)
            print(f"retroalimentación: {curso.raiz / 'feedback'}")
    except ErrorDeCiclo as error:
        print(f"minilab_grading: {error}", file=sys.stderr)
        return 2
    return 0


def _opciones() -> argparse.ArgumentParser:
    opciones = argparse.ArgumentParser(prog="python -m minilab_grading", description=__doc__)
    pasos = opciones.add_subparsers(dest="paso", required=True)
    ayudas = {
        "generar": "source y release a partir de labs/fuente",
        "calificar": "corrige submitted/ y actualiza el libro de notas",
        "retroalimentar": "escribe feedback/ en HTML",
        "ciclo": "todo seguido, desde una carpeta con un alumno.ipynb por entrega",
    }
    for nombre, ayuda in ayudas.items():
        paso = pasos.add_parser(nombre, help=ayuda, description=ayuda)
        paso.add_argument("tarea", help="por ejemplo P_sirve_y_demuestralo")
        if nombre == "ciclo":
            paso.add_argument("entregas", type=Path, help="carpeta con las entregas")
        paso.add_argument("--curso", type=Path, default=TRABAJO, help="carpeta del curso (por omisión: %(default)s)")
        paso.add_argument("--ejecutar", action="store_true", help="ejecuta los cuadernos para ver sus salidas")
        paso.add_argument("--sin-aislar", action="store_true", help="califica aunque no haya aislamiento")
    return opciones


def _imprime(notas: dict[str, dict[str, float | None]]) -> None:
    for alumno, celdas in notas.items():
        automaticos = sum(v for v in celdas.values() if v is not None)
        por_leer = sorted(c for c, v in celdas.items() if v is None)
        print(
            f"{alumno}: {automaticos:g} puntos automáticos" + (f"; por leer: {', '.join(por_leer)}" if por_leer else "")
        )


if __name__ == "__main__":
    sys.exit(main())

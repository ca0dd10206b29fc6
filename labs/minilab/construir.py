"""Build the notebooks from their single source.

``python -m minilab.construir`` rewrites the student notebooks of ``labs/cuadernos``; ``--check`` only compares and
fails on a difference; ``--instructor FOLDER`` writes the solved notebooks there (a build product, never committed).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from minilab.plantilla import HUECO_DE_CODIGO, HUECO_DE_TEXTO
from minilab.revisar import revisa

LABS = Path(__file__).resolve().parents[1]
FUENTE, CUADERNOS = LABS / "fuente", LABS / "cuadernos"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def instructor(fuente: Path) -> NotebookNode:
    """The solved notebook: cells and nbgrader metadata of the source, deterministic ids, no outputs."""
    cuaderno = jupytext.read(fuente, fmt="py:percent")
    cuaderno.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python"), lang="es"
    )
    cuaderno.nbformat, cuaderno.nbformat_minor = 4, 5
    repetidas: dict[str, int] = {}
    for celda in cuaderno.cells:
        celda.id = _identidad(celda, repetidas)
    revisa(cuaderno, fuente.name)
    return cuaderno


def estudiante(fuente: Path) -> NotebookNode:
    """What is released: solutions replaced by stubs, checks locked, nbgrader checksums written."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    config = Config()
    config.ClearSolutions.code_stub = HUECO_DE_CODIGO
    config.ClearSolutions.text_stub = HUECO_DE_TEXTO
    cuaderno, recursos = instructor(fuente), {}
    for paso in (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums):
        cuaderno, recursos = paso(config=config).preprocess(cuaderno, recursos)
    revisa(cuaderno, fuente.name, entregado=True)
    return cuaderno


def _identidad(celda: NotebookNode, repetidas: dict[str, int]) -> str:
    """The grade id, else a hash of the text; a repeated text gets a counter, so ids are unique and stable."""
    grade_id = celda.metadata.get("nbgrader", {}).get("grade_id")
    base = grade_id or hashlib.sha256(f"{celda.cell_type}\n{celda.source}".encode()).hexdigest()[:12]
    repetidas[base] = repetidas.get(base, 0) + 1
    return base if repetidas[base] == 1 else f"{base}-{repetidas[base]}"


def texto(cuaderno: NotebookNode) -> str:
    return nbformat.writes(cuaderno).rstrip("\n") + "\n"


def fuentes() -> list[Path]:
    return sorted(FUENTE.glob("*.py"))


def main(argumentos: Sequence[str] | None = None) -> int:
    opciones = argparse.ArgumentParser(prog="python -m minilab.construir", description=__doc__)
    opciones.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    opciones.add_argument("--instructor", metavar="FOLDER", type=Path, help="also write the solved notebooks here")
    elegidas = opciones.parse_args(argumentos)
    distintos = []
    for fuente in fuentes():
        destino = CUADERNOS / f"{fuente.stem}.ipynb"
        nuevo = texto(estudiante(fuente))
        if not destino.is_file() or destino.read_text(encoding="utf-8") != nuevo:
            distintos.append(destino.name)
            if not elegidas.check:
                destino.write_text(nuevo, encoding="utf-8")
        if elegidas.instructor:
            elegidas.instructor.mkdir(parents=True, exist_ok=True)
            (elegidas.instructor / destino.name).write_text(texto(instructor(fuente)), encoding="utf-8")
    for nombre in distintos:
        print(f"{'out of date' if elegidas.check else 'written'}: {nombre}")
    return 1 if elegidas.check and distintos else 0


if __name__ == "__main__":
    sys.exit(main())

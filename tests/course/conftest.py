"""Submissions for the course tests, made from the released notebook and the solved one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from nbformat import NotebookNode

from minilab import construir

TAREA = "P_sirve_y_demuestralo"


@pytest.fixture(scope="session")
def resuelto() -> NotebookNode:
    return construir.instructor(construir.FUENTE / f"{TAREA}.py")


@pytest.fixture(scope="session")
def publicado() -> NotebookNode:
    return construir.estudiante(construir.FUENTE / f"{TAREA}.py")


@pytest.fixture(scope="session")
def soluciones(resuelto: NotebookNode) -> dict[str, str]:
    """Grade id -> solved source of each solution cell."""
    return {
        c.metadata.nbgrader.grade_id: c.source for c in resuelto.cells if c.metadata.get("nbgrader", {}).get("solution")
    }


@pytest.fixture
def entrega(publicado: NotebookNode) -> Callable[[dict[str, str]], NotebookNode]:
    """The released notebook with some solution cells replaced."""

    def rellena(celdas: dict[str, str]) -> NotebookNode:
        cuaderno = copy.deepcopy(publicado)
        for celda in cuaderno.cells:
            grade_id = celda.metadata.get("nbgrader", {}).get("grade_id")
            celda.source = celdas.get(grade_id, celda.source)
        return cuaderno

    return rellena

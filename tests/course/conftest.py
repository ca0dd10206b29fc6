"""Submissions for the course tests, made from the released notebook and the solved one."""

from __future__ import annotations

import copy
import os
import sysconfig
from collections.abc import Callable

import pytest
from nbformat import NotebookNode

from minilab import construir

ASSIGNMENT = "P_sirve_y_demuestralo"


@pytest.fixture(scope="session", autouse=True)
def _scripts_in_reach():
    """nbgrader starts alembic by name, also where this environment is not activated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="session")
def solved() -> NotebookNode:
    return construir.instructor(construir.SOURCE_FOLDER / f"{ASSIGNMENT}.py")


@pytest.fixture(scope="session")
def released() -> NotebookNode:
    return construir.student(construir.SOURCE_FOLDER / f"{ASSIGNMENT}.py")


@pytest.fixture(scope="session")
def solutions(solved: NotebookNode) -> dict[str, str]:
    """Grade id -> solved source of each solution cell."""
    return {
        c.metadata.nbgrader.grade_id: c.source for c in solved.cells if c.metadata.get("nbgrader", {}).get("solution")
    }


@pytest.fixture
def submission(released: NotebookNode) -> Callable[[dict[str, str]], NotebookNode]:
    """The released notebook with some solution cells replaced."""

    def fill(cells: dict[str, str]) -> NotebookNode:
        notebook = copy.deepcopy(released)
        for cell in notebook.cells:
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
            cell.source = cells.get(grade_id, cell.source)
        return notebook

    return fill

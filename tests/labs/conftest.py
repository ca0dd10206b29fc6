"""The labs' sources, solved and released, for the tests of this folder."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from minilab import construir
from minilab.modelo import LabModel, make_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _scripts_in_reach():
    """Programs that are started by name are found, also where this environment is not activated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LabModel:
    """The tiny random model, where only the shapes matter."""
    folder = make_tiny_model(tmp_path_factory.mktemp("modelo") / "mini")
    return LabModel(str(folder), "modelo-mini", real=False, rapido=True)


@cache
def _solved(lab: str) -> str:
    return construir.text(construir.instructor(construir.SOURCE_FOLDER / f"{lab}.py"))


@cache
def _released(lab: str) -> str:
    return construir.text(construir.student(construir.SOURCE_FOLDER / f"{lab}.py"))


@pytest.fixture
def solved() -> Callable[[str], NotebookNode]:
    """A lab's instructor notebook, a copy each time."""
    return lambda lab: nbformat.reads(_solved(lab), 4)


@pytest.fixture
def released() -> Callable[[str], NotebookNode]:
    """A lab's student notebook, a copy each time."""
    return lambda lab: nbformat.reads(_released(lab), 4)


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., NotebookNode]:
    """Run a notebook in a folder of its own, in quick mode; ``minutes`` is what all of it may take at most."""

    def run(notebook: NotebookNode, minutes: float, *, tiny: bool = False, errors: bool = False) -> NotebookNode:
        monkeypatch.setenv("MINILAB_RAPIDO", "1")
        monkeypatch.setenv("MINILLM_REPORTS", str(tmp_path / "reports"))
        if tiny:
            monkeypatch.setenv("MINILAB_MODELO", "mini")
        client = NotebookClient(
            notebook,
            timeout=int(minutes * 60),
            allow_errors=errors,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        )
        return client.execute()

    return run

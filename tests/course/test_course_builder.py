"""The student notebook is a pure function of its source, and gives no solution away."""

from __future__ import annotations

import ast
import copy

import jupytext
import nbformat
import pytest

from minilab import construir
from minilab.plantilla import CODE_STUB, TEXT_STUB
from minilab.revisar import InvalidNotebook, review

SOURCES = construir.sources()
SHOWN = {  # lines of solutions that stand in a worked example, or in the wrong variant of "Rompe", on purpose
    "columna = tl.arange(0, BLOQUE)",
    "for tabla, largo, n in zip(tablas, longitudes, nuevas, strict=True):",
    "for i, d in enumerate(borradores):",
    "return [*borradores, sortea(p[-1], uniformes[-1][1])]",
    "await self.despierta.wait()",
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
def test_committed_notebook_is_what_the_builder_writes(source):
    saved = (construir.NOTEBOOK_FOLDER / f"{source.stem}.ipynb").read_text(encoding="utf-8")
    assert saved == construir.text(construir.student(source)), "run: python -m minilab.construir"


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
def test_source_survives_the_round_trip_through_ipynb(source, tmp_path):
    notebook = construir.instructor(source)
    path = tmp_path / "ida.ipynb"
    path.write_text(construir.text(notebook), encoding="utf-8")
    back = jupytext.reads(jupytext.writes(nbformat.read(path, 4), fmt="py:percent"), fmt="py:percent")
    assert [(c.cell_type, c.source, c.metadata) for c in back.cells] == [
        (c.cell_type, c.source, c.metadata) for c in notebook.cells
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
def test_no_line_of_a_solution_reaches_the_student(source):
    solved, released = construir.instructor(source), construir.student(source)
    released_text = "\n".join(c.source for c in released.cells)
    assert "BEGIN SOLUTION" not in released_text and "END SOLUTION" not in released_text
    for cell in solved.cells:
        for block in cell.source.split("### BEGIN SOLUTION")[1:]:
            lines = block.split("### END SOLUTION")[0].splitlines()
            secret = [line.strip() for line in lines if len(line.strip()) > 25]
            assert not [line for line in secret if line in released_text and line not in SHOWN]


def test_every_solution_cell_holds_the_frozen_spanish_stub(released):
    code, text = 0, 0
    for cell in released.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            stub = CODE_STUB["python"].splitlines()[0] if cell.cell_type == "code" else TEXT_STUB
            assert stub in cell.source
            code, text = code + (cell.cell_type == "code"), text + (cell.cell_type == "markdown")
    assert (code, text) == (10, 1)


def test_student_cells_still_parse_and_carry_no_output(released):
    for cell in released.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.stem)
def test_release_by_nbgrader_equals_the_committed_notebook(tmp_path, source):
    from minilab_grading.ciclo import Course

    released = construir.student(source)
    from_nbgrader = nbformat.read(Course(tmp_path / "curso").generate(source.stem), 4)
    assert [(c.id, c.source, c.metadata) for c in from_nbgrader.cells] == [
        (c.id, c.source, c.metadata) for c in released.cells
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grade_id": "año"}, "ASCII"),
        ({"points": 6}, "sum"),
        ({"grade_id": "prueba_resume"}, "Duplicate"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_builder_refuses_metadata_that_nbgrader_would_trip_over(solved, change, message):
    bad = copy.deepcopy(solved)
    cell = next(c for c in bad.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "prueba_prediccion")
    cell.metadata.nbgrader.update(change)
    with pytest.raises(InvalidNotebook, match=message):
        review(bad, "malo")


def test_builder_refuses_an_exercise_of_more_than_fifteen_lines(solved):
    bad = copy.deepcopy(solved)
    cell = next(c for c in bad.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "percentil")
    cell.source = "def percentil(v, p):\n" + "    v = v\n" * 16
    with pytest.raises(InvalidNotebook, match="16 lines"):
        review(bad, "malo")

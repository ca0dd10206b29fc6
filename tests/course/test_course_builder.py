"""The student notebook is a pure function of its source, and gives no solution away."""

from __future__ import annotations

import ast
import copy

import jupytext
import nbformat
import pytest

from minilab import construir
from minilab.plantilla import HUECO_DE_CODIGO, HUECO_DE_TEXTO
from minilab.revisar import CuadernoInvalido, revisa

FUENTES = construir.fuentes()


@pytest.mark.parametrize("fuente", FUENTES, ids=lambda f: f.stem)
def test_committed_notebook_is_what_the_builder_writes(fuente):
    guardado = (construir.CUADERNOS / f"{fuente.stem}.ipynb").read_text(encoding="utf-8")
    assert guardado == construir.texto(construir.estudiante(fuente)), "run: python -m minilab.construir"


@pytest.mark.parametrize("fuente", FUENTES, ids=lambda f: f.stem)
def test_source_survives_the_round_trip_through_ipynb(fuente, tmp_path):
    cuaderno = construir.instructor(fuente)
    ruta = tmp_path / "ida.ipynb"
    ruta.write_text(construir.texto(cuaderno), encoding="utf-8")
    vuelta = jupytext.reads(jupytext.writes(nbformat.read(ruta, 4), fmt="py:percent"), fmt="py:percent")
    assert [(c.cell_type, c.source, c.metadata) for c in vuelta.cells] == [
        (c.cell_type, c.source, c.metadata) for c in cuaderno.cells
    ]


def test_no_line_of_a_solution_reaches_the_student(resuelto, publicado):
    entregado = "\n".join(c.source for c in publicado.cells)
    assert "BEGIN SOLUTION" not in entregado and "END SOLUTION" not in entregado
    for celda in resuelto.cells:
        for bloque in celda.source.split("### BEGIN SOLUTION")[1:]:
            lineas = bloque.split("### END SOLUTION")[0].splitlines()
            secretas = [linea.strip() for linea in lineas if len(linea.strip()) > 25]
            assert secretas and not [linea for linea in secretas if linea in entregado]


def test_every_solution_cell_holds_the_frozen_spanish_stub(publicado):
    codigo, texto = 0, 0
    for celda in publicado.cells:
        if celda.metadata.get("nbgrader", {}).get("solution"):
            hueco = HUECO_DE_CODIGO["python"].splitlines()[0] if celda.cell_type == "code" else HUECO_DE_TEXTO
            assert hueco in celda.source
            codigo, texto = codigo + (celda.cell_type == "code"), texto + (celda.cell_type == "markdown")
    assert (codigo, texto) == (7, 1)


def test_student_cells_still_parse_and_carry_no_output(publicado):
    for celda in publicado.cells:
        if celda.cell_type == "code":
            ast.parse(celda.source)
            assert celda.outputs == [] and celda.execution_count is None


def test_release_by_nbgrader_equals_the_committed_notebook(tmp_path, publicado):
    from minilab_grading.ciclo import Curso

    [fuente] = FUENTES
    liberado = nbformat.read(Curso(tmp_path / "curso").genera(fuente.stem), 4)
    assert [(c.id, c.source, c.metadata) for c in liberado.cells] == [
        (c.id, c.source, c.metadata) for c in publicado.cells
    ]


@pytest.mark.parametrize(
    ("cambio", "mensaje"),
    [
        ({"grade_id": "año"}, "ASCII"),
        ({"points": 6}, "sum"),
        ({"grade_id": "prueba_resume"}, "Duplicate"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_builder_refuses_metadata_that_nbgrader_would_trip_over(resuelto, cambio, mensaje):
    malo = copy.deepcopy(resuelto)
    celda = next(c for c in malo.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "prueba_prediccion")
    celda.metadata.nbgrader.update(cambio)
    with pytest.raises(CuadernoInvalido, match=mensaje):
        revisa(malo, "malo")


def test_builder_refuses_an_exercise_of_more_than_fifteen_lines(resuelto):
    malo = copy.deepcopy(resuelto)
    celda = next(c for c in malo.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "percentil")
    celda.source = "def percentil(v, p):\n" + "    v = v\n" * 16
    with pytest.raises(CuadernoInvalido, match="16 lines"):
        revisa(malo, "malo")

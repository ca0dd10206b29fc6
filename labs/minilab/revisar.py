"""Refuse a notebook that nbgrader or a student would trip over."""

from __future__ import annotations

import ast
import re
from collections import Counter

import nbformat
from nbformat import NotebookNode

PUNTOS_POR_CUADERNO = 100
LINEAS_POR_EJERCICIO = 15
GRADE_ID = re.compile(r"[A-Za-z0-9_-]+")
MARCA = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)")


class CuadernoInvalido(ValueError):
    """What is wrong with the notebook, in which cell, and what was expected."""


def revisa(cuaderno: NotebookNode, nombre: str, entregado: bool = False) -> None:
    """Check nbformat schema, ids, nbgrader metadata, points and solution size. Raises :class:`CuadernoInvalido`.

    entregado: the notebook is the student's, where no solution marker may be left.
    """
    from nbgrader.nbgraderformat import MetadataValidator, ValidationError

    calificables = [c for c in cuaderno.cells if "nbgrader" in c.metadata]
    for celda in calificables:
        _revisa_celda(celda, nombre)
    try:
        nbformat.validate(cuaderno)
        MetadataValidator().validate_nb(cuaderno)
    except (nbformat.ValidationError, ValidationError) as error:
        raise CuadernoInvalido(f"{nombre}: {error}") from error
    repetidos = [i for i, veces in Counter(c.id for c in cuaderno.cells).items() if veces > 1]
    if repetidos:
        raise CuadernoInvalido(f"{nombre}: repeated cell ids {repetidos}")
    puntos = sum(c.metadata.nbgrader.get("points", 0) for c in calificables)
    if puntos != PUNTOS_POR_CUADERNO:
        raise CuadernoInvalido(f"{nombre}: the points sum {puntos}, expected {PUNTOS_POR_CUADERNO}")
    if entregado:
        for celda in cuaderno.cells:
            if MARCA.search(celda.source):
                raise CuadernoInvalido(f"{nombre}: {MARCA.search(celda.source)[0]} left in cell {celda.id}")


def _revisa_celda(celda: NotebookNode, nombre: str) -> None:
    meta = celda.metadata.nbgrader
    if meta.get("schema_version") != 3:
        raise CuadernoInvalido(f"{nombre}: cell {meta.get('grade_id')} must have schema_version 3")
    if not GRADE_ID.fullmatch(meta["grade_id"]):
        raise CuadernoInvalido(f"{nombre}: grade_id {meta['grade_id']!r} must be ASCII letters, digits, _ or -")
    if celda.cell_type == "code" and meta.get("solution"):
        largas = _lineas_de_solucion(celda.source)
        if largas > LINEAS_POR_EJERCICIO:
            raise CuadernoInvalido(
                f"{nombre}: {meta['grade_id']} asks for {largas} lines; at most {LINEAS_POR_EJERCICIO} per function"
            )


def _lineas_de_solucion(fuente: str) -> int:
    """Lines of the longest function body without docstring: what the student has to write."""
    mayor = 0
    for nodo in ast.walk(ast.parse(fuente)):
        if isinstance(nodo, (ast.FunctionDef, ast.AsyncFunctionDef)):
            cuerpo = nodo.body[1:] if ast.get_docstring(nodo) else nodo.body
            mayor = max(mayor, nodo.end_lineno - cuerpo[0].lineno + 1 if cuerpo else 0)
    return mayor

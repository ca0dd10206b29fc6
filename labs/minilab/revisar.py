"""Refuse a notebook that nbgrader or a student would trip over."""

from __future__ import annotations

import ast
import re
from collections import Counter

import nbformat
from nbformat import NotebookNode

POINTS_PER_NOTEBOOK = 100
LINES_PER_EXERCISE = 15
GRADE_ID = re.compile(r"[A-Za-z0-9_-]+")
MARKER = re.compile(r"(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)")


class InvalidNotebook(ValueError):
    """What is wrong with the notebook, in which cell, and what was expected."""


def review(notebook: NotebookNode, name: str, released: bool = False) -> None:
    """Check nbformat schema, ids, nbgrader metadata, points and solution size. Raises :class:`InvalidNotebook`.

    released: the notebook is the student's, where no solution marker may be left.
    """
    from nbgrader.nbgraderformat import MetadataValidator, ValidationError

    graded = [c for c in notebook.cells if "nbgrader" in c.metadata]
    for cell in graded:
        _review_cell(cell, name)
    try:
        nbformat.validate(notebook)
        MetadataValidator().validate_nb(notebook)
    except (nbformat.ValidationError, ValidationError) as error:
        raise InvalidNotebook(f"{name}: {error}") from error
    repeated = [i for i, times in Counter(c.id for c in notebook.cells).items() if times > 1]
    if repeated:
        raise InvalidNotebook(f"{name}: repeated cell ids {repeated}")
    points = sum(c.metadata.nbgrader.get("points", 0) for c in graded)
    if points != POINTS_PER_NOTEBOOK:
        raise InvalidNotebook(f"{name}: the points sum {points}, expected {POINTS_PER_NOTEBOOK}")
    if released:
        for cell in notebook.cells:
            if MARKER.search(cell.source):
                raise InvalidNotebook(f"{name}: {MARKER.search(cell.source)[0]} left in cell {cell.id}")


def _review_cell(cell: NotebookNode, name: str) -> None:
    meta = cell.metadata.nbgrader
    if meta.get("schema_version") != 3:
        raise InvalidNotebook(f"{name}: cell {meta.get('grade_id')} must have schema_version 3")
    if not GRADE_ID.fullmatch(meta["grade_id"]):
        raise InvalidNotebook(f"{name}: grade_id {meta['grade_id']!r} must be ASCII letters, digits, _ or -")
    if cell.cell_type == "code" and meta.get("solution"):
        longest = _solution_lines(cell.source)
        if longest > LINES_PER_EXERCISE:
            raise InvalidNotebook(
                f"{name}: {meta['grade_id']} asks for {longest} lines; at most {LINES_PER_EXERCISE} per function"
            )


def _solution_lines(source: str) -> int:
    """Lines of the longest function body without docstring: what the student has to write."""
    longest = 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            longest = max(longest, node.end_lineno - body[0].lineno + 1 if body else 0)
    return longest

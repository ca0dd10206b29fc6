"""Which source of a submission the worker gets: the solution cells of a check, and what the student defined beside."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from nbformat import NotebookNode

from minilab.pruebas.casos import Check

PREPARATION = "preparacion"  # the course's own cell, before any of the student's
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def sources_of(notebook: NotebookNode) -> dict[str, str]:
    """Grade id -> source of each solution code cell; the first one where a student duplicated a cell."""
    sources: dict[str, str] = {}
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and meta.get("solution") and meta.get("grade_id"):
            sources.setdefault(meta["grade_id"], cell.source)
    return sources


def cells_for(check: Check, notebook: NotebookNode, prelude: str, imports: Sequence[str]) -> list[tuple[str, str]]:
    """(name, source) of what the worker runs, in order: preparation, the student's own definitions, the solutions.

    A slow module of ``imports`` is loaded only where a cell names it.
    """
    sources = sources_of(notebook)
    cells = [(c, sources[c]) for c in check.cells]
    own = added_definitions(notebook)
    named = "\n".join([own, *(source for _, source in cells)])
    preparation = prelude + "".join(f"import {m}\n" for m in imports if m in named)
    return [(PREPARATION, preparation), *([("celdas añadidas", own)] if own else []), *cells]


def added_definitions(notebook: NotebookNode) -> str:
    """Imports, functions and classes at the top level of code cells that the student added (``minilab_anadida``).

    What such a cell executes is left out: helpers count, experiments do not run. A cell that does not parse is skipped.
    """
    kept: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.metadata.get("minilab_anadida"):
            continue
        try:
            tree = ast.parse(cell.source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        kept += [ast.unparse(node) for node in tree.body if isinstance(node, DEFINITIONS)]
    return "\n\n".join(kept)

"""The labs there are, and what is in a notebook: text, minutes, checks, and the cells that are to be written."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable
from itertools import count

from nbformat import NotebookNode

from minilab import construir
from minilab_grading.casos import cases_of

LABS = [source.stem for source in construir.sources()]
NUMBERED = [lab for lab in LABS if lab.startswith("L")]
PLACES = count()
CALL = re.compile(r'comprobar\("(\w+)"')


def text_of(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def minutes_of(notebook: NotebookNode) -> int:
    return int(re.search(r"\*\*Tiempo:\*\* (\d+) minutos", text_of(notebook))[1])


def graded(notebook: NotebookNode) -> dict[str, str]:
    """Grade id of each check cell -> the name it checks."""
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("grade")]
    return {c.metadata.nbgrader.grade_id: CALL.search(c.source)[1] for c in cells}


def solutions_of(notebook: NotebookNode) -> dict[str, str]:
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("solution")]
    return {c.metadata.nbgrader.grade_id: c.source for c in cells}


def run_cells(sources: Iterable[str]) -> dict:
    """The namespace that cells make, one after the other; Triton finds a kernel's source, as in the grader's worker."""
    names: dict = {"__name__": "cuaderno"}
    for source in sources:
        file = f"<celda {next(PLACES)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec", dont_inherit=True), names)
    return names


def defined_by(lab: str, cells: dict[str, str], wanted: tuple[str, ...]) -> dict:
    """The namespace that a check's cells make, with the preparation that the grader's worker gives them."""
    prelude, imports, _ = cases_of(lab, 0)
    sources = [cells[grade_id] for grade_id in wanted]
    return run_cells([prelude + "".join(f"import {m}\n" for m in imports if m in "\n".join(sources)), *sources])

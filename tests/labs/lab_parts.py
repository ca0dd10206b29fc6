"""The labs there are, and what is in a notebook: text, minutes, checks, and the cells that are to be written."""

from __future__ import annotations

import re

from nbformat import NotebookNode

from minilab import construir
from minilab_grading.casos import cases_of

LABS = [source.stem for source in construir.sources()]
NUMBERED = [lab for lab in LABS if lab.startswith("L")]
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


def defined_by(lab: str, cells: dict[str, str], wanted: tuple[str, ...]) -> dict:
    """The namespace that a check's cells make, with the preparation that the grader's worker gives them."""
    prelude, imports, _ = cases_of(lab, 0)
    names: dict = {}
    sources = [cells[grade_id] for grade_id in wanted]
    exec(prelude + "".join(f"import {m}\n" for m in imports if m in "\n".join(sources)), names)
    for source in sources:
        exec(source, names)
    return names

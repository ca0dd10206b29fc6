"""What the tests of the meters share: a job for given cells, in a real worker."""

from __future__ import annotations

from typing import Any

import nbformat

from minilab.pruebas.casos import Check
from minilab_grading.arnes.aislamiento import choose_isolation
from minilab_grading.arnes.calificar import MeterJob, loaded_session, teacher_folders
from minilab_grading.casos.p_sirve_y_demuestralo import IMPORTS, PRELUDE


def job(check: Check, cells: dict[str, str], **fields: Any) -> MeterJob:
    """cells: grade id -> source. fields: of the job, in place of seed 7 and nothing graded before."""
    notebook = nbformat.v4.new_notebook()
    for grade_id, source in cells.items():
        meta = {"nbgrader": {"grade_id": grade_id, "solution": True}}
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata=meta))
    isolation = choose_isolation(teacher_folders(), True)
    settings = {"seed": 7, "untimed": {}, **fields}
    return MeterJob(
        check, open_session=lambda: loaded_session(check, notebook, PRELUDE, IMPORTS, isolation), **settings
    )

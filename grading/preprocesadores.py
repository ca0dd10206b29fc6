"""This course's nbgrader preprocessors: an Execute that survives, scores from outside, and marks for the feedback."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.preprocessors import Execute, GetGrades, NbGraderPreprocessor, OverwriteCells
from traitlets import Bool

from minilab_grading.arnes.calificar import CheckMark, Grading, grade
from minilab_grading.registro import seed_of, write_mark

Resources = dict[str, Any]


class EjecutarTolerante(Execute):
    """Runs the notebook for its outputs only; a dead kernel leaves the rest without outputs instead of losing it all.

    Off unless ``ejecutar`` is set: a kernel runs as the grader, beside the gradebook. Marks do not depend on it.
    """

    ejecutar = Bool(False, help="Execute submissions in a kernel of the grader, to see their outputs").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: Resources | None = None, **others: Any
    ) -> tuple[NotebookNode, Resources]:
        if not self.ejecutar:
            return nb, resources
        try:
            return super().preprocess(nb, resources, **others)
        except DeadKernelError:
            self.log.warning("El núcleo murió al ejecutar el cuaderno; se califica igualmente")
            notice = new_output("stream", name="stdout", text="El núcleo murió al ejecutar este cuaderno.\n")
            first = next((c for c in nb.cells if c.cell_type == "code"), None)
            if first is not None:
                first.outputs = [notice]
            return nb, resources


class InyectaNotas(NbGraderPreprocessor):
    """Grades the source of the solution cells out of process and writes each score as the check cell's output.

    Runs after Execute and before SaveAutoGrades, so whatever the student's kernel printed in a check cell is gone.
    """

    permitir_sin_aislar = Bool(False, help="Grade even where no isolation is available").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        data = resources["nbgrader"]
        folder = Path(resources["metadata"]["path"])
        root = Path(data["db_url"].removeprefix("sqlite:///")).parent
        seed = seed_of(root, data["student"], data["assignment"])
        grading = grade(nb, data["notebook"], seed, [root], self.permitir_sin_aislar)
        fingerprint = hashlib.sha256("\0".join(c.source for c in nb.cells).encode()).hexdigest()
        checks = []
        for cell in nb.cells:
            if utils.is_grade(cell) and not utils.is_solution(cell):
                checks.append(_write_verdict(cell, grading))
        write_mark(folder, data, fingerprint, grading.isolation, checks)
        return nb, resources


class RestauraCeldas(OverwriteCells):
    """Puts deleted check cells back with an id of their own, which nbformat requires."""

    def missing_cell_transform(self, source_cell: Any, *others: Any, **more: Any) -> NotebookNode:
        cell = super().missing_cell_transform(source_cell, *others, **more)
        cell.id = source_cell.name
        return cell


class NotasParaLeer(GetGrades):
    """Marks for the feedback page; an answer that a person still has to read is told from one that got 0."""

    def _get_score(self, cell: NotebookNode, resources: Resources) -> None:
        super()._get_score(cell, resources)
        mark = self.gradebook.find_grade(
            cell.metadata["nbgrader"]["grade_id"], self.notebook_id, self.assignment_id, self.student_id
        )
        cell.metadata.nbgrader["por_corregir"] = mark.auto_score is None and mark.manual_score is None


def _write_verdict(cell: NotebookNode, grading: Grading) -> dict[str, Any]:
    """Replace the outputs of a check cell by its verdict; a check without hidden cases is an error, not full marks."""
    meta = cell.metadata.nbgrader
    grade_id, maximum = meta["grade_id"], float(meta["points"])
    if grade_id not in grading.checks:
        raise KeyError(f"no hidden check for cell {grade_id}")
    mark = grading.checks[grade_id]
    points = round(maximum * mark.fraction, 2)
    cell.execution_count = None
    cell.outputs = [
        new_output("stream", name="stdout", text=_text(mark)),
        new_output("execute_result", data={"text/plain": repr(points)}, execution_count=None),
    ]
    cases = [{"nombre": r.name, "superado": r.passed} for r in mark.results]
    return {"id": grade_id, "puntos": points, "maximo": maximum, "casos": cases, "aviso": mark.notice}


def _text(mark: CheckMark) -> str:
    """What the student reads: names of the cases and a hint for each miss, never an argument or an expected value."""
    passed = sum(r.passed for r in mark.results)
    lines = [f"{passed} de {len(mark.results)} comprobaciones superadas."]
    if mark.notice:
        lines.append(f"Aviso: {mark.notice}.")
    for r in mark.results:
        lines.append(f"  {'✔' if r.passed else '✘'} {r.name}" + ("" if r.passed else f" — pista: {r.hint}"))
    return "\n".join(lines) + "\n"

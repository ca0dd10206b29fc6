"""This course's nbgrader preprocessors: rebuild the submission, scores from outside, and marks for the feedback."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import DeadKernelError
from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.preprocessors import Execute, GetGrades, NbGraderPreprocessor, OverwriteCells
from traitlets import Bool

from minilab.entrega import rebuild
from minilab_grading import saneado
from minilab_grading.arnes.calificar import CheckMark, Grading, grade_untimed
from minilab_grading.curso.calificacion import find_verdict, handed_in
from minilab_grading.curso.carpeta import read_settings
from minilab_grading.curso.intentos import bounded, with_measured
from minilab_grading.curso.paralelo import fingerprint
from minilab_grading.curso.plazos import penalty, seconds_late
from minilab_grading.registro import Graded, make_record, seed_of, write_record

Resources = dict[str, Any]
SAFE_OUTPUTS = ("text/plain", "image/png", "image/jpeg")


class PaginaDeRetro(HTMLExporter):
    """The feedback page's exporter. A class of its own: formgrader uses HTMLExporter with its own template."""


class ReconstruyeEntrega(NbGraderPreprocessor):
    """Puts the student's answers into the released notebook, so that nothing else of the submission counts.

    First of the sanitizing pass; what ``minilab_grading`` put into ``submitted/`` is already so and stays the same.
    """

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        data = resources["nbgrader"]
        released = _root(data) / "release" / data["assignment"] / f"{data['notebook']}.ipynb"
        rebuilt, _ = rebuild(nb, nbformat.read(released, 4))
        return rebuilt, resources


class EjecutarTolerante(Execute):
    """Runs the notebook for its outputs only; a dead kernel leaves the rest without outputs instead of losing it all.

    Off unless ``ejecutar`` is set, and then it says so: a kernel runs as the grader, beside the gradebook. Marks do not
    depend on it.
    """

    ejecutar = Bool(False, help="Execute submissions in a kernel of the grader, to see their outputs").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: Resources | None = None, **others: Any
    ) -> tuple[NotebookNode, Resources]:
        if not self.ejecutar:
            return nb, resources
        self.log.warning("Se ejecuta código de estudiantes en tu proceso y con tus archivos a la vista (ejecutar=True)")
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
    """Writes each verdict as the check cell's output and the record beside the notebook.

    The verdict is the one stored for these sources, this seed and this version; without it they are graded now, out of
    process, and what had been measured stays. Runs after Execute and before SaveAutoGrades, so whatever a kernel
    printed in a check cell is gone.
    """

    permitir_sin_aislar = Bool(False, help="Grade even where no isolation is available").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        data, root = resources["nbgrader"], _root(resources["nbgrader"])
        submitted = root / "submitted" / data["student"] / data["assignment"] / f"{data['notebook']}.ipynb"
        print_ = fingerprint(nb)
        if found := find_verdict(root, data["assignment"], data["student"], print_):
            attempt, verdict, current = found
            grading, sha256, when, notices = verdict.grading, attempt.sha256, attempt.when, verdict.notices
            if not current and not verdict.problem:
                grading = with_measured(self._grade_now(nb, data, root), grading)
        else:
            grading, when, notices = self._grade_now(nb, data, root), handed_in(submitted), ()
            sha256 = hashlib.sha256(submitted.read_bytes()).hexdigest()
        checks = [c for c in nb.cells if utils.is_grade(c) and not utils.is_solution(c)]
        points = [_write_verdict(cell, grading) for cell in checks]
        settings = read_settings(root).of(data["assignment"])
        late = seconds_late(when, settings)
        graded = Graded(
            student=data["student"],
            assignment=data["assignment"],
            notebook=data["notebook"],
            sha256=sha256,
            fingerprint=print_,
            notices=notices,
            late_s=int(late),
            penalty=penalty(sum(points), late, settings),
        )
        maxima = {c.metadata.nbgrader.grade_id: float(c.metadata.nbgrader.points) for c in checks}
        write_record(Path(resources["metadata"]["path"]), make_record(root, graded, grading, maxima))
        return nb, resources

    def _grade_now(self, nb: NotebookNode, data: dict[str, str], root: Path) -> Grading:
        self.log.info(
            "No hay un resultado guardado de %s con esta versión: se califica ahora, aislado", data["student"]
        )
        seed = seed_of(root, data["student"], data["assignment"])
        return grade_untimed(nb, data["notebook"], seed, [root], self.permitir_sin_aislar)


class LimpiaMarcado(Preprocessor):
    """For formgrader, which shows a student's markdown, raw cells and outputs with the rights of who grades.

    Markdown becomes clean HTML in one block, which the form's own markdown pass leaves as it is; raw cells become
    text; of the outputs, plain text and images stay.
    """

    enabled = True

    def preprocess_cell(self, cell: NotebookNode, resources: Resources, index: int) -> tuple[NotebookNode, Resources]:
        if cell.cell_type == "markdown":
            text = str(saneado.markdown(cell.source, saneado.Headings()))
            cell.source = f"<div>{text}</div>".replace("\n", "&#10;")
        elif cell.cell_type == "raw":
            cell.source = str(saneado.plain(cell.source))
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = NotebookNode({k: v for k, v in output.data.items() if k in SAFE_OUTPUTS})
        return cell, resources


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


def _root(data: dict[str, str]) -> Path:
    return Path(data["db_url"].removeprefix("sqlite:///")).parent


def _write_verdict(cell: NotebookNode, grading: Grading) -> float:
    """Replace the outputs of a check cell by its verdict. Returns its points.

    A check without hidden cases is an error, not full marks.
    """
    meta = cell.metadata.nbgrader
    if meta["grade_id"] not in grading.checks:
        raise KeyError(f"no hidden check for cell {meta['grade_id']}")
    mark = grading.checks[meta["grade_id"]]
    points = float(bounded(mark.fraction, float(meta["points"])))
    cell.execution_count = None
    cell.outputs = [
        new_output("stream", name="stdout", text=_text(mark)),
        new_output("execute_result", data={"text/plain": repr(points)}, execution_count=None),
    ]
    return points


def _text(mark: CheckMark) -> str:
    """What the student reads: names of the cases and a hint for each miss, never an argument or an expected value."""
    passed = sum(r.passed for r in mark.results)
    lines = [f"{passed} de {len(mark.results)} comprobaciones superadas."]
    if mark.notice:
        lines.append(f"Aviso: {mark.notice}.")
    for r in mark.results:
        note = f" ({r.note})" if r.note else ""
        lines.append(f"  {'✔' if r.passed else '✘'} {r.name}{note}" + ("" if r.passed else f" — pista: {r.hint}"))
    return "\n".join(lines) + "\n"

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

from minilab_grading.arnes.calificar import Calificacion, NotaDePrueba, califica
from minilab_grading.registro import escribe_nota, semilla_de

Recursos = dict[str, Any]


class EjecutarTolerante(Execute):
    """Runs the notebook for its outputs only; a dead kernel leaves the rest without outputs instead of losing it all.

    Off unless ``ejecutar`` is set: a kernel runs as the grader, beside the gradebook. Marks do not depend on it.
    """

    ejecutar = Bool(False, help="Execute submissions in a kernel of the grader, to see their outputs").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: Recursos | None = None, **otros: Any
    ) -> tuple[NotebookNode, Recursos]:
        if not self.ejecutar:
            return nb, resources
        try:
            return super().preprocess(nb, resources, **otros)
        except DeadKernelError:
            self.log.warning("El núcleo murió al ejecutar el cuaderno; se califica igualmente")
            aviso = new_output("stream", name="stdout", text="El núcleo murió al ejecutar este cuaderno.\n")
            primera = next((c for c in nb.cells if c.cell_type == "code"), None)
            if primera is not None:
                primera.outputs = [aviso]
            return nb, resources


class InyectaNotas(NbGraderPreprocessor):
    """Grades the source of the solution cells out of process and writes each score as the check cell's output.

    Runs after Execute and before SaveAutoGrades, so whatever the student's kernel printed in a check cell is gone.
    """

    permitir_sin_aislar = Bool(False, help="Grade even where no isolation is available").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Recursos) -> tuple[NotebookNode, Recursos]:
        datos = resources["nbgrader"]
        carpeta = Path(resources["metadata"]["path"])
        raiz = Path(datos["db_url"].removeprefix("sqlite:///")).parent
        semilla = semilla_de(raiz, datos["student"], datos["assignment"])
        calificacion = califica(nb, datos["notebook"], semilla, [raiz], self.permitir_sin_aislar)
        huella = hashlib.sha256("\0".join(c.source for c in nb.cells).encode()).hexdigest()
        pruebas = []
        for celda in nb.cells:
            if utils.is_grade(celda) and not utils.is_solution(celda):
                pruebas.append(_escribe(celda, calificacion))
        escribe_nota(carpeta, datos, huella, calificacion.aislamiento, pruebas)
        return nb, resources


class RestauraCeldas(OverwriteCells):
    """Puts deleted check cells back with an id of their own, which nbformat requires."""

    def missing_cell_transform(self, source_cell: Any, *otros: Any, **mas: Any) -> NotebookNode:
        celda = super().missing_cell_transform(source_cell, *otros, **mas)
        celda.id = source_cell.name
        return celda


class NotasParaLeer(GetGrades):
    """Marks for the feedback page; an answer that a person still has to read is told from one that got 0."""

    def _get_score(self, cell: NotebookNode, resources: Recursos) -> None:
        super()._get_score(cell, resources)
        nota = self.gradebook.find_grade(
            cell.metadata["nbgrader"]["grade_id"], self.notebook_id, self.assignment_id, self.student_id
        )
        cell.metadata.nbgrader["por_corregir"] = nota.auto_score is None and nota.manual_score is None


def _escribe(celda: NotebookNode, calificacion: Calificacion) -> dict[str, Any]:
    """Replace the outputs of a check cell by its verdict; a check without hidden cases is an error, not full marks."""
    meta = celda.metadata.nbgrader
    grade_id, maximo = meta["grade_id"], float(meta["points"])
    if grade_id not in calificacion.pruebas:
        raise KeyError(f"no hidden check for cell {grade_id}")
    nota = calificacion.pruebas[grade_id]
    puntos = round(maximo * nota.fraccion, 2)
    celda.execution_count = None
    celda.outputs = [
        new_output("stream", name="stdout", text=_texto(nota)),
        new_output("execute_result", data={"text/plain": repr(puntos)}, execution_count=None),
    ]
    casos = [{"nombre": r.nombre, "superado": r.superado} for r in nota.resultados]
    return {"id": grade_id, "puntos": puntos, "maximo": maximo, "casos": casos, "aviso": nota.aviso}


def _texto(nota: NotaDePrueba) -> str:
    """What the student reads: names of the cases and a hint for each miss, never an argument or an expected value."""
    bien = sum(r.superado for r in nota.resultados)
    lineas = [f"{bien} de {len(nota.resultados)} comprobaciones superadas."]
    if nota.aviso:
        lineas.append(f"Aviso: {nota.aviso}.")
    for r in nota.resultados:
        lineas.append(f"  {'✔' if r.superado else '✘'} {r.nombre}" + ("" if r.superado else f" — pista: {r.pista}"))
    return "\n".join(lineas) + "\n"

"""Every lab, marked by nbgrader: its solution gets all the points, its release none."""

from __future__ import annotations

from datetime import UTC, datetime

import nbformat
import pytest
from nbformat import NotebookNode

from minilab import construir
from minilab_grading.ciclo import Course
from minilab_grading.curso.calificacion import Options
from minilab_grading.medidores import close_meters, meters

LABS = [source.stem for source in construir.sources()]


def points_of(notebook: NotebookNode) -> dict[str, float]:
    graded = [c.metadata.nbgrader for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")]
    return {meta.grade_id: meta.points for meta in graded}


@pytest.mark.parametrize("lab", LABS)
def test_the_solution_gets_every_point_and_the_release_none(lab, tmp_path):
    solved = construir.instructor(construir.SOURCE_FOLDER / f"{lab}.py")
    course = Course(tmp_path / "curso", unisolated=True)
    released = nbformat.read(course.generate(lab), 4)
    for student, notebook in (("resuelta", solved), ("publicada", released)):
        course.add(lab, student, nbformat.writes(notebook).encode(), datetime(2026, 11, 2, tzinfo=UTC))
    chosen = meters("contado", "traza")
    try:
        course.grade(lab, options=Options(meters=chosen, processes=2))
    finally:
        close_meters(chosen)
    full, marks = points_of(released), course.marks(lab)
    written = {name for name, mark in marks["resuelta"].items() if mark is None}
    assert marks["resuelta"] == {name: None if name in written else points for name, points in full.items()}
    assert marks["publicada"] == dict.fromkeys(full, 0)
    with course.gradebook() as gradebook:
        for name in written:
            gradebook.find_grade(name, lab, lab, "resuelta").manual_score = full[name]
        gradebook.db.commit()
        assert gradebook.find_submission(lab, "resuelta").score == sum(full.values()) == 100
        assert gradebook.find_submission(lab, "publicada").score == 0

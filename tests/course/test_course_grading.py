"""The nbgrader cycle on a course of its own: honest work gets its marks, feedback is Spanish and leaks nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import nbformat
import pytest

from minilab import construir
from minilab_grading.__main__ import main
from minilab_grading.casos import cases_of
from minilab_grading.ciclo import Course, CycleError
from minilab_grading.registro import seed_of

ASSIGNMENT = "P_sirve_y_demuestralo"
MAXIMUM = {
    "prueba_prediccion": 5,
    "prueba_percentil": 10,
    "prueba_resume": 15,
    "prueba_cliente": 20,
    "prueba_cuerpo_json": 15,
    "prueba_es_valida": 10,
    "prueba_veredicto": 10,
}
FAILING = {
    "percentil": "def percentil(valores, p):\n    return sum(valores) / len(valores)",
    "cuerpo_json": (
        "def cuerpo_json(p, e):\n    return {'messages': [{'role': 'user', 'content': p}], 'max_tokens': 64,"
        " 'extra_body': {'guided_json': e}}"
    ),
    "es_valida": "def es_valida(texto, esquema, fin):\n    return True",
}


def save(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def course(tmp_path):
    """A released course; isolation is used where the machine has it."""
    course = Course(tmp_path / "curso", unisolated=True)
    course.generate(ASSIGNMENT)
    return course


def test_honest_and_failing_submission_through_the_whole_cycle(tmp_path, submission, solutions, capsys):
    save(submission(solutions), tmp_path / "entregas" / "honesta.ipynb")
    save(submission(FAILING), tmp_path / "entregas" / "fallida.ipynb")
    command = ["ciclo", ASSIGNMENT, str(tmp_path / "entregas"), "--curso", str(tmp_path / "curso"), "--sin-aislar"]
    assert main(command) == 0
    assert "honesta: 85 puntos automáticos; por leer: explica" in capsys.readouterr().out
    marks = Course(tmp_path / "curso").marks(ASSIGNMENT)
    assert marks["honesta"] == {**MAXIMUM, "explica": None}
    low = marks["fallida"]
    assert low["prueba_cuerpo_json"] == low["prueba_cliente"] == low["prueba_prediccion"] == 0
    assert low["prueba_es_valida"] == pytest.approx(10 * 2 / 11, abs=0.01)
    assert low["explica"] == 0 and sum(low.values()) < 10
    for student, mark in (("honesta", "85"), ("fallida", f"{sum(low.values()):g}".replace(".", ","))):
        page = tmp_path / "curso" / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html"
        _review_page(page, mark, _secrets(tmp_path / "curso", student))


def _review_page(path, mark: str, secrets: list[str]) -> None:
    assert len(secrets) > 100
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and '<html lang="es">' in page
    assert f"<strong>{mark}</strong> de 100" in page
    assert "Puntos por apartado" in page and "comprobaciones superadas" in page
    assert not re.search(r"\b(Score|Comments|Student's|Grade cell)\b", page)
    assert not re.search(r"(src|href)=.https?:", page), "a feedback page loads nothing from the network"
    text = _text(page)
    assert "esperaba" not in text and not [secret for secret in secrets if secret in text]


def _secrets(root, student: str) -> list[str]:
    """What only the hidden cases drawn for this student hold: prompts, numbers, texts to judge, schema keys."""
    _, _, checks = cases_of(ASSIGNMENT, seed_of(root, student, ASSIGNMENT))
    secrets = [prompt for case in checks["prueba_cliente"].cases for prompt in case.scripts]
    secrets += [repr(v) for case in checks["prueba_percentil"].cases for v in case.args[0] if isinstance(v, float)]
    secrets += [key for case in checks["prueba_cuerpo_json"].cases for key in case.args[1]["required"]]
    secrets += [case.args[0] for case in checks["prueba_es_valida"].cases]
    return [s for s in secrets if len(s) > 5]


def _text(page: str) -> str:
    class Reader(HTMLParser):
        chunks: list[str] = []  # noqa: RUF012

        def handle_data(self, data: str) -> None:
            self.chunks.append(data)

    reader = Reader()
    reader.chunks = []
    reader.feed(page)
    return "".join(reader.chunks)


def test_honest_work_that_writes_to_stderr_keeps_its_marks(tmp_path, submission, solutions):
    noisy = dict(solutions)
    noisy["percentil"] = solutions["percentil"].replace(
        "    if not valores:", "    import sys\n    sys.stderr.write('midiendo…\\n')\n    if not valores:"
    )
    assert "midiendo" in noisy["percentil"]
    course = Course(tmp_path / "curso", execute=True, unisolated=True)
    course.generate(ASSIGNMENT)
    save(submission(noisy), tmp_path / "curso" / "submitted" / "ruidosa" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    course.grade(ASSIGNMENT)
    assert course.marks(ASSIGNMENT)["ruidosa"] == {**MAXIMUM, "explica": None}
    graded = nbformat.read(tmp_path / "curso" / "autograded" / "ruidosa" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", 4)
    outputs = [o for c in graded.cells for o in c.get("outputs", [])]
    assert any("JSON válidos: 10 de 10" in o.get("text", "") for o in outputs), "the notebook was really executed"


def test_dead_kernel_does_not_lose_the_submission(tmp_path, submission, solutions):
    deadly = {**solutions, "prediccion": solutions["prediccion"] + "\nimport os\nos._exit(0)"}
    course = Course(tmp_path / "curso", execute=True, unisolated=True)
    course.generate(ASSIGNMENT)
    notebook = submission(deadly)
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "preparacion"]
    save(notebook, tmp_path / "curso" / "submitted" / "mortal" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    course.grade(ASSIGNMENT)
    marks = course.marks(ASSIGNMENT)["mortal"]
    assert marks == {**MAXIMUM, "prueba_prediccion": 0, "explica": None}


def test_edited_deleted_and_duplicated_check_cells_change_nothing(course, submission, solutions):
    edited, deleted = submission(FAILING), submission(solutions)
    for cell in edited.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "100.0" if cell.cell_type == "code" else cell.source
            cell.metadata.nbgrader["points"] = 100
    deleted.cells = [c for c in deleted.cells if c.id not in ("prueba_percentil", "prueba_resume")]
    for student, notebook in (("editada", edited), ("borrada", deleted)):
        save(notebook, course.root / "submitted" / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    course.grade(ASSIGNMENT)
    marks = course.marks(ASSIGNMENT)
    assert marks["editada"]["prueba_cuerpo_json"] == 0 and sum(marks["editada"].values()) < 10
    assert marks["borrada"] == {**MAXIMUM, "explica": None}


def test_regrading_gives_the_same_record_byte_for_byte(course, submission, solutions):
    save(submission(solutions), course.root / "submitted" / "ana" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    records = []
    for _ in range(2):
        course.grade(ASSIGNMENT, "ana")
        records.append((course.root / "autograded" / "ana" / ASSIGNMENT / "nota.json").read_bytes())
    assert records[0] == records[1]
    mark = json.loads(records[0])
    assert mark["alumno"] == "ana" and mark["aislamiento"] in ("espacios+montajes", "espacios", "ninguno")
    assert {p["id"]: p["puntos"] for p in mark["pruebas"]} == MAXIMUM


def test_unknown_assignment_and_empty_folder_are_said_clearly(tmp_path):
    course = Course(tmp_path / "curso")
    with pytest.raises(CycleError, match=construir.sources()[0].stem):
        course.generate("no_existe")
    with pytest.raises(CycleError, match=r"alumno\.ipynb"):
        course.receive(ASSIGNMENT, tmp_path)

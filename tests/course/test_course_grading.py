"""The nbgrader cycle on a course of its own: honest work gets its marks, feedback is Spanish and leaks nothing."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbgrader.converters import Autograde

from minilab import construir
from minilab.pruebas.casos import Result
from minilab_grading.__main__ import HELP, main
from minilab_grading.arnes.calificar import CheckMark
from minilab_grading.casos import cases_of
from minilab_grading.ciclo import Course, CycleError
from minilab_grading.curso import calificacion, ensayo
from minilab_grading.curso.calificacion import Options
from minilab_grading.curso.intentos import attempts, latest_verdict, write_verdict
from minilab_grading.registro import seed_of

ASSIGNMENT = "P_sirve_y_demuestralo"
UNMEASURED = Options(processes=2)
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


LIGHT = ("prediccion", "percentil", "resume", "explica")


@pytest.fixture
def light(submission, solutions):
    """Honest work on the cells that are quick to grade."""
    return submission({name: solutions[name] for name in LIGHT})


def hand_in(course, student, notebook):
    course.add(ASSIGNMENT, student, nbformat.writes(notebook).encode(), datetime(2026, 11, 2, tzinfo=UTC))


@pytest.fixture(scope="session")
def full(released):
    """What honest work gets where nothing is measured: all the points of the ordinary checks, 0 of the timed ones."""
    levels = {name: check.level for name, check in cases_of(ASSIGNMENT, 1)[2].items()}
    graded = [c.metadata.nbgrader for c in released.cells if c.metadata.get("nbgrader", {}).get("grade")]
    marks = {m.grade_id: 0 if levels[m.grade_id] else m.points for m in graded if not m.solution}
    return {**marks, **{m.grade_id: None for m in graded if m.solution}}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    course = Course(tmp_path_factory.mktemp("publicado") / "curso")
    course.generate(ASSIGNMENT)
    return course.root


@pytest.fixture
def course(fresh, tmp_path):
    """A released course; isolation is used where the machine has it."""
    shutil.copytree(fresh, tmp_path / "curso")
    return Course(tmp_path / "curso", unisolated=True)


def test_honest_and_failing_submission_through_the_whole_cycle(tmp_path, submission, solutions, full, capsys):
    save(submission(solutions), tmp_path / "entregas" / "honesta.ipynb")
    save(submission(FAILING), tmp_path / "entregas" / "fallida.ipynb")
    root = tmp_path / "curso"
    command = ["ciclo", ASSIGNMENT, str(tmp_path / "entregas"), "--curso", str(root), "--sin-aislar"]
    command += ["--medir", "no", "--vllm", "no"]
    assert main(command) == 0
    points = sum(v or 0 for v in full.values())
    assert re.search(rf"honesta +{points:.2f} .*pendiente de leer: explica", capsys.readouterr().out)
    marks = Course(root).marks(ASSIGNMENT)
    assert marks["honesta"] == full
    low = marks["fallida"]
    assert low["prueba_cuerpo_json"] == low["prueba_cliente"] == low["prueba_prediccion"] == low["explica"] == 0
    assert low["prueba_es_valida"] == 0 and sum(low.values()) < 10
    for student, mark in (("honesta", f"{points:g}"), ("fallida", f"{sum(low.values()):g}".replace(".", ","))):
        page = root / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html"
        _review_page(page, mark, _secrets(root, student))
    assert zipfile.ZipFile(root / "feedback" / f"{ASSIGNMENT}.zip").namelist() == ["fallida.html", "honesta.html"]
    assert main(["verificar", "--curso", str(root)]) == 0
    sheet = (root / "notas" / f"{ASSIGNMENT}-csv.csv").read_text(encoding="utf-8-sig")
    assert "pendiente de leer" in sheet and "fallida" in sheet


def _review_page(path, mark: str, secrets: list[str]) -> None:
    assert len(secrets) > 100
    page = path.read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>") and '<html lang="es">' in page
    text = _text(page)
    assert re.search(rf"\b{mark}\s+de\s+100\b", text)
    assert not re.search(r"\b(Score|Comments|Student's|Grade cell)\b", page)
    assert "esperaba" not in text and not [secret for secret in secrets if secret in text]


def _secrets(root, student: str) -> list[str]:
    """What only the hidden cases drawn for this student hold: prompts, numbers, texts to judge, schema keys."""
    _, _, checks = cases_of(ASSIGNMENT, seed_of(root, student, ASSIGNMENT))
    secrets = [prompt for case in checks["prueba_cliente"].cases for prompt in case.scripts]
    secrets += [repr(v) for case in checks["prueba_percentil"].cases for v in case.args[0] if isinstance(v, float)]
    secrets += [key for case in checks["prueba_cuerpo_json"].cases for key in _keys(case)]
    secrets += [case.args[0] for case in checks["prueba_es_valida"].cases]
    return [s for s in secrets if len(s) > 5]


def _keys(case) -> list[str]:
    """Of the schema that a case of ``cuerpo_json`` passes; some cases drive the function by a play instead."""
    return case.args[1]["required"] if len(case.args) > 1 else []


def _text(page: str) -> str:
    class Reader(HTMLParser):
        chunks: list[str] = []  # noqa: RUF012

        def handle_data(self, data: str) -> None:
            self.chunks.append(data)

    reader = Reader()
    reader.chunks = []
    reader.feed(page)
    return "".join(reader.chunks)


def test_honest_work_that_writes_to_stderr_keeps_its_marks(fresh, tmp_path, submission, solutions, full):
    noisy = dict(solutions)
    noisy["percentil"] = solutions["percentil"].replace(
        "    if not valores:", "    import sys\n    sys.stderr.write('midiendo…\\n')\n    if not valores:"
    )
    assert "midiendo" in noisy["percentil"]
    shutil.copytree(fresh, tmp_path / "curso")
    course = Course(tmp_path / "curso", execute=True, unisolated=True)
    hand_in(course, "ruidosa", submission(noisy))
    course.grade(ASSIGNMENT, options=UNMEASURED)
    assert course.marks(ASSIGNMENT)["ruidosa"] == full
    graded = nbformat.read(course.root / "autograded" / "ruidosa" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", 4)
    outputs = [o for c in graded.cells for o in c.get("outputs", [])]
    assert any("JSON válidos: 10 de 10" in o.get("text", "") for o in outputs), "the notebook was really executed"


def test_dead_kernel_does_not_lose_the_submission(fresh, tmp_path, submission, solutions, full):
    deadly = {**solutions, "prediccion": solutions["prediccion"] + "\nimport os\nos._exit(0)"}
    shutil.copytree(fresh, tmp_path / "curso")
    course = Course(tmp_path / "curso", execute=True, unisolated=True)
    hand_in(course, "mortal", submission(deadly))
    course.grade(ASSIGNMENT, options=UNMEASURED)
    assert course.marks(ASSIGNMENT)["mortal"] == {**full, "prueba_prediccion": 0}


def test_what_is_damaged_does_not_stop_the_others_and_is_answered(course, light, full):
    hand_in(course, "entera", light)
    course.add(ASSIGNMENT, "rota", b"%PDF-1.7", datetime(2026, 11, 2, tzinfo=UTC))
    summary = course.grade(ASSIGNMENT, options=UNMEASURED)
    assert [student for student, _ in summary.problems] == ["rota"]
    marks = course.marks(ASSIGNMENT)
    assert marks["entera"]["prueba_percentil"] == full["prueba_percentil"] and set(marks["rota"].values()) == {0}
    assert course.give_feedback(ASSIGNMENT) == ["entera", "rota"]
    page = (course.root / "feedback" / "rota" / ASSIGNMENT / f"{ASSIGNMENT}.html").read_text(encoding="utf-8")
    assert "no es un cuaderno de Jupyter" in _text(page)


def test_edited_and_deleted_check_cells_change_nothing_also_through_plain_nbgrader(course, submission, light, full):
    edited, deleted = submission(FAILING), copy.deepcopy(light)
    for cell in edited.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "100.0" if cell.cell_type == "code" else cell.source
            cell.metadata.nbgrader["points"] = 100
    deleted.cells = [c for c in deleted.cells if c.id not in ("prueba_percentil", "prueba_resume")]
    for student, notebook in (("editada", edited), ("borrada", deleted)):
        save(notebook, course.root / "submitted" / student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    course._convert(Autograde, ASSIGNMENT, ["borrada", "editada"])
    plain = course.marks(ASSIGNMENT)
    assert plain["editada"]["prueba_cuerpo_json"] == 0 and sum(plain["editada"].values()) < 10
    assert all(plain["borrada"][name] == full[name] for name in ("prueba_percentil", "prueba_resume"))
    course.grade(ASSIGNMENT, options=UNMEASURED)
    assert course.marks(ASSIGNMENT) == plain, "the parallel pass and nbgrader alone agree"


def test_a_stored_verdict_is_used_and_a_check_without_verdict_is_an_error_not_full_marks(course, light, monkeypatch):
    hand_in(course, "ana", light)
    course.grade(ASSIGNMENT, options=UNMEASURED)
    monkeypatch.setattr("minilab_grading.preprocesadores.grade_untimed", lambda *a: pytest.fail("graded twice"))
    course._convert(Autograde, ASSIGNMENT, ["ana"])
    [attempt] = attempts(course.root, ASSIGNMENT)
    path = next(attempt.folder.glob("resultado-*.json"))
    verdict = json.loads(path.read_text(encoding="utf-8"))
    del verdict["grading"]["checks"]["prueba_percentil"]
    path.write_text(json.dumps(verdict), encoding="utf-8")
    with pytest.raises(CycleError, match="prueba_percentil"):
        course._convert(Autograde, ASSIGNMENT, ["ana"])


def test_after_an_update_of_the_grader_nbgrader_grades_again_and_keeps_what_was_measured(course, light, monkeypatch):
    hand_in(course, "ana", light)
    course.grade(ASSIGNMENT, options=UNMEASURED)
    [attempt] = attempts(course.root, ASSIGNMENT)
    verdict = latest_verdict(attempt.folder)
    [timed] = [n for n, check in cases_of(ASSIGNMENT, 1)[2].items() if check.level == "reloj_real"]
    measured = CheckMark((Result("medida", True, credit=1.0),), measures={"modo": "de prueba"})
    checks = {**verdict.grading.checks, timed: measured}
    write_verdict(attempt.folder, replace(verdict, grading=replace(verdict.grading, checks=checks)))
    monkeypatch.setattr(calificacion, "harness", lambda assignment: {"version_casos": "1", "sha256": "otra"})
    course._convert(Autograde, ASSIGNMENT, ["ana"])
    marks = course.marks(ASSIGNMENT)["ana"]
    assert marks[timed] > 0 and marks["prueba_percentil"] > 0
    assert main(["verificar", "--curso", str(course.root)]) == 0
    assert course.grade(ASSIGNMENT, options=UNMEASURED).changed == ["ana"]
    assert course.marks(ASSIGNMENT)["ana"] == marks


def test_regrading_gives_the_same_record_byte_for_byte(course, light, capsys):
    hand_in(course, "ana", light)
    records = []
    for _ in range(2):
        course.grade(ASSIGNMENT, "ana", Options(again=True))
        records.append((course.root / "autograded" / "ana" / ASSIGNMENT / "nota.json").read_bytes())
    assert records[0] == records[1]
    assert json.loads(records[0])["alumno"] == "ana"
    assert main(["recalificar", ASSIGNMENT, "--curso", str(course.root), "--sin-aislar"]) == 0
    assert "igual, byte por byte" in capsys.readouterr().out


def test_a_penalty_counts_the_answers_that_a_person_read(course, light):
    settings = f'zona = "UTC"\n[tareas.{ASSIGNMENT}]\nvence = 2026-11-01T00:00:00\npenalizacion_por_dia = 10\n'
    (course.root / "curso.toml").write_text(settings, encoding="utf-8")
    hand_in(course, "tarde", light)
    course.grade(ASSIGNMENT, options=UNMEASURED)
    automatic = sum(v or 0 for v in course.marks(ASSIGNMENT)["tarde"].values())
    with course.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "tarde")
        assert automatic > 5 and notebook.late_submission_penalty == pytest.approx(automatic / 10)
        gradebook.find_grade("explica", ASSIGNMENT, ASSIGNMENT, "tarde").manual_score = 10
        gradebook.db.commit()
    course.give_feedback(ASSIGNMENT)
    with course.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "tarde")
        assert notebook.late_submission_penalty == pytest.approx((automatic + 10) / 10)


def test_unknown_assignment_and_empty_folder_are_said_clearly(tmp_path, capsys):
    course = Course(tmp_path / "curso")
    with pytest.raises(CycleError, match=construir.sources()[0].stem):
        course.generate("no_existe")
    for command, message in (
        (["recibir", ASSIGNMENT, str(tmp_path), "--curso", str(course.root)], r"alumno\.ipynb"),
        (["calificar", ASSIGNMENT, "--curso", str(course.root), "--medir", "no"], "recibir"),
        (["retroalimentar", ASSIGNMENT, "--curso", str(course.root)], "calificar"),
        (["notas", ASSIGNMENT, "--curso", str(tmp_path / "otra")], "minilab-grading nuevo"),
        (["verificar", "--curso", str(course.root)], "Califica primero"),
        (["similitud", ASSIGNMENT, "--curso", str(course.root)], "calificar"),
        (["recalificar", ASSIGNMENT, "--curso", str(course.root)], "calificar"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert re.search(message, error) and "Traceback" not in error


def test_the_rehearsal_tells_a_solved_notebook_that_lost_a_cent(course, monkeypatch):
    maxima = calificacion.maxima_of(course.released(ASSIGNMENT))
    stories = [("ana", ensayo.STORIES[0]), ("carla", ensayo.STORIES[2])]
    marks = {"ana": maxima | {"explica": None}, "carla": dict.fromkeys(maxima, 0.0)}
    monkeypatch.setattr(Course, "marks", lambda self, assignment: marks)
    assert ensayo._surprises(course, ASSIGNMENT, stories, set()) == []
    assert len(ensayo._surprises(course, ASSIGNMENT, stories, {"vllm"})) == 1
    marks["ana"]["prueba_percentil"] -= 0.01
    marks["carla"]["prueba_percentil"] = 0.01
    assert [s.split()[0] for s in ensayo._surprises(course, ASSIGNMENT, stories, set())] == ["ana", "carla"]


def test_a_reader_that_has_had_enough_is_no_traceback_and_no_success(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "minilab_grading", "nuevo", str(tmp_path / "curso")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_every_command_explains_itself_in_spanish(capsys):
    for name, text in HELP.items():
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0 and text.split(":")[0][:40] in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as end:
        main(["calificar", ASSIGNMENT, "--procesos", "cero"])
    assert end.value.code == 2 and "entero mayor que 0" in capsys.readouterr().err


def test_nbgrader_itself_works_when_started_in_the_course_folder(course, light):
    """Another program put a notebook into ``submitted/``; nothing of ours was told."""
    save(light, course.root / "submitted" / "ana" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    command = [sys.executable, "-m", "nbgrader", "autograde", ASSIGNMENT, "--InyectaNotas.permitir_sin_aislar=True"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "MINILAB_CURSO"} | {"PATH": path}
    done = subprocess.run(command, cwd=course.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    marks = course.marks(ASSIGNMENT)["ana"]
    assert marks["prueba_percentil"] > 0 and marks["prueba_cuerpo_json"] == 0 and marks["explica"] is None


def test_a_new_course_says_what_to_do_next_and_keeps_its_key_private(tmp_path, capsys):
    assert main(["nuevo", str(tmp_path / "curso")]) == 0
    assert "generar TAREA" in capsys.readouterr().out
    assert (tmp_path / "curso" / "secreto.txt").stat().st_mode & 0o077 == 0


def test_the_rehearsal_runs_the_whole_cycle_and_finds_what_was_planned(tmp_path, capsys):
    folder = tmp_path / "ensayo"
    assert main(["ensayo", ASSIGNMENT, "--en", str(folder), "--sin-aislar"]) == 0
    shown = capsys.readouterr().out
    assert "10 páginas" in shown and "no es lo previsto" not in shown and "0 con problemas" in shown
    assert re.search(r"diego +0\.00", shown) and "El archivo está cortado" in shown
    assert {p.suffix for p in (folder / "notas").iterdir()} == {".csv", ".html"}
    assert main(["ensayo", "--en", str(folder)]) == 2
    assert "no está vacía" in capsys.readouterr().err

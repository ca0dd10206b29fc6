"""nbgrader's own pages over a course of ours, in a real browser: lists, marks, a form to grade by hand, nothing run."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime

import nbformat
import pytest

from minilab.pruebas.casos import Result
from minilab_grading.arnes.calificar import CheckMark, Grading
from minilab_grading.casos import cases_of
from minilab_grading.ciclo import Course
from minilab_grading.curso import calificacion, intentos
from minilab_grading.curso.intentos import Verdict, write_verdict
from minilab_grading.curso.paralelo import fingerprint

NAME, TOKEN = "P_sirve_y_demuestralo", "ensayo"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
ANSWER = (
    "Mi respuesta <script>document.title = 'entró'</script> y [pulsa](javascript:alert(1)) "
    "<img src=x onerror=\"document.title='entró'\"> **fin**"
)


@pytest.fixture(scope="module")
def course(tmp_path_factory, released):
    """Two students with the verdicts written down, so that nothing of a student runs here."""
    course = Course(tmp_path_factory.mktemp("formgrader") / "curso", unisolated=True)
    course.generate(NAME)
    rows = "id,nombre,apellidos,correo,moodle_id,canvas_id\nana,Ana,Muñoz,,,\nluis,Luis,Peña,,,\n"
    (course.root / "alumnos.csv").write_text(rows, encoding="utf-8")
    for student, credit in (("ana", 1.0), ("luis", 0.5)):
        notebook = copy.deepcopy(released)
        next(c for c in notebook.cells if c.id == "explica").source = f"{ANSWER} {student}"
        data = nbformat.writes(notebook).encode()
        attempt = intentos.add(course.root, NAME, student, data, datetime(2026, 11, 2, tzinfo=UTC))
        (attempt.folder / intentos.REBUILT).write_bytes(data)
        checks = cases_of(NAME, 1)[2]
        marks = {name: CheckMark((Result("caso", credit == 1, credit=credit),)) for name in checks}
        key = calificacion.key_of(course.root, attempt)
        write_verdict(attempt.folder, Verdict(key, fingerprint(notebook), Grading("bwrap", marks), written=1))
    course.grade(NAME)
    return course


@pytest.fixture(scope="module")
def server(course, tmp_path_factory):
    """``jupyter server`` started in the course folder, as the guide says. Gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {
        name: str(tmp_path_factory.mktemp(name)) for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    }
    settings = [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    log = tmp_path_factory.mktemp("registro") / "servidor.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "server", "--no-browser", *settings],
            cwd=course.root,
            env={**os.environ, **folders},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                ask(f"{address}/api/status")
                break
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.25)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def ask(url, method="GET"):
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


@pytest.fixture(scope="module")
def dom(server, tmp_path_factory):
    """The page once its scripts ran; MINILAB_CAPTURAS names a folder where pictures are wanted too."""
    profile = tmp_path_factory.mktemp("perfil")
    shared = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--window-size=1280,900",
    ]

    def look(page, budget_ms=8000):
        command = [*shared, f"--virtual-time-budget={budget_ms}"]
        url = f"{server}/{page}"
        if pictures := os.environ.get("MINILAB_CAPTURAS"):
            name = re.sub(r"\W+", "-", page.partition("?")[0]).strip("-")
            picture = f"--screenshot={pictures}/{name}.png"
            subprocess.run([*command, picture, url], capture_output=True, timeout=120, check=True)
        return subprocess.run(
            [*command, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True
        ).stdout

    # On a busy machine a browser's first start may take longer than it waits for itself: only that is tried again.
    for _ in range(3):
        with contextlib.suppress(subprocess.SubprocessError):
            look(f"formgrader/manage_assignments?token={TOKEN}")
            return look
    look(f"formgrader/manage_assignments?token={TOKEN}")
    return look


@needs_browser
def test_formgrader_lists_the_assignment_and_its_submissions_with_names_and_scores(course, dom):
    page = dom("formgrader/manage_assignments")
    assert re.search(rf'href="[^"]*/manage_submissions/{NAME}">2</a>', page)
    marks = {who: sum(p or 0 for p in parts.values()) for who, parts in course.marks(NAME).items()}
    assert 0 < 2 * marks["luis"] == marks["ana"]
    page = dom(f"formgrader/gradebook/{NAME}/{NAME}")
    for name, student in (("Muñoz, Ana", "ana"), ("Peña, Luis", "luis")):
        assert name in page and f"{marks[student]:g} / 100" in page


@needs_browser
def test_formgrader_shows_the_form_and_runs_nothing_of_the_student(server, dom):
    [first, _] = sorted(ask(f"{server}/formgrader/api/submitted_notebooks/{NAME}/{NAME}"), key=lambda s: s["student"])
    page = dom(f"formgrader/submissions/{first['id']}/")
    assert 'class="form-control input-sm score"' in page or re.search(r"<input[^>]*score", page)
    assert "Mi respuesta" in page and "<strong>fin</strong> ana" in page
    assert "<title>entró" not in page and "javascript:alert" not in page and "onerror" not in page
    assert "comprobaciones superadas" in page


def test_the_page_with_no_browser_is_clean_too(server):
    [first, _] = sorted(ask(f"{server}/formgrader/api/submitted_notebooks/{NAME}/{NAME}"), key=lambda s: s["student"])
    url = f"{server}/formgrader/submissions/{first['id']}/?token={TOKEN}"
    with urllib.request.urlopen(url, timeout=60) as reply:
        page = reply.read().decode()
    assert "Mi respuesta" in page and "document.title" not in page and "javascript:alert" not in page


def test_the_autograde_button_uses_the_stored_verdict_and_keeps_the_marks(course, server):
    before = course.marks(NAME)
    record = course.root / "autograded" / "ana" / NAME / "nota.json"
    old = record.read_bytes()
    answer = ask(f"{server}/formgrader/api/submission/{NAME}/ana/autograde", method="POST")
    assert answer["success"], answer
    assert "Se ejecuta código" not in answer.get("log", "")
    assert course.marks(NAME) == before and record.read_bytes() == old


def test_a_grade_given_in_the_form_reaches_the_marks(course, server):
    submission = next(
        s for s in ask(f"{server}/formgrader/api/submitted_notebooks/{NAME}/{NAME}") if s["student"] == "ana"
    )
    grades = ask(f"{server}/formgrader/api/grades?submission_id={submission['id']}")
    manual = next(g for g in grades if g["name"] == "explica")
    body = json.dumps({**manual, "manual_score": 7}).encode()
    request = urllib.request.Request(
        f"{server}/formgrader/api/grade/{manual['id']}",
        data=body,
        method="PUT",
        headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert json.loads(reply.read())["manual_score"] == 7
    with course.gradebook() as gradebook:
        grade = gradebook.find_grade("explica", NAME, NAME, "ana")
        assert grade.score == 7 and not grade.needs_manual_grade

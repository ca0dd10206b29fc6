"""Attempts, turns, deadlines, the parallel pass and the lock: what the cycle adds around nbgrader."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilab.plantilla import CODE_STUB, TEXT_STUB
from minilab.pruebas import casos
from minilab_grading.arnes.aislamiento import Isolation
from minilab_grading.arnes.calificar import NOT_MEASURED, CheckMark, Grading
from minilab_grading.casos import cases_of
from minilab_grading.ciclo import LOCK_FILE, Course
from minilab_grading.curso import CycleError, calificacion, intentos, paralelo
from minilab_grading.curso.calificacion import Options, Run
from minilab_grading.curso.carpeta import AssignmentSettings, create, read_settings
from minilab_grading.curso.intentos import Verdict, add, attempts, bounded, read_verdict, turns, write_verdict
from minilab_grading.curso.paralelo import Job, grade_all
from minilab_grading.curso.plazos import penalty, seconds_late

NAME = "P_sirve_y_demuestralo"
MONDAY = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = AssignmentSettings(due=MONDAY, percent_per_day=10, percent_maximum=50, grace=15 * 60)


@pytest.mark.parametrize(
    ("late", "lost"),
    [
        (timedelta(0), 0),
        (timedelta(seconds=-1), 0),
        (timedelta(minutes=15), 0),
        (timedelta(minutes=15, seconds=1), 8),
        (DAY, 8),
        (DAY + timedelta(seconds=1), 16),
        (2 * DAY, 16),
        (5 * DAY, 40),
        (60 * DAY, 40),
    ],
)
def test_late_work_loses_a_percentage_for_each_started_day(late, lost):
    assert penalty(80, seconds_late(MONDAY + late, POLICY), POLICY) == lost


def test_without_a_deadline_nothing_is_late():
    assert seconds_late(MONDAY + 900 * DAY, AssignmentSettings(percent_per_day=10)) == 0


@pytest.mark.parametrize(
    ("line", "utc"),
    [
        ("vence = 2026-07-01T23:59:59", "2026-07-01T21:59:59+00:00"),
        ("vence = 2026-12-18T23:59:59", "2026-12-18T22:59:59+00:00"),
        ("vence = 2026-10-25T02:30:00", "2026-10-25T01:30:00+00:00"),
        ("vence = 2026-12-18T23:59:59-03:00", "2026-12-19T02:59:59+00:00"),
    ],
    ids=["summer", "winter", "the repeated hour counts as its second pass", "own offset"],
)
def test_deadlines_are_read_in_the_zone_of_the_course(tmp_path, line, utc):
    (tmp_path / "curso.toml").write_text(f'zona = "Europe/Madrid"\n[tareas.T]\n{line}\n', encoding="utf-8")
    assert read_settings(tmp_path).of("T").due.isoformat() == utc


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('zona = "Marte"', "zona horaria"),
        ("[tareas.T]\nvence = 2026-03-29T02:30:00\n", "no existe"),
        ('[tareas.T]\nvence = "mañana"\n', "sin comillas"),
        ("[tareas.T]\nvense = 2026-03-29T02:30:00\n", "vense"),
        ("[tareas.T]\npenalizacion_por_dia = 120\n", "entre 0 y 100"),
        ("[tareas.T]\nintentos_por_dia = 1.5\n", "entero"),
        ("[tareas.T]\ngracia_minutos = true\n", "número"),
        ("[tareas.T\n", "no se puede leer"),
        ("tareas = 3", "tabla"),
    ],
)
def test_wrong_settings_are_refused_with_what_to_write(tmp_path, text, message):
    prefix = "" if text.startswith("zona") else 'zona = "Europe/Madrid"\n'
    (tmp_path / "curso.toml").write_text(prefix + text, encoding="utf-8")
    with pytest.raises(CycleError, match=message):
        read_settings(tmp_path)


def test_a_new_course_has_settings_that_can_be_read_and_keeps_what_is_there(tmp_path):
    assert create(tmp_path) == ["curso.toml", "alumnos.csv", "nbgrader_config.py"]
    assert read_settings(tmp_path).of(NAME) == AssignmentSettings(None, 10, 50, 900, 5, 100)
    (tmp_path / "curso.toml").write_text('nombre = "El mío"', encoding="utf-8")
    assert create(tmp_path) == [] and read_settings(tmp_path).name == "El mío"


def test_the_stubs_of_released_notebooks_are_frozen():
    assert CODE_STUB == {"python": "# TU CÓDIGO AQUÍ\nraise NotImplementedError('Falta implementar')"}
    assert TEXT_STUB == "*Escribe aquí tu respuesta.*"


@given(st.lists(st.integers(0, 5 * 24 * 60), max_size=25), st.integers(1, 4))
def test_no_24_hours_hold_more_turns_than_allowed_and_none_comes_early(minutes, per_day):
    times = [MONDAY + timedelta(minutes=m) for m in sorted(minutes)]
    result = turns(times, per_day)
    assert result == sorted(result) and all(turn >= when for turn, when in zip(result, times, strict=True))
    assert all(late - early >= DAY for early, late in zip(result, result[per_day:], strict=False))
    assert turns(times, 0) == times


def test_attempts_are_kept_as_they_came_and_the_same_bytes_count_once(tmp_path):
    assert add(tmp_path, NAME, "ana", b"\xff\x00", MONDAY, "entregas/ana.ipynb")
    assert add(tmp_path, NAME, "ana", b"otra", MONDAY - HOUR)
    assert add(tmp_path, NAME, "ana", b"\xff\x00", MONDAY + HOUR) is None
    kept = attempts(tmp_path, NAME)
    assert [(a.data, a.when) for a in kept] == [(b"otra", MONDAY - HOUR), (b"\xff\x00", MONDAY)]
    assert kept[1].origin == "entregas/ana.ipynb"
    with pytest.raises(CycleError, match="identificador"):
        add(tmp_path, NAME, "../ana", b"", MONDAY)
    assert not list(tmp_path.rglob(".nuevo-*"))


def grading_of(fraction: float, pending: bool = False) -> Grading:
    """Every check of the notebook with one fraction; the timed ones not measured yet, if so wanted."""
    marks = {}
    for name, check in cases_of(NAME, 1)[2].items():
        notice = NOT_MEASURED if pending and check.level else ""
        credit = 0.0 if notice else fraction
        marks[name] = CheckMark((casos.Result("caso", credit == 1, credit=credit),), notice)
    return Grading("bwrap", marks)


def test_a_verdict_comes_back_from_its_file_as_it_was(tmp_path):
    verdict = Verdict("ab" * 32, "huella", grading_of(0.25), ("un aviso",), 1)
    write_verdict(tmp_path, verdict)
    assert read_verdict(tmp_path, verdict.key) == verdict
    assert read_verdict(tmp_path, "cd" * 32) is None


def test_points_never_leave_their_bounds():
    assert (bounded(1.5, 4), bounded(-1, 4), bounded(0.3333, 4)) == (4, 0, 1.33)
    with pytest.raises(ValueError, match="not a number"):
        bounded(float("nan"), 4)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    course = Course(tmp_path_factory.mktemp("publicado") / "curso")
    course.generate(NAME)
    return course.root


@pytest.fixture
def course(fresh, tmp_path):
    """A released course, without grading anything."""
    shutil.copytree(fresh, tmp_path / "curso")
    return Course(tmp_path / "curso", unisolated=True)


def stub_grading(monkeypatch, gradings):
    """Attempts get the gradings written down for their bytes; nothing of a student runs."""

    def grade_all(jobs, processes, limit_s, done):
        verdicts = {}
        for job in jobs:
            grading, written = gradings[(job.folder / intentos.BYTES).read_bytes()]
            verdicts[job.folder] = Verdict(job.key, "huella", grading, written=written)
            (job.folder / intentos.REBUILT).write_bytes(job.released.read_bytes())
            write_verdict(job.folder, verdicts[job.folder])
        return verdicts

    monkeypatch.setattr(calificacion, "grade_all", grade_all)


def run(course, now=MONDAY + 9 * DAY, student="*", **options):
    return Run(course.root, NAME, Options(**options), unisolated=True).start(student, now)


def settings(course, text):
    (course.root / "curso.toml").write_text(f'zona = "UTC"\n[tareas.{NAME}]\n{text}\n', encoding="utf-8")


def test_the_best_attempt_after_the_penalty_is_chosen_and_of_equals_the_earliest(course, monkeypatch):
    settings(course, "vence = 2026-11-02T12:00:00\npenalizacion_por_dia = 10")
    half, most, full = grading_of(0.5), grading_of(0.9), grading_of(1.0)
    stub_grading(monkeypatch, {b"m": (half, 1), b"n": (half, 1), b"o": (full, 0), b"p": (most, 0), b"q": (half, 2)})
    for data, when in ((b"m", MONDAY - HOUR), (b"n", MONDAY), (b"q", MONDAY)):
        add(course.root, NAME, "iguales" if data != b"q" else "escribe", data, when)
    add(course.root, NAME, "escribe", b"m", MONDAY - HOUR)
    add(course.root, NAME, "tarde", b"o", MONDAY + 3 * DAY)
    add(course.root, NAME, "tarde", b"p", MONDAY)
    chosen = run(course).chosen
    assert chosen["iguales"].data == b"m"
    assert chosen["tarde"].data == b"p", "0.9 in time is more than 1.0 with 30 % off"
    assert chosen["escribe"].data == b"q", "of equal points, the one with more written answers"
    stamp = course.root / "submitted" / "tarde" / NAME / "timestamp.txt"
    assert stamp.read_text(encoding="utf-8") == "2026-11-02 12:00:00 UTC\n"


def test_attempts_over_the_daily_number_wait_and_are_graded_when_their_turn_comes(course, monkeypatch):
    settings(course, "intentos_por_dia = 2")
    stub_grading(monkeypatch, {bytes([i]): (grading_of(i / 10), 0) for i in range(4)})
    for i in range(4):
        add(course.root, NAME, "ana", bytes([i]), MONDAY + i * HOUR)
    first = run(course, MONDAY + 4 * HOUR)
    assert [a.data for a in first.graded] == [b"\0", b"\1"]
    assert [(a.data, until) for a, until in first.waiting] == [(b"\2", MONDAY + DAY), (b"\3", MONDAY + DAY + HOUR)]
    second = run(course, MONDAY + DAY)
    assert [a.data for a in second.graded] == [b"\2"] and second.chosen["ana"].data == b"\2"
    assert [a.data for a in run(course, MONDAY + 4 * HOUR, unlimited=True).graded] == [b"\3"]


def test_only_what_is_new_is_graded_unless_asked(course, monkeypatch):
    stub_grading(monkeypatch, {b"a": (grading_of(0.5), 0), b"b": (grading_of(1), 0)})
    add(course.root, NAME, "ana", b"a", MONDAY)
    assert len(run(course).graded) == 1 and run(course).graded == []
    add(course.root, NAME, "ana", b"b", MONDAY)
    assert [a.data for a in run(course).graded] == [b"b"]
    assert len(run(course, again=True).graded) == 2


def test_a_new_version_of_the_cases_is_a_new_verdict_and_the_old_one_is_kept(course, monkeypatch):
    stub_grading(monkeypatch, {b"a": (grading_of(0.5), 0)})
    attempt = add(course.root, NAME, "ana", b"a", MONDAY)
    run(course)
    monkeypatch.setattr(calificacion, "harness", lambda assignment: {"version_casos": "99"})
    assert len(run(course).graded) == 1
    assert len(list(attempt.folder.glob("resultado-*.json"))) == 2


def job_for(course, student, data):
    attempt = add(course.root, NAME, student, data, MONDAY)
    return Job(attempt.folder, course.released(NAME), NAME, 7, "ab" * 32, course.root, Isolation("ninguno"), True)


def test_a_process_that_dies_or_hangs_is_that_submission_alone(course, monkeypatch):
    jobs = [job_for(course, name, name.encode()) for name in ("muere", "cuelga", "basura")]
    monkeypatch.setattr(paralelo, "END_S", 1.0)
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: _Fork())
    monkeypatch.setattr(paralelo, "grade_attempt", _misbehave)
    verdicts = {folder.parent.name: verdict for folder, verdict in grade_all(jobs, 2, 5).items()}
    assert verdicts["muere"].provisional and "se detuvo" in verdicts["muere"].problem
    assert verdicts["cuelga"].provisional and "5 s" in verdicts["cuelga"].problem
    assert not verdicts["basura"].provisional and "cuaderno" in verdicts["basura"].problem
    assert all(mark.fraction == 0 for v in verdicts.values() for mark in v.grading.checks.values())


class _Fork:
    """multiprocessing's fork, so that the children see what the test replaced."""

    Process = multiprocessing.get_context("fork").Process

    def set_forkserver_preload(self, names):
        pass


_real = paralelo.grade_attempt


def _misbehave(job):
    if job.folder.parent.name == "muere":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.folder.parent.name == "cuelga":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    return _real(job)


def test_a_provisional_verdict_is_tried_again_and_a_failed_retry_does_not_replace_a_good_one(course, monkeypatch):
    attempt = add(course.root, NAME, "ana", b"a", MONDAY)
    job = Run(course.root, NAME, Options())._job(attempt, Isolation("ninguno"))
    write_verdict(attempt.folder, paralelo.unusable(job, "se cayó", provisional=True))
    stub_grading(monkeypatch, {b"a": (grading_of(1), 0)})
    assert len(run(course).graded) == 1
    monkeypatch.undo()
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: _Fork())
    monkeypatch.setattr(paralelo, "grade_attempt", lambda job: os._exit(9))
    assert run(course, again=True).problems[0][0] == "ana"
    assert not read_verdict(attempt.folder, job.key).provisional


class _Meter:
    """Marks everything with one fraction and counts its uses."""

    def __init__(self, fraction):
        self.fraction, self.uses = fraction, 0

    def measure(self, job):
        self.uses += 1
        if self.fraction is None:
            raise RuntimeError("no hay modelo")
        result = casos.Result("medida", self.fraction == 1, credit=self.fraction)
        return CheckMark((result,), measures={"razon": self.fraction})


@pytest.fixture
def timed(course, monkeypatch):
    """A course whose check ``prueba_veredicto`` is measured by a meter."""
    name, real = "prueba_veredicto", cases_of

    def with_level(notebook, seed):
        prelude, imports, checks = real(notebook, seed)
        check = copy.copy(checks[name])
        object.__setattr__(check, "level", "reloj_real")
        return prelude, imports, {n: (check if n == name else c) for n, c in checks.items() if n == name or not c.level}

    maxima = {n: p for n, p in calificacion.maxima_of(course.released(NAME)).items() if n in with_level(NAME, 1)[2]}
    monkeypatch.setattr(calificacion, "maxima_of", lambda released: maxima)
    for module in (calificacion, paralelo):
        monkeypatch.setattr(module, "cases_of", with_level)
    monkeypatch.setattr("minilab_grading.arnes.calificar.cases_of", with_level)

    def grading(fraction):
        marks = {n: CheckMark((casos.Result("c", fraction == 1, credit=fraction),)) for n in maxima}
        return Grading("bwrap", {**marks, name: CheckMark((casos.Result("c", False),), NOT_MEASURED)})

    return name, grading


def test_meters_run_one_by_one_on_attempts_that_could_still_be_the_best(course, timed, monkeypatch):
    name, grading = timed
    stub_grading(monkeypatch, {b"a": (grading(1), 0), b"b": (grading(0), 0)})
    for data in (b"a", b"b"):
        add(course.root, NAME, "ana", data, MONDAY)
    assert run(course).problems == []
    meter = _Meter(1.0)
    run(course, meters={"reloj_real": meter})
    run(course, meters={"reloj_real": meter})
    assert meter.uses == 1, "the attempt that cannot win is not measured, and nothing is measured twice"
    best = next(a for a in attempts(course.root, NAME) if a.data == b"a")
    mark = read_verdict(best.folder, calificacion.key_of(course.root, best)).grading.checks[name]
    assert mark.measures == {"razon": 1.0} and mark.fraction == 1


def test_a_meter_that_fails_is_said_and_tried_again_and_measures_survive_a_regrade_without_meters(
    course, timed, monkeypatch
):
    name, grading = timed
    stub_grading(monkeypatch, {b"a": (grading(1), 0)})
    attempt = add(course.root, NAME, "ana", b"a", MONDAY)
    assert "no hay modelo" in run(course, meters={"reloj_real": _Meter(None)}).problems[0][1]
    run(course, meters={"reloj_real": _Meter(0.5)})
    run(course, again=True)
    key = calificacion.key_of(course.root, attempt)
    assert read_verdict(attempt.folder, key).grading.checks[name].measures == {"razon": 0.5}
    run(course, again=True, meters={"reloj_real": _Meter(0.25)})
    assert read_verdict(attempt.folder, key).grading.checks[name].measures == {"razon": 0.25}


def _hold(root, ready):
    with Course(root)._alone():
        ready.set()
        time.sleep(60)


def test_two_runs_are_kept_apart_and_a_dead_one_leaves_no_lock(tmp_path):
    course, context = Course(tmp_path), multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready))
    other.start()
    assert ready.wait(20)
    with pytest.raises(CycleError, match="Otra orden está trabajando"):
        course.grade(NAME)
    other.kill()
    other.join()
    assert (tmp_path / LOCK_FILE).exists()
    with pytest.raises(CycleError, match="No hay entregas"):
        course.grade(NAME)


def test_what_nbgrader_collected_is_adopted_once(course, released):
    folder = course.root / "submitted" / "ana" / NAME
    folder.mkdir(parents=True)
    nbformat.write(released, folder / f"{NAME}.ipynb")
    (folder / "timestamp.txt").write_text("2026-11-02 12:00:00 UTC", encoding="utf-8")
    assert calificacion.adopt(course.root, NAME) == ["ana"] and calificacion.adopt(course.root, NAME) == []
    [attempt] = attempts(course.root, NAME)
    assert attempt.when == MONDAY and attempt.origin == "submitted/"
    (folder / "timestamp.txt").write_text("ayer", encoding="utf-8")
    with pytest.raises(CycleError, match="No entiendo la fecha"):
        calificacion.handed_in(folder / f"{NAME}.ipynb")


def test_points_of_the_settings_are_checked_when_an_assignment_is_released(tmp_path):
    create(tmp_path)
    settings(Course(tmp_path), "puntos = 99")
    with pytest.raises(CycleError, match="suma 100 puntos"):
        Course(tmp_path).generate(NAME)


def test_the_record_of_what_was_kept_is_plain_json(tmp_path):
    attempt = add(tmp_path, NAME, "ana", b"x", MONDAY, "ñ.ipynb")
    plain = json.loads((attempt.folder / intentos.DATA).read_text(encoding="utf-8"))
    assert plain["hora"] == "2026-11-02T12:00:00+00:00" and plain["origen"] == "ñ.ipynb"

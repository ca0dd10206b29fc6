"""Published minutes stand on something: the machine, the text and the lines a student writes."""

from __future__ import annotations

import json

import pytest

from minilab import construir, minutos

SOURCES = {minutos.lab_of(source): source for source in construir.sources()}
MEASURED = minutos.load()
NEEDS_FILE = pytest.mark.skipif(not MEASURED, reason="no labs/medidas/tiempos.json: python -m minilab.minutos --mide")


def meta(grade_id: str, **flags) -> str:
    given = {
        "grade": False,
        "grade_id": grade_id,
        "locked": False,
        "schema_version": 3,
        "solution": False,
        "task": False,
    }
    return f"nbgrader={json.dumps(given | flags)}"


NOTEBOOK = f"""\
# %% [markdown]
# # Lab
#
# **Tiempo:** 30 minutos. **Pista corta:** 10 minutos.
#
# {"palabra " * (minutos.READ_PER_MINUTE * 2)}

# %% {meta("f", solution=True)}
def f():
    ### BEGIN SOLUTION
    # a comment is not counted
    x = 1

    return x
    ### END SOLUTION

# %% {meta("c", grade=True, locked=True, points=100)}
f()

# %% [markdown] {meta("e", grade=True, solution=True, points=0)}
# one two three
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "L99_lab.py"
    path.write_text(NOTEBOOK, encoding="utf-8")
    return path


def test_the_estimate_is_machine_plus_reading_plus_writing(source):
    e = minutos.estimate(source, {"laboratorios": {"L99": {"rapido": 30.0, "completo": 120.0}}})
    assert (e.lab, e.published, e.machine) == ("L99", 30, 2.0)
    assert e.reading == pytest.approx(2.0, abs=0.1)
    assert e.writing == pytest.approx(2 * minutos.MINUTES_PER_LINE + 3 / minutos.WRITE_PER_MINUTE)
    assert e.floor == e.machine + e.reading
    assert minutos.published(construir.instructor(source), minutos.SHORT_TIME) == 10


def test_a_lab_that_was_not_measured_says_so(source):
    assert minutos.estimate(source, {}).machine is None
    assert "| L99 | 30 | – |" in minutos.table([source], {})


def test_a_measure_of_another_version_is_marked(source):
    old = {"laboratorios": {"L99": {"rapido": 1.0, "completo": 60.0, "fuente": "other"}}}
    assert "| L99 | 30 | 1.0 (otra versión) |" in minutos.table([source], old)


def test_a_notebook_without_minutes_is_refused(source):
    source.write_text(source.read_text(encoding="utf-8").replace("Tiempo", "Duración"), encoding="utf-8")
    with pytest.raises(ValueError, match="Tiempo"):
        minutos.estimate(source, {})


def test_measuring_runs_both_modes_and_writes_where_and_when(source, tmp_path, monkeypatch):
    seconds = {"rapido": 1.04, "completo": 2.0}
    monkeypatch.setattr(minutos, "run_seconds", lambda given, mode: seconds[mode])
    monkeypatch.setenv("MINILAB_MODELO", "mini")
    target = tmp_path / "medidas" / "tiempos.json"
    minutos.measure([source], target)
    data = json.loads(target.read_text(encoding="utf-8"))
    assert data["laboratorios"]["L99"] == {"rapido": 1.0, "completo": 2.0, "fuente": minutos.fingerprint(source)}
    assert data["modelo"] == "modelo-mini" and data["orden"].endswith("--mide")
    assert {"cpu", "cores", "threads", "packages"} <= set(data["entorno"])


@pytest.mark.parametrize("lab", SOURCES)
def test_published_minutes_leave_room_for_the_machine_and_for_reading(lab):
    e = minutos.estimate(SOURCES[lab], MEASURED)
    assert e.published >= e.floor, f"{lab}: {e.published} minutes, {e.floor:.0f} go to the machine and to reading"
    whole = e.floor + e.writing
    assert whole / minutos.FACTOR <= e.published <= whole * minutos.FACTOR, (
        f"{lab}: {e.published}, estimate {whole:.0f}"
    )


@NEEDS_FILE
def test_every_lab_was_measured_with_the_real_model():
    assert set(MEASURED["laboratorios"]) >= set(SOURCES)
    assert MEASURED["modelo"] != "modelo-mini"
    assert all(times["rapido"] > 0 and times["completo"] > 0 for times in MEASURED["laboratorios"].values())


def test_readers_are_told_that_nobody_was_timed():
    for page in ("README.md", "docentes/README.md", "docentes/calendario.md"):
        text = " ".join((construir.LABS / page).read_text(encoding="utf-8").lower().split())
        assert "nadie se ha cronometrado" in text or "ningún grupo de personas ha hecho" in text, page

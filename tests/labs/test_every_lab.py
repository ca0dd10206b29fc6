"""What every lab promises: its parts, its checks, and that it runs from top to bottom."""

from __future__ import annotations

import csv
import re

import pytest
from cell_outputs import on_stderr, shown
from lab_parts import LABS, NUMBERED, defined_by, graded, minutes_of, solutions_of, text_of

from minilab.comprobar import comprobar
from minilab.pruebas.publicas import CHECKS, checks_of
from minilab_grading.casos import cases_of

SHORT_TRACK = [lab for lab in NUMBERED if lab[:3] in ("L00", "L01", "L02", "L08")]
SECTIONS = ["Preparación", "Idea", "Predice", "Construye", "Mira", "Compara", "Rompe", "Explica", "Autoevaluación"]
RESERVED = ("06", "10", "11", "12")


def real_model_here() -> bool:
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

    try:
        resolve_model(DEFAULT_MODEL)
    except ConfigError:
        return False
    return True


def test_the_labs_have_their_numbers_and_four_places_are_kept():
    numbers = [lab[1:3] for lab in NUMBERED]
    assert numbers == ["00", "01", "02", "03", "04", "05", "07", "08", "09"]
    assert not set(numbers) & set(RESERVED)
    assert LABS[-1] == "P_sirve_y_demuestralo"


@pytest.mark.parametrize("lab", NUMBERED)
def test_a_lab_has_all_its_parts_in_order(solved, lab):
    notebook = solved(lab)
    text = text_of(notebook)
    headings = re.findall(r"^## (?:\d · )?(\w+)", text, re.MULTILINE)
    assert [h for h in headings if h in SECTIONS] == SECTIONS
    assert text.startswith("# ") and "Al terminar puedes" in text and minutes_of(notebook) > 0
    points = [c.metadata.nbgrader for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")]
    written = sum(meta.points for meta in points if meta.solution)
    assert 15 <= written <= 20 and points[0].points == 5, "a prediction of 5 points, 15 to 20 for what is written"
    assert any("anota(" in c.source for c in notebook.cells if c.cell_type == "code"), "no row in bitacora.csv"


@pytest.mark.parametrize("lab", LABS)
def test_every_outcome_names_checks_of_the_lab_and_every_check_has_an_outcome(solved, lab):
    notebook = solved(lab)
    outcomes = re.search(r"^\| Resultado .*\n\|[-| :]+\n((?:\|.*\n?)+)", text_of(notebook), re.MULTILINE)[1]
    named = {name for row in outcomes.splitlines() for name in re.findall(r"`(\w+)`", row.rpartition(" | ")[2])}
    checks = set(graded(notebook).values())
    assert named - {"explica"} <= checks, f"named and not checked: {named - checks}"
    assert {name for name in checks - named if not name.startswith("prediccion")} == set()


@pytest.mark.parametrize("lab", LABS)
def test_every_check_has_public_and_hidden_cases(solved, lab):
    _, _, hidden = cases_of(lab, 0)
    assert set(graded(solved(lab))) == set(hidden)
    assert set(graded(solved(lab)).values()) <= set(CHECKS)
    for grade_id, name in graded(solved(lab)).items():
        assert CHECKS[name] is checks_of(lab[:3].lower() if lab != LABS[-1] else "p")[name]
        assert hidden[grade_id].cases, grade_id


@pytest.mark.parametrize("lab", LABS)
def test_the_reference_passes_the_public_checks(solved, lab):
    cells = solutions_of(solved(lab))
    for name in graded(solved(lab)).values():
        check = CHECKS[name]
        function = defined_by(lab, cells, check.cells)[check.function]
        assert "públicas superadas" in repr(comprobar(name, function))


@pytest.mark.parametrize("lab", NUMBERED)
def test_the_solved_lab_runs_from_top_to_bottom(solved, execute, tmp_path, lab):
    """On the real model where it is, quick; within twice the published minutes; nothing on stderr."""
    notebook = solved(lab)
    names = set(graded(notebook).values())
    done = execute(notebook, 2 * minutes_of(notebook), tiny=not real_model_here())
    assert on_stderr(done) == []
    text = shown(done)
    assert text.count("públicas superadas") == len(names)
    assert "Modo rápido" in text and ("Modelo real" in text) == real_model_here()
    with (tmp_path / "bitacora.csv").open(encoding="utf-8") as ledger:
        rows = list(csv.DictReader(ledger))
    assert rows and {row["lab"] for row in rows} == {lab[:3]}
    assert all(float(row["esperado"]) == float(row["esperado"]) and row["unidad"] for row in rows)


@pytest.mark.parametrize("lab", SHORT_TRACK)
def test_the_short_track_runs_on_its_own(solved, execute, lab):
    """Only the cells tagged ``corta``: what an 80-minute class does."""
    notebook = solved(lab)
    minutes = int(re.search(r"\*\*Pista corta:\*\* (\d+) minutos", text_of(notebook))[1])
    notebook.cells = [c for c in notebook.cells if c.cell_type == "markdown" or "corta" in c.metadata.get("tags", [])]
    assert any(c.metadata.get("nbgrader", {}).get("grade") for c in notebook.cells if c.cell_type == "code")
    done = execute(notebook, 2 * minutes, tiny=not real_model_here())
    assert on_stderr(done) == []


def test_the_short_tracks_fit_one_class_of_eighty_minutes(solved):
    minutes = [int(re.search(r"\*\*Pista corta:\*\* (\d+) minutos", text_of(solved(lab)))[1]) for lab in SHORT_TRACK]
    assert len(minutes) == 4 and sum(minutes) <= 80

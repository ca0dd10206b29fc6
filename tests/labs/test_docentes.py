"""The instructor kit: complete, true to the notebooks, and out of what students get."""

from __future__ import annotations

import io
import re
import zipfile
from functools import cache

import nbformat
import pytest
from setuptools import Distribution

from minilab import construir, minutos
from minilab.pruebas.publicas import checks_of
from minilab.textos import prosa
from minilab_grading import entregas
from minilab_grading.casos import cases_of
from minilab_grading.ciclo import Course
from minilab_grading.curso import ensayo

KIT = construir.LABS / "docentes"
SHORT_CLASS = {"L00", "L01", "L02", "L08", "L10"}
SOURCES = {minutos.lab_of(source): source for source in construir.sources()}
CALENDAR = KIT / "calendario.md"
SECTIONS = [
    "Plan de cinco minutos",
    "Respuestas equivocadas frecuentes",
    "Dibujo en la pizarra",
    "Rúbrica",
    "Respuestas",
    "Si falta tiempo",
    "Preguntas que harán",
]
NAMED = re.compile(r"`(\w+)`")
PRICED = re.compile(r"`(\w+)`(?: \| | )(\d+)\b")


@cache
def notebook_of(lab: str):
    return construir.instructor(SOURCES[lab])


def points_of(lab: str) -> dict[str, float]:
    """Name of each check -> its points; the written answers under ``explica``."""
    points: dict[str, float] = {}
    for cell in notebook_of(lab).cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade"):
            called = re.search(r'comprobar\("(\w+)"', cell.source)
            name = called[1] if called and cell.cell_type == "code" else "explica"
            points[name] = points.get(name, 0) + meta["points"]
    return points


def sections_of(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def tables_of(text: str) -> list[list[list[str]]]:
    """Each Markdown table as rows of cells, its header first and the ruler left out."""
    tables = re.findall(r"(?:^\|.*\|\n)+", text + "\n", re.MULTILINE)
    rows = [[[c.strip() for c in line.strip("|").split("|")] for line in t.splitlines()] for t in tables]
    return [[row for row in table if not re.fullmatch(r"[-: ]+", "".join(row))] for table in rows]


def page_of(lab: str) -> str:
    path = KIT / f"{lab}.md"
    assert path.is_file(), f"{SOURCES[lab].name} has no page {path.name}"
    return path.read_text(encoding="utf-8")


# --- the pages of the labs ---


def test_the_kit_is_complete():
    pages = {path.name for path in KIT.glob("*.md")}
    general = {"README.md", "calendario.md", "ia.md", "rubrica.md", "plantilla.md"}
    assert general <= pages
    assert pages - general <= {f"{lab}.md" for lab in SOURCES}, "a page without a notebook"
    assert list(sections_of((KIT / "plantilla.md").read_text(encoding="utf-8")))[1:] == SECTIONS


@pytest.mark.parametrize("lab", SOURCES)
def test_a_page_has_its_sections_in_order(lab):
    found = sections_of(page_of(lab))
    assert [title for title in found if title in SECTIONS] == SECTIONS
    empty = [title for title in SECTIONS if len(found[title].split()) < 15]
    assert empty == [], f"{lab}.md: almost nothing under {empty}"
    assert len(page_of(lab).splitlines()) <= 160


@pytest.mark.parametrize("lab", SOURCES)
def test_every_check_that_catches_a_wrong_answer_exists(lab):
    [table] = tables_of(sections_of(page_of(lab))["Respuestas equivocadas frecuentes"])
    _, _, hidden = cases_of(SOURCES[lab].stem, 0)
    known = {*checks_of(lab.lower()), *hidden, *(check.name for check in hidden.values())}
    assert len(table) > 5
    for row in table[1:]:
        names = NAMED.findall(row[-1])
        assert names, f"{lab}.md: «{row[0]}» names no check"
        assert set(names) <= known, f"{lab}.md: «{row[0]}»: {set(names) - known} is no check of this lab"


@pytest.mark.parametrize("lab", SOURCES)
def test_points_and_minutes_are_those_of_the_notebook(lab):
    head, text, points = sections_of(page_of(lab))[""], sections_of(page_of(lab))["Rúbrica"], points_of(lab)
    said = re.search(r"(\d+) minutos", head)
    assert said and int(said[1]) == minutos.published(notebook_of(lab)), f"{lab}.md: minutes at its head"
    if short := re.search(r"corta\D{1,6}(\d+)", head):
        assert int(short[1]) == minutos.published(notebook_of(lab), minutos.SHORT_TIME)
    wrong = {name: value for name, value in PRICED.findall(text) if name in points and points[name] != int(value)}
    assert wrong == {}, f"{lab}.md: the notebook gives {points}"
    table = tables_of(text)[0]
    column = table[0].index("Puntos")
    assert sum(int(row[column]) for row in table[1:]) == 100 == sum(points.values())


# --- the calendar ---


def published(lab: str, short: bool) -> int | None:
    return minutos.published(notebook_of(lab), minutos.SHORT_TIME if short else minutos.TIME)


def test_the_calendar_gives_each_lab_the_minutes_that_its_notebook_says():
    wrong, seen = [], set()
    for title, text in sections_of(CALENDAR.read_text(encoding="utf-8")).items():
        for table in tables_of(text):
            block, column = table[0].index("Bloque"), table[0].index("Minutos")
            for row in table[1:]:
                lab = row[block]
                if lab in SOURCES and int(row[column]) != published(lab, short := title.startswith("La clase")):
                    wrong.append(f"{title}: {lab} {row[column]}, the notebook says {published(lab, short)}")
                seen.add((title.startswith("La clase"), lab))
    assert wrong == []
    assert {lab for short, lab in seen if not short} >= set(SOURCES), "a lab is in no calendar"
    assert {lab for short, lab in seen if short} & set(SOURCES) == SHORT_CLASS & set(SOURCES)


def test_the_totals_of_the_calendar_add_up():
    totals = 0
    for table in (t for text in sections_of(CALENDAR.read_text(encoding="utf-8")).values() for t in tables_of(text)):
        column = table[0].index("Minutos")
        if "Total" in table[-1][0]:
            totals += 1
            assert int(table[-1][column].strip("*")) == sum(int(row[column]) for row in table[1:-1])
    assert totals == 2


def test_no_session_is_longer_than_its_length():
    texts = sections_of(CALENDAR.read_text(encoding="utf-8"))
    for title, limit in (("Dos semanas", 140), ("Un semestre", 140)):
        [table] = tables_of(texts[title])
        assert max(int(row[table[0].index("Minutos")]) for row in table[1:]) <= limit
    [short] = tables_of(texts["La clase de 80 minutos"])
    assert int(short[-1][-1].strip("*")) <= 80


def test_the_students_page_lists_every_lab_with_its_minutes_and_keeps_four_places():
    [labs] = [t for t in tables_of((construir.LABS / "README.md").read_text(encoding="utf-8")) if t[0][0] == "Número"]
    listed = {row[0]: (row[2], row[3]) for row in labs[1:]}
    assert list(listed) == [*(f"L{n:02d}" for n in range(13)), "P"]
    ready = {lab: (str(published(lab, short=False)), "listo") for lab in SOURCES}
    assert listed == {lab: ready.get(lab, ("–", "en preparación")) for lab in listed}


# --- what students get ---


def secrets() -> set[str]:
    """Lines that no student's file may hold: of the solutions, of these pages and of the hidden cases."""
    lines: set[str] = set()
    for source in construir.sources():
        for block in re.findall(r"BEGIN SOLUTION(.*?)END SOLUTION", source.read_text(encoding="utf-8"), re.DOTALL):
            lines |= {line.strip("# ").strip() for line in block.splitlines()}
    kept = [*KIT.glob("*.md"), *(prosa.ROOT / "grading/casos").glob("*.py")]
    lines |= {line.strip() for path in kept for line in path.read_text(encoding="utf-8").splitlines()}
    return {line for line in lines if len(line) > 40}


@pytest.mark.parametrize("lab", SOURCES)
def test_what_is_handed_out_holds_a_notebook_and_a_letter_and_no_secret(lab, tmp_path):
    name = SOURCES[lab].stem
    course = Course(tmp_path / "curso", unisolated=True)
    course.generate(name)
    package = tmp_path / "release.zip"
    package.write_bytes(entregas.release_zip(tmp_path / "curso", name))
    with zipfile.ZipFile(package) as archive:
        assert set(archive.namelist()) == {f"{name}/LEEME.txt", f"{name}/{name}.ipynb"}
        given = {line.strip("# ").strip() for line in lines_of(archive, f"{name}/{name}.ipynb")}
        given |= set(archive.read(f"{name}/LEEME.txt").decode().splitlines())
    assert secrets() & given <= shared_on_purpose(lab)


def lines_of(archive: zipfile.ZipFile, member: str) -> list[str]:
    notebook = nbformat.reads(archive.read(member).decode(), 4)
    return [line for cell in notebook.cells for line in cell.source.splitlines()]


def shared_on_purpose(lab: str) -> set[str]:
    """What the notebook itself says outside its solutions (a code line may be both given and written)."""
    text = SOURCES[lab].read_text(encoding="utf-8")
    outside = re.sub(r"### BEGIN SOLUTION.*?### END SOLUTION", "", text, flags=re.DOTALL)
    return {line.strip("# ").strip() for line in outside.splitlines()}


def test_the_rehearsals_zip_of_ten_holds_submissions_and_nothing_else(tmp_path):
    name = SOURCES["P"].stem
    course = Course(tmp_path / "curso", unisolated=True)
    course.generate(name)
    stories = [(f"alumno{n:02d}", ensayo.STORIES[n % len(ensayo.STORIES)]) for n in range(10)]
    with zipfile.ZipFile(io.BytesIO(ensayo.submissions(course.released(name), name, stories))) as archive:
        assert all(re.fullmatch(rf"[\w-]+/{name}\.ipynb", member) for member in archive.namelist())


def test_the_installed_package_leaves_the_kit_and_the_sources_out(tmp_path, monkeypatch):
    """What setuptools would put into a wheel: neither labs/fuente nor labs/docentes."""
    monkeypatch.chdir(prosa.ROOT)
    distribution = Distribution({"script_name": "setup.py", "script_args": []})
    distribution.parse_config_files()
    distribution.include_package_data = False  # it would write an egg-info; without MANIFEST.in it adds nothing
    assert not (prosa.ROOT / "MANIFEST.in").exists()
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    command.build_lib = str(tmp_path)
    modules = {path for *_, path in command.find_all_modules()}
    data = {f"{folder}/{name}" for _, folder, _, names in command.data_files for name in names}
    assert any(path.replace("\\", "/").endswith("labs/minilab/comprobar.py") for path in modules)
    kept_out = [f for f in modules | data if re.search(r"labs.(fuente|docentes|cuadernos)", f)]
    assert kept_out == []

"""Exports: everybody listed, pending told from 0, text that no spreadsheet runs, and what other programs expect."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbgrader.api import Gradebook
from nbgrader.apps.exportapp import ExportApp

from minilab_grading.curso import CycleError
from minilab_grading.curso.carpeta import COURSE_ID
from minilab_grading.exportar import (
    WORKSHEET,
    ExportadorCanvas,
    ExportadorCSV,
    ExportadorMoodle,
    Sheet,
    canvas_rows,
    export,
    gradebook_rows,
    guarded,
    people_of,
    plain_rows,
    read_marks,
    worksheet_rows,
)

TASK = "P_demo"
ROSTER = '''id,nombre,apellidos,correo,moodle_id,canvas_id
ana,"Ana, María",Núñez,ana@x.org,101,9001
eva,Eva,"=cmd|'/c calc'!A1",eva@x.org,102,9002
leo,Leo,Ibáñez,leo@x.org,103,9003
sol,"Sol ""la rápida""",Ñu,sol@x.org,104,9004
'''


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """ana: all read, late. eva: the answer is unread. leo: handed in nothing. sol: all automatic, a 0 that was read."""
    root = tmp_path_factory.mktemp("curso")
    (root / "alumnos.csv").write_text(ROSTER, encoding="utf-8-sig")
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", COURSE_ID) as book, book.db.no_autoflush:
        book.add_assignment(TASK, duedate=datetime(2026, 3, 1))
        book.add_notebook(TASK, TASK)
        book.add_grade_cell("prueba_uno", TASK, TASK, max_score=90, cell_type="code")
        book.add_grade_cell("explica", TASK, TASK, max_score=10, cell_type="markdown")
        for student, automatic, manual, penalty in (
            ("ana", 72.5, 8.0, 2.5), ("eva", 40.0, None, None), ("sol", 90.0, 0.0, None)
        ):  # fmt: skip
            book.add_student(student)
            submission = book.add_submission(TASK, student)
            submission.timestamp = datetime(2026, 3, 1, 0, 30)
            notebook = submission.notebooks[0]
            notebook.late_submission_penalty = penalty
            for grade in notebook.grades:
                if grade.name == "prueba_uno":
                    grade.auto_score, grade.needs_manual_grade = automatic, False
                else:
                    grade.manual_score, grade.needs_manual_grade = manual, manual is None
        book.db.commit()
    return root


@pytest.fixture
def course(made_once, tmp_path):
    return shutil.copytree(made_once, tmp_path / "curso")


@pytest.fixture
def marks(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", COURSE_ID) as book:
        return read_marks(book, TASK, people_of(course))


def read(data: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def table(data: bytes, key: str, delimiter: str = ",") -> dict[str, dict[str, str]]:
    header, *rows = read(data, delimiter)
    assert all(len(row) == len(header) for row in rows)
    return {row[header.index(key)]: dict(zip(header, row, strict=True)) for row in rows}


def test_everybody_is_listed_and_pending_is_not_zero(marks):
    rows = table(Sheet().write(plain_rows(marks)), "alumno")
    assert set(rows) == {"ana", "eva", "leo", "sol"}
    assert rows["ana"]["calificacion"] == "78.00" and rows["ana"]["estado"] == "calificada"
    assert rows["ana"]["penalizacion"] == "2.50" and rows["ana"]["retraso_s"] == "1800"
    eva = rows["eva"]
    assert (eva["calificacion"], eva["estado"], eva["pendiente"]) == ("", "pendiente de leer", "explica")
    assert eva["automatico"] == "40.00" and eva["explica"] == "" and eva["prueba_uno"] == "40.00"
    assert (rows["leo"]["calificacion"], rows["leo"]["estado"], rows["leo"]["automatico"]) == ("", "sin entrega", "")
    assert rows["sol"]["calificacion"] == "90.00" and rows["sol"]["explica"] == "0.00", "a 0 that was read is a 0"
    assert {row["maximo"] for row in rows.values()} == {"100.00"}


def test_moodle_worksheet_has_moodles_columns_and_states(marks):
    rows = table(Sheet().write(worksheet_rows(marks)), "Identificador")
    assert tuple(rows["Participante 101"]) == WORKSHEET
    assert rows["Participante 101"]["Calificación"] == "78.00"
    assert rows["Participante 101"]["Nombre completo"] == "Ana, María Núñez"
    eva = rows["Participante 102"]
    assert eva["Calificación"] == "" and "pendiente de leer: explica" in eva["Comentarios de retroalimentación"]
    assert rows["Participante 103"]["Estado"] == "No entregado" and rows["Participante 103"]["Calificación"] == ""
    assert "por retraso: −2,5" in rows["Participante 101"]["Comentarios de retroalimentación"]


def test_moodle_gradebook_import_finds_people_by_address(marks):
    rows = table(Sheet().write(gradebook_rows(marks)), "Dirección de correo")
    assert rows["ana@x.org"][TASK] == "78.00" and rows["leo@x.org"][TASK] == ""


def test_canvas_has_its_columns_and_the_row_of_points_possible(marks):
    header, points, *rows = read(Sheet().write(canvas_rows(marks, "555")))
    assert header == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", f"{TASK} (555)"]
    assert points == ["    Points Possible", "", "", "", "", "100.00"]
    scores = {row[1]: row[5] for row in rows}
    assert scores == {"9001": "78.00", "9002": "", "9003": "", "9004": "90.00"}
    assert "Núñez, Ana, María" in [row[0] for row in rows]


def test_names_come_back_as_they_were_but_for_formulas(marks):
    rows = table(Sheet().write(plain_rows(marks)), "alumno")
    assert rows["ana"]["nombre"] == "Ana, María" and rows["sol"]["nombre"] == 'Sol "la rápida"'
    assert rows["eva"]["apellidos"] == "'=cmd|'/c calc'!A1"
    odd = replace(marks[0], person=replace(marks[0].person, nombre='a\n"b";c,d', apellidos="ñ\r\ne"))
    (row,) = table(Sheet().write(plain_rows([odd])), "alumno").values()
    assert row["nombre"] == 'a\n"b";c,d' and row["apellidos"] == "ñ\r\ne"


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "  =1", '"=1', "'=1", "\n=1", "＝1", " '\" @x", "\tx"]
)
def test_a_text_that_looks_like_a_formula_is_made_plain(text):
    assert guarded(text) == "'" + text


@pytest.mark.parametrize(
    "text", ["", "Ana", "-5", "+3.5", "-2,5", "a=b", "x-y@z.org", "100 %", "ñ", "    Points Possible"]
)
def test_other_text_and_numbers_stay_as_they_are(text):
    assert guarded(text) == text


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=2, max_size=4)))
def test_any_text_survives_a_round_trip_and_none_leads_to_a_formula(rows):
    for sheet, delimiter in ((Sheet(), ","), (Sheet(bom=True, decimal_comma=True), ";")):
        back = read(sheet.write(rows), delimiter)
        assert back == [[guarded(v) for v in row] for row in rows]
        assert not any(v[:1] in ("=", "+", "-", "@", "\t", "\r") and not v[1:2].isdigit() for row in back for v in row)


def test_byte_order_mark_and_decimal_comma_are_options(marks):
    plain, spanish = Sheet().write(plain_rows(marks)), Sheet(bom=True, decimal_comma=True).write(plain_rows(marks))
    assert not plain.startswith(b"\xef\xbb\xbf") and spanish.startswith(b"\xef\xbb\xbf")
    assert spanish.count(b"\r\n") == plain.count(b"\r\n") == 5
    assert table(spanish, "alumno", ";")["ana"]["automatico"] == "72,50"


def test_a_course_folder_is_exported_by_name(course):
    written = export(course, TASK, "moodle")
    assert written.parent == course / "notas"
    assert table(written.read_bytes(), "Identificador")["Participante 101"]["Calificación"] == "78.00"
    target = course / "otra" / "notas.csv"
    assert export(course, TASK, "canvas", target, Sheet(decimal_comma=True)) == target
    assert read(target.read_bytes(), ";")[1][5] == "100,00"
    with pytest.raises(CycleError, match="csv, moodle, canvas"):
        export(course, TASK, "excel")
    with pytest.raises(CycleError, match=TASK):
        export(course, "no_existe", "csv")
    (course / "alumnos.csv").write_text("nombre\nAna\n", encoding="utf-8")
    with pytest.raises(CycleError, match=r"alumnos\.csv"):
        export(course, TASK, "csv")


@pytest.mark.parametrize("kind", [ExportadorCSV, ExportadorMoodle, ExportadorCanvas])
def test_nbgrader_export_runs_the_plugins(course, kind, monkeypatch):
    monkeypatch.chdir(course)
    ExportApp.clear_instance()
    name = f"minilab_grading.exportar.{kind.__name__}"
    options = [f"--ExportApp.plugin_class={name}", "--to=salida.csv", f"--db=sqlite:///{course / 'gradebook.db'}"]
    ExportApp.launch_instance([*options, f"--course={COURSE_ID}", f"--{kind.__name__}.coma_decimal=True"])
    rows = read((course / "salida.csv").read_bytes(), ";")
    assert len(rows) == (6 if kind is ExportadorCanvas else 5) and any("78,00" in row for row in rows)
    ExportApp.clear_instance()


def test_a_plugin_refuses_what_it_cannot_do(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", COURSE_ID) as book:
        with pytest.raises(CycleError, match="nadie"):
            ExportadorCSV(student=["nadie"], to=str(course / "x.csv")).export(book)
        ExportadorMoodle(student=["ana"], variante="libro", to=str(course / "x.csv")).export(book)
        assert len(read((course / "x.csv").read_bytes())) == 2
        book.add_assignment("otra")
        with pytest.raises(CycleError, match="--assignment"):
            ExportadorCSV(to=str(course / "x.csv")).export(book)

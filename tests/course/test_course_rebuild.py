"""Whatever happens to a student's copy, the rebuilt notebook is the release with their answers in it."""

from __future__ import annotations

import copy

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.nbgraderformat import MetadataValidator
from notebook_cells import PERCENTIL, at, data_of, put

from minilab.entrega import (
    InvalidSubmission,
    read_submission,
    rebuild,
)
from minilab.entrega.ranuras import slots_of

ASSIGNMENT = "P_sirve_y_demuestralo"
MIDE = "async def mide_una(cliente, modelo, prompt, max_tokens, reloj):\n    return {}"
LANZA = "async def lanza_todas(cliente, modelo, prompts, max_tokens, reloj):\n    return []"
EXPLICA = "Mi predicción falló porque el lote comparte cada lectura de los pesos."


def drop(notebook, *grade_ids):
    gone = [at(notebook, g) for g in grade_ids]
    notebook.cells = [c for c in notebook.cells if not any(c is g for g in gone)]


def strip(cell, identifier="suelta"):
    cell.metadata, cell.id = nbformat.NotebookNode(), identifier
    return cell


def after(notebook, grade_id, *cells):
    place = next(i for i, c in enumerate(notebook.cells) if c is at(notebook, grade_id))
    notebook.cells[place + 1 : place + 1] = cells


def check_result(rebuilt, released):
    """Valid, complete, and with the release's own cells and metadata but for the answers."""
    nbformat.validate(rebuilt)
    MetadataValidator().validate_nb(rebuilt)
    own = [c for c in rebuilt.cells if not c.metadata.get("minilab_anadida")]
    assert [(c.id, c.cell_type, c.metadata) for c in own] == [(c.id, c.cell_type, c.metadata) for c in released.cells]
    for got, expected in zip(own, released.cells, strict=True):
        assert got.source == expected.source or expected.metadata.get("nbgrader", {}).get("solution")
    assert all(c.metadata == {"minilab_anadida": True} for c in rebuilt.cells if c not in own)
    again, _ = rebuild(read_submission(data_of(rebuilt)), released)
    assert again == rebuilt


def after_damage(damage, submission, released):
    notebook = submission({"percentil": PERCENTIL, "cliente": f"{MIDE}\n\n\n{LANZA}", "explica": EXPLICA})
    damage(notebook)
    before = copy.deepcopy(released)
    rebuilt, notices = rebuild(read_submission(data_of(notebook)), released)
    assert released == before
    check_result(rebuilt, released)
    return rebuilt, {(n.code, n.grade_id) for n in notices}


def nothing(notebook):
    pass


def lost_metadata(notebook):
    strip(at(notebook, "percentil"))


def lost_id_alone(notebook):
    at(notebook, "percentil").id = "otra"


def lost_metadata_alone(notebook):
    at(notebook, "percentil").metadata = nbformat.NotebookNode()


def retyped_to_raw(notebook):
    put(notebook, "percentil", cell_type="raw")


def retyped_without_metadata(notebook):
    strip(at(notebook, "percentil")).cell_type = "markdown"


def stub_first_then_copy(notebook):
    filled = copy.deepcopy(at(notebook, "percentil"))
    put(notebook, "percentil", source="def percentil(valores, p):\n    raise NotImplementedError('Falta implementar')")
    after(notebook, "percentil", filled)


def copied(notebook):
    after(notebook, "percentil", copy.deepcopy(at(notebook, "percentil")))


def two_answers(notebook):
    other = copy.deepcopy(at(notebook, "percentil"))
    other.source = "def percentil(valores, p):\n    return 7"
    after(notebook, "percentil", other)


def answer_in_a_new_cell(notebook):
    after(notebook, "resume", new_code_cell(PERCENTIL, id="nueva"))
    drop(notebook, "percentil")


def answer_in_the_check_cell(notebook):
    put(notebook, "prueba_percentil", source=f'{PERCENTIL}\n\ncomprobar("percentil")')
    drop(notebook, "percentil")


def merged_with_the_next_answer(notebook):
    put(notebook, "resume", source=f"{PERCENTIL}\n\n\ndef resume(peticiones):\n    return {{}}")
    drop(notebook, "percentil")


def merged_with_its_check(notebook):
    put(notebook, "percentil", source=f'{PERCENTIL}\ncomprobar("percentil", percentil)')
    drop(notebook, "prueba_percentil")


def check_deleted(notebook):
    drop(notebook, "prueba_percentil")


def check_edited(notebook):
    put(notebook, "prueba_percentil", source="10.0")


def check_retyped(notebook):
    put(notebook, "prueba_percentil", cell_type="markdown")


def points_and_flags_forged(notebook):
    at(notebook, "prueba_percentil").metadata.nbgrader.update(points=90, locked=False, schema_version="x")
    at(notebook, "percentil").metadata.update(deletable=True, nbgrader={"grade_id": "percentil", "grade": True})


def moved_to_the_end(notebook):
    cell = at(notebook, "percentil")
    drop(notebook, "percentil")
    notebook.cells.append(cell)


def magics_around(notebook):
    put(notebook, "percentil", source=f"%time 1\n{PERCENTIL}\n!ls")


def worksheet(notebook):
    cells = copy.deepcopy(notebook.pop("cells"))
    for cell in cells:
        if cell.cell_type == "code":
            cell["input"] = cell.pop("source")
        del cell["id"]
    notebook.update(nbformat=3, nbformat_minor=0, worksheets=[{"cells": cells}])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (nothing, set()),
        (worksheet, set()),
        (lost_metadata, {("recuperada", "percentil")}),
        (lost_id_alone, set()),
        (lost_metadata_alone, set()),
        (retyped_to_raw, {("tipo", "percentil")}),
        (retyped_without_metadata, {("recuperada", "percentil")}),
        (stub_first_then_copy, {("duplicada", "percentil")}),
        (copied, {("duplicada", "percentil")}),
        (two_answers, {("duplicada", "percentil")}),
        (answer_in_a_new_cell, {("recuperada", "percentil")}),
        (answer_in_the_check_cell, {("recuperada", "percentil"), ("restaurada", "prueba_percentil")}),
        (merged_with_the_next_answer, {("recuperada", "percentil")}),
        (merged_with_its_check, {("union", "percentil"), ("falta", "prueba_percentil")}),
        (check_deleted, {("falta", "prueba_percentil")}),
        (check_edited, {("restaurada", "prueba_percentil")}),
        (check_retyped, {("tipo", "prueba_percentil")}),
        (points_and_flags_forged, set()),
        (moved_to_the_end, set()),
        (magics_around, {("magia", "percentil")}),
    ],
)
def test_damage_is_undone_and_told(damage, expected, submission, released):
    rebuilt, notices = after_damage(damage, submission, released)
    assert notices == expected
    namespace: dict = {}
    exec(at(rebuilt, "percentil").source, namespace)
    assert namespace["percentil"]([3, 1], 50) == 1
    assert at(rebuilt, "explica").source == EXPLICA


def test_functions_of_one_answer_in_two_cells_are_joined(submission, released):
    def split(notebook):
        put(notebook, "cliente", source=MIDE)
        second = copy.deepcopy(at(notebook, "cliente"))
        second.source = LANZA
        after(notebook, "cliente", second)

    rebuilt, notices = after_damage(split, submission, released)
    assert MIDE in at(rebuilt, "cliente").source and LANZA in at(rebuilt, "cliente").source
    assert ("partida", "cliente") in notices


def test_stub_in_a_later_cell_never_overrides_what_is_done(submission, released):
    stub = "    raise NotImplementedError('Falta implementar')"

    def crossed(notebook):
        second = copy.deepcopy(at(notebook, "cliente"))
        put(notebook, "cliente", source=f"{MIDE}\n\n\n{LANZA.splitlines()[0]}\n{stub}")
        second.source = f"{MIDE.splitlines()[0]}\n{stub}\n\n\n{LANZA}"
        after(notebook, "cliente", second)

    rebuilt, notices = after_damage(crossed, submission, released)
    answer = at(rebuilt, "cliente").source
    assert MIDE in answer and answer.count("def mide_una") == 1 and ("duplicada", "cliente") in notices
    assert any(LANZA in c.source for c in rebuilt.cells if c.metadata.get("minilab_anadida"))


def test_written_copy_that_is_answered_wins_over_the_blank_one_before_it(submission, released):
    def blank_first(notebook):
        filled = copy.deepcopy(at(notebook, "explica"))
        put(notebook, "explica", source=at(released, "explica").source)
        after(notebook, "explica", filled)

    rebuilt, notices = after_damage(blank_first, submission, released)
    assert at(rebuilt, "explica").source == EXPLICA and notices == {("duplicada", "explica")}


@pytest.mark.parametrize("keep_stub", [True, False])
def test_written_answer_beside_its_cell_is_found_by_its_place(keep_stub, submission, released):
    def beside(notebook):
        notebook.cells.insert(
            next(i for i, c in enumerate(notebook.cells) if c is at(notebook, "explica")), new_markdown_cell(EXPLICA)
        )
        put(notebook, "explica", source=at(released, "explica").source)
        if not keep_stub:
            drop(notebook, "explica")

    rebuilt, notices = after_damage(beside, submission, released)
    assert at(rebuilt, "explica").source == EXPLICA and notices == {("recuperada", "explica")}


def test_unanswered_cell_is_the_stub_to_the_byte_however_it_was_touched(submission, released):
    def touch(notebook):
        put(notebook, "percentil", source=f"\n{at(released, 'percentil').source}  \n\n")
        put(notebook, "explica", source="   ")

    rebuilt, _ = after_damage(touch, submission, released)
    assert at(rebuilt, "percentil") == at(released, "percentil") and at(rebuilt, "explica") == at(released, "explica")


def test_own_cells_stay_where_they_were_without_what_python_cannot_run(submission, released):
    helper = "%matplotlib inline\nfrom math import floor\n\ndef ayuda(x):\n    return floor(x)"

    def add(notebook):
        after(notebook, "percentil", new_code_cell(helper), new_markdown_cell("nota mía"))
        at(notebook, "preparacion").source += "\nimport fractions"

    rebuilt, notices = after_damage(add, submission, released)
    place = next(i for i, c in enumerate(rebuilt.cells) if c.id == "percentil")
    assert [c.source for c in rebuilt.cells[place + 1 : place + 3]] == [f"pass  # {helper}", "nota mía"]
    [extra] = [c for c in rebuilt.cells if c.source == "import fractions"]
    assert extra.metadata.minilab_anadida and notices == {("restaurada", "preparacion")}


def test_equal_cells_of_ones_own_get_ids_of_their_own(submission, released):
    def twice(notebook):
        after(notebook, "percentil", new_code_cell("x = 1"), new_code_cell("x = 1"))

    rebuilt, _ = after_damage(twice, submission, released)
    assert len({c.id for c in rebuilt.cells}) == len(rebuilt.cells) == len(released.cells) + 2


def test_released_cell_pasted_into_a_locked_one_is_not_kept_twice(submission, released):
    def paste(notebook):
        at(notebook, "preparacion").source += f"\n{at(released, 'prueba_percentil').source}"

    rebuilt, notices = after_damage(paste, submission, released)
    assert len(rebuilt.cells) == len(released.cells) and notices == {("restaurada", "preparacion")}


def test_function_that_the_stub_gives_is_no_answer_by_itself():
    stub = "def dada():\n    return 1\n\n\ndef pedida():\n    raise NotImplementedError('Falta implementar')"
    meta = {"nbgrader": {"grade_id": "a", "solution": True, "grade": False, "locked": False}}
    [slot] = slots_of(nbformat.v4.new_notebook(cells=[new_code_cell(stub, metadata=meta)]))
    assert slot.done(stub) == slot.done(f"\n{stub}  \n") == {}
    assert slot.done("def pedida():\n    return 2") == {"pedida": 1}


def test_pasted_images_of_a_written_answer_survive_and_nothing_else_does(submission, released):
    notebook = submission({"explica": EXPLICA})
    at(notebook, "explica")["attachments"] = {
        "a.png": {"image/png": "aGk=", "text/html": "<script>"},
        "b.svg": {"image/svg+xml": "PHN2Zz4="},
    }
    rebuilt, notices = rebuild(read_submission(data_of(notebook)), released)
    assert at(rebuilt, "explica").attachments == {"a.png": {"image/png": "aGk="}}
    assert [n.code for n in notices] == ["adjuntos"]
    check_result(rebuilt, released)


def test_notebook_that_nbgrader_read_by_itself_is_cleaned_too(submission, released):
    notebook = submission({"percentil": PERCENTIL})
    at(notebook, "prueba_percentil").metadata.nbgrader.grade_id = [1]
    at(notebook, "resume").metadata.nbgrader = "no"
    at(notebook, "percentil").outputs = [nbformat.v4.new_output("stream", text="secreto")]
    notebook.metadata.minilab_lectura = [{}, "codificacion"]
    rebuilt, notices = rebuild(notebook, released)
    check_result(rebuilt, released)
    assert at(rebuilt, "percentil").source == PERCENTIL and at(rebuilt, "percentil").outputs == []
    assert [n.code for n in notices] == ["codificacion"]
    notebook.cells[0].source = 3
    with pytest.raises(InvalidSubmission, match="texto de la celda 1"):
        rebuild(notebook, released)


OPERATIONS = st.sampled_from(
    ["delete", "duplicate", "retype", "strip", "move", "rename", "edit_locked", "add", "merge", "blank_copy", "swap"]
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(OPERATIONS, st.integers(0, 999), st.integers(0, 999)), max_size=14))
def test_answers_survive_any_mishandling_while_their_text_is_somewhere(steps, solved, released):
    notebook = copy.deepcopy(solved)
    for name, first, second in steps:
        mishandle(notebook, name, first % len(notebook.cells), second % len(notebook.cells))
    rebuilt, _ = rebuild(read_submission(data_of(notebook)), released)
    check_result(rebuilt, released)
    everything = "\n".join(c.source for c in notebook.cells)
    for cell in solved.cells:
        if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code":
            if cell.source in everything:
                assert cell.source in at(rebuilt, cell.metadata.nbgrader.grade_id).source
        elif cell.metadata.get("nbgrader", {}).get("solution") and cell.source in everything:
            assert any(cell.source in c.source for c in rebuilt.cells), "a written answer is never thrown away"


def mishandle(notebook, name, index, other):
    cell = notebook.cells[index]
    if name == "delete" and len(notebook.cells) > 1:
        del notebook.cells[index]
    elif name == "duplicate":
        notebook.cells.insert(other, copy.deepcopy(cell))
    elif name == "retype":
        cell.cell_type = ("code", "markdown", "raw")[other % 3]
    elif name == "strip":
        strip(cell, f"x{other}")
    elif name == "move":
        notebook.cells.insert(other, notebook.cells.pop(index))
    elif name == "rename":
        cell.metadata.setdefault("nbgrader", nbformat.NotebookNode())["grade_id"] = f"otro{other}"
        cell.id = f"otro{other}"
    elif name == "edit_locked" and cell.metadata.get("nbgrader", {}).get("locked"):
        cell.source += f"\nx{other} = 1"
    elif name == "add":
        notebook.cells.insert(index, new_code_cell(f"%time\nx{other} = {other}"))
    elif name == "merge" and index + 1 < len(notebook.cells):
        cell.source += f"\n{notebook.cells.pop(index + 1).source}"
    elif name == "swap":
        cell.metadata, cell.id = copy.deepcopy(notebook.cells[other].metadata), notebook.cells[other].id
    elif name == "blank_copy":
        notebook.cells.insert(other, copy.deepcopy(cell))
        notebook.cells[other].source = ""

"""What a student sees who has written nothing yet: the notebook opens, and says what is missing."""

from __future__ import annotations

import pytest
from lab_parts import LABS, defined_by, graded, minutes_of, solutions_of

from minilab.comprobar import CheckFailed, comprobar
from minilab.pruebas.publicas import CHECKS


@pytest.mark.parametrize("lab", LABS)
def test_a_stub_fails_its_check_with_one_spanish_sentence(released, lab):
    cells = solutions_of(released(lab))
    for name in graded(released(lab)).values():
        check = CHECKS[name]
        with pytest.raises(CheckFailed, match=f"✘ {name}: falta implementar {check.function}") as failure:
            comprobar(name, defined_by(lab, cells, check.cells)[check.function])
        assert failure.value._render_traceback_() == [str(failure.value)]


@pytest.mark.parametrize("lab", LABS)
def test_an_unsolved_lab_opens_and_says_what_is_missing(released, execute, lab):
    """On the tiny model; a check fails in Spanish and alone, and nothing else is a wall of traceback either."""
    notebook = released(lab)
    done = execute(notebook, 2 * minutes_of(notebook), tiny=True, errors=True)
    checks = {c.id: c for c in done.cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("grade")}
    for cell in checks.values():
        [failure] = [o for o in cell.outputs if o.output_type == "error"]
        assert len(failure.traceback) == 1 and "falta implementar" in failure.traceback[0], cell.source
    outputs = [o for c in done.cells if c.cell_type == "code" for o in c.outputs]
    assert [o.evalue for o in outputs if o.output_type == "error" and len(o.traceback) > 1] == []

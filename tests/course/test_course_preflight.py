"""Reading a submission, and what ``minilab revisar`` and ``minilab reparar`` say of it."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell
from notebook_cells import PERCENTIL, at, data_of, put

from minilab.__main__ import main
from minilab.entrega import (
    InvalidSubmission,
    best_release,
    read_submission,
    rebuild,
    released_notebooks,
    review_submission,
)
from minilab.entrega.lectura import MAX_BYTES, MAX_CELLS
from minilab.entrega.magias import without_magics

ASSIGNMENT = "P_sirve_y_demuestralo"


@pytest.mark.parametrize(
    ("source", "expected", "lines"),
    [
        ("x = 7\n%time x\ny = 8", "x = 7\npass  # %time x\ny = 8", [2]),
        ("def f():\n    !ls", "def f():\n    pass  # !ls", [2]),
        ("a = !ls\nb = %pwd", "pass  # a = !ls\npass  # b = %pwd", [1, 2]),
        ("len?", "pass  # len?", [1]),
        ("!echo \\\n  hola", "pass  # !echo \\\n  pass  # hola", [1, 2]),
        ("x = (7\n  % 2)", "x = (7\n  % 2)", []),
        ('"""\n% de acierto\n!\n"""', '"""\n% de acierto\n!\n"""', []),
        ("!echo \"it's\nx = 1\n%time x", "pass  # !echo \"it's\nx = 1\npass  # %time x", [1, 3]),
    ],
)
def test_only_what_ipython_would_take_is_turned_off(source, expected, lines):
    assert without_magics(source) == (expected, lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "latin-1", "cp1252"])
def test_every_usual_encoding_is_read(encoding, submission, released):
    text = json.dumps(submission({"explica": "áéñ €" if encoding != "latin-1" else "áéñ"}), ensure_ascii=False)
    text = text if "utf" in encoding else text.encode("cp1252", "ignore").decode("cp1252")
    data = b"\xff\xfe" + text.encode("utf-16-le") if encoding.endswith("bom") else text.encode(encoding, "ignore")
    rebuilt, notices = rebuild(read_submission(data), released)
    assert at(rebuilt, "explica").source.startswith("áéñ")
    assert [n.code for n in notices if not n.grade_id] == ([] if "utf" in encoding else ["codificacion"])


DEEP = '{"nbformat": 4, "cells": ' + "[" * 200_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "vacío"),
        (b"\x00" * 40, "vacío"),
        (b"%PDF-1.4", "no es un cuaderno"),
        (b'{"nbformat": 4, "cells": [', "cortado"),
        (b'{"nbformat": 4, "cells": ["abc', "cortado"),
        (b'{"nbformat": 4,\n<<<<<<< HEAD\n "cells": []\n=======\n}\n>>>>>>> otra', "conflicto"),
        (b'{"nbformat": 4, "cells": [], "x": NaN}', "NaN"),
        (b'{"nbformat": 4,\n "cells": [} ]}', "línea 2"),
        (b'{"nbformat": 4, "cells": [], "x": ' + b"9" * 5000 + b"}", "número"),
        (DEEP.encode(), "anida"),
        (b"[]", "no es un cuaderno"),
        (b'"hola"', "no es un cuaderno"),
        (b"{}", "nbformat"),
        (b'{"nbformat": 5, "cells": []}', "nbformat"),
        (b'{"nbformat": true, "cells": []}', "nbformat"),
        (b'{"nbformat": 4}', "se esperaba una lista"),
        (b'{"nbformat": 4, "cells": {}}', "se esperaba una lista"),
        (b'{"nbformat": 4, "cells": [3]}', "celda 1"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}', "texto de la celda 1"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a", 3]}]}', "texto de la celda 1"),
        (b'{"nbformat": 4, "cells": [{"cell_type": [], "source": ""}]}', "tipo de la celda 1"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "metadata": 1}]}', "metadatos de la celda 1"),
        (b'{"nbformat": 3, "worksheets": [1]}', "worksheets"),
        (b'{"nbformat": 3, "worksheets": [{"cells": 1}]}', "se esperaba una lista"),
        (b"\xff\xfe{\x00x", "cortado"),
        (b" " * (MAX_BYTES + 1), "64"),
        (json.dumps({"nbformat": 4, "cells": [{}] * (MAX_CELLS + 1)}).encode(), "celdas"),
        (json.dumps({"nbformat": 4, "cells": [{"cell_type": "raw", "source": "a" * (9 << 20)}]}).encode(), "8 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_one_clear_error(data, message, released):
    with pytest.raises(InvalidSubmission, match=message):
        read_submission(data)
    assert review_submission(data, released).code == 2


def test_outputs_are_dropped_unread_and_lone_surrogates_can_be_written(submission, released):
    notebook = submission({"percentil": PERCENTIL})
    at(notebook, "percentil").outputs = {"no": ["es", 1, "lista"]}
    at(notebook, "explica").source = "a\udc00b"
    rebuilt, _ = rebuild(read_submission(json.dumps(notebook).encode()), released)
    assert at(rebuilt, "percentil").outputs == [] and at(rebuilt, "explica").source == "a�b"
    nbformat.validate(rebuilt)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "nbformat",
    "cells",
    "cell_type",
    "source",
    "metadata",
    "id",
    "nbgrader",
    "attachments",
    "outputs",
    "grade_id",
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_in_any_place_is_read_or_refused(data, released):
    notebook = json.loads(data_of(released))
    notebook["cells"] = notebook["cells"][:8]
    target = data.draw(st.sampled_from([notebook, *notebook["cells"], *(c["metadata"] for c in notebook["cells"])]))
    target[data.draw(st.sampled_from(FIELDS))] = data.draw(JSON)
    try:
        rebuilt, _ = rebuild(read_submission(json.dumps(notebook).encode()), released)
    except InvalidSubmission:
        return
    nbformat.validate(rebuilt)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(InvalidSubmission):
        read_submission(data)


@pytest.fixture
def in_folder(tmp_path, submission, solutions):
    def save(name, cells, **changes):
        notebook = submission({**solutions, **cells})
        for grade_id, source in changes.items():
            put(notebook, grade_id, source=source)
        path = tmp_path / name
        path.write_bytes(data_of(notebook))
        return path

    return save


def test_review_command_says_what_costs_marks_and_exits_accordingly(in_folder, tmp_path, capsys):
    ready = in_folder("lista.ipynb", {}, prueba_percentil="10.0")
    assert main(["revisar", str(ready)]) == 0
    out = capsys.readouterr().out
    assert "prueba_percentil» no se edita y estaba cambiada: se ha restaurado" in out and "✔ Se puede entregar" in out
    broken = in_folder(f"{ASSIGNMENT} (1).ipynb", {"percentil": "def percentil(v, p):\n    return (", "explica": ""})
    assert main(["revisar", str(broken)]) == 1
    out = capsys.readouterr().out
    assert "«percentil» no es Python válido en la línea 2" in out and "«explica» está sin responder" in out
    unreadable = tmp_path / "rota.ipynb"
    unreadable.write_bytes(ready.read_bytes()[:500])
    assert main(["revisar", str(unreadable), "--tarea", ASSIGNMENT]) == 2
    assert "no se puede leer" in capsys.readouterr().out
    for arguments, message in (
        ([str(tmp_path / "falta.ipynb")], "falta.ipynb"),
        ([str(ready), "--tarea", "Z"], "no existe la tarea «Z»"),
    ):
        assert main(["revisar", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_half_done_answer_and_heavy_file_are_told(submission, solutions, released):
    half = solutions["cliente"].split("async def lanza_todas")[0] + (
        "async def lanza_todas(*todo):\n    raise NotImplementedError('Falta implementar')"
    )
    notebook = submission({**solutions, "cliente": half})
    at(notebook, "percentil").outputs = ["x" * (6 << 20)]
    report = review_submission(data_of(notebook), released)
    assert {n.code: n.costs for n in report.notices} == {"tamano": False, "a_medias": True}
    assert report.answered == report.questions and report.code == 1


def test_repair_command_never_writes_over_the_original_unasked(in_folder, tmp_path, released, capsys):
    path = in_folder("mia.ipynb", {"percentil": PERCENTIL}, prueba_percentil="10.0")
    original, target = path.read_bytes(), tmp_path / "nueva.ipynb"
    assert main(["reparar", str(path), "-o", str(target)]) == 0
    repaired = nbformat.read(target, 4)
    nbformat.validate(repaired)
    own = [c for c in repaired.cells if not c.metadata.get("minilab_anadida")]
    assert [(c.id, c.metadata) for c in own] == [(c.id, c.metadata) for c in released.cells]
    assert at(repaired, "percentil").source == PERCENTIL and path.read_bytes() == original
    assert main(["reparar", str(path), "-o", str(path)]) == 2 and path.read_bytes() == original
    assert "ya existe" in capsys.readouterr().err
    assert main(["reparar", str(path), "--en-sitio"]) == 0
    assert path.read_bytes() == target.read_bytes()
    assert (tmp_path / "mia.ipynb.bak").read_bytes() == original
    assert main(["reparar", str(path), "--en-sitio"]) == 2 and (tmp_path / "mia.ipynb.bak").read_bytes() == original


def test_preflight_needs_no_grader_and_no_nbgrader():
    script = (
        "import sys; from minilab.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, [m for m in sys.modules if m.startswith(('minilab_grading', 'nbgrader', 'torch'))])"
    )
    released_file = str(released_notebooks()[ASSIGNMENT])
    done = subprocess.run(
        [sys.executable, "-c", script, "revisar", released_file], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "1 []" and "está sin responder" in done.stdout


def test_assignment_is_known_by_name_or_content(released):
    clean = read_submission(data_of(released))
    assert best_release(f"{ASSIGNMENT.lower()}-2.ipynb", clean) == ASSIGNMENT
    assert best_release("x.ipynb", clean) == ASSIGNMENT
    assert best_release("x.ipynb", nbformat.v4.new_notebook(cells=[new_code_cell("1")])) is None

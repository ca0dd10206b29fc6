"""The harness: honest code gets its exact mark, a forged answer gets none, and nothing leaks into the worker."""

from __future__ import annotations

import os

import pytest

from minilab.casos import Case
from minilab_grading.arnes.aislamiento import STRONG, NoIsolation, choose_isolation
from minilab_grading.arnes.calificar import grade_check, sources_of, teacher_folders
from minilab_grading.arnes.sesion import Session, WorkerDied
from minilab_grading.casos import cases_of

ASSIGNMENT = "P_sirve_y_demuestralo"
SEED = 20261121


@pytest.fixture(scope="module")
def isolation():
    return choose_isolation(teacher_folders(), allow_none=True)


@pytest.fixture
def fraction(isolation, solutions):
    """Fraction of the hidden cases of one check passed by the reference with one cell replaced."""

    def evaluate(check: str, cell: str, code: str) -> float:
        prelude, imports, checks = cases_of(ASSIGNMENT, SEED)
        sources = {**solutions, cell: code}
        return grade_check(checks[check], sources, prelude, imports, isolation).fraction

    return evaluate


@pytest.mark.parametrize("seed", [0, SEED])
def test_reference_passes_every_hidden_case_for_any_seed(isolation, solutions, seed):
    prelude, imports, checks = cases_of(ASSIGNMENT, seed)
    marks = {k: grade_check(p, solutions, prelude, imports, isolation) for k, p in checks.items()}
    assert {k: n.fraction for k, n in marks.items()} == dict.fromkeys(checks, 1.0), marks


def test_hidden_cases_depend_on_the_seed_alone():
    twice = [cases_of(ASSIGNMENT, 7)[2]["prueba_percentil"].cases for _ in range(2)]
    assert twice[0] == twice[1] != cases_of(ASSIGNMENT, 8)[2]["prueba_percentil"].cases


FORGERIES = {
    "objeto que se declara igual a todo": (
        "class T:\n    def __eq__(s, o):\n        return True\ndef percentil(v, p):\n    return T()"
    ),
    "float disfrazado": (
        "class T(float):\n    def __eq__(s, o):\n        return True\ndef percentil(v, p):\n    return T(1)"
    ),
    "sale del proceso": "import os\ndef percentil(v, p):\n    os._exit(0)",
    "escribe en el canal": (
        "import os\ndef percentil(v, p):\n    [os.write(f, b'{\"valor\": 1}\\n') for f in range(3, 9)]\n    return 0"
    ),
    "respuesta enorme": "def percentil(v, p):\n    return 'x' * 2_000_000",
    "no se ejecuta": "def percentil(v, p:\n    return 1",
    "memoria sin fin": "def percentil(v, p):\n    return len(bytearray(1 << 34))",
    "sube el límite": (
        "import resource\ndef percentil(v, p):\n    if not v:\n        return None\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "    return len(bytearray(1 << 33))"
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_scores_nothing(fraction, name):
    assert fraction("prueba_percentil", "percentil", FORGERIES[name]) == 0


def test_partial_answer_gets_partial_credit(fraction):
    without_interpolation = "def percentil(v, p):\n    v = sorted(v)\n    return v[round((len(v) - 1) * p / 100)]"
    assert 0 < fraction("prueba_percentil", "percentil", without_interpolation) < 1


def test_sequential_client_fails_the_concurrent_cases_only(fraction, solutions):
    code = solutions["cliente"].replace("asyncio.gather(*(", "_serie(*(")
    serial = "async def _serie(*cs):\n    return [await c for c in cs]\n"
    assert fraction("prueba_cliente", "cliente", serial + code) == pytest.approx(1 / 3)


def test_infinite_loop_is_cut_off(isolation):
    with Session(isolation, call_s=2.0) as session, pytest.raises(WorkerDied, match="no respondió"):
        session.load([("celda", "while True:\n    pass")])


def test_reply_to_another_call_is_refused(isolation):
    writes = 'os.write(f, b\'{"n": "1"}\\n\')'
    code = f"import os\nfor f in range(3, 9):\n    try:\n        {writes}\n    except OSError:\n        pass"
    with Session(isolation) as session, pytest.raises(WorkerDied, match="fuera de turno"):
        session.load([("celda", code)])


def _run(isolation, body: str):
    with Session(isolation) as session:
        assert session.load([("celda", body)]).error is None
        return session.call("f", Case(name="x", args=(), hint=""))


def test_worker_sees_none_of_the_graders_environment(isolation, monkeypatch):
    monkeypatch.setenv("SECRETO_DEL_DOCENTE", "1")
    seen = _run(isolation, "import os\ndef f():\n    return dict(os.environ)").value
    assert "SECRETO_DEL_DOCENTE" not in seen and seen["HOME"] != os.environ.get("HOME")


def test_worker_reaches_no_network(isolation):
    if isolation.level == "ninguno":
        pytest.skip("this machine allows no namespaces")
    code = "import socket\ndef f():\n    return socket.create_connection(('127.0.0.1', 9), 1)"
    assert _run(isolation, code).message.startswith("[Errno 101]")


def test_gradebook_and_hidden_cases_are_invisible_and_the_cover_stays(tmp_path):
    (tmp_path / "gradebook.db").write_text("notas")
    isolation = choose_isolation([*teacher_folders(), tmp_path], allow_none=True)
    if isolation.level != STRONG:
        pytest.skip("this machine allows no mount namespaces")
    folders = [str(c) for c in (tmp_path, *teacher_folders()) if c.is_dir()]
    code = (
        "import os, subprocess\ndef f():\n"
        f"    carpetas = {folders!r}\n"
        "    for c in carpetas:\n        subprocess.run(['umount', c], stderr=subprocess.DEVNULL)\n"
        "    return [os.listdir(c) for c in carpetas] + [len(os.listdir('/proc')) > 0]"
    )
    assert _run(isolation, code).value == [[] for _ in folders] + [True]


def test_grading_without_isolation_is_refused_unless_allowed(monkeypatch):
    import minilab_grading.arnes.aislamiento as module

    monkeypatch.setattr(module, "_works", lambda command: False)
    with pytest.raises(NoIsolation, match="--sin-aislar"):
        module.choose_isolation([])
    assert module.choose_isolation([], allow_none=True).level == "ninguno"


def test_first_of_two_copies_of_a_cell_counts(submission):
    notebook = submission({"percentil": "primera"})
    duplicate = next(c for c in notebook.cells if c.id == "percentil").copy()
    duplicate.source = "segunda"
    notebook.cells.append(duplicate)
    assert sources_of(notebook)["percentil"] == "primera"

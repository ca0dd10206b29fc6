"""The harness: honest code gets its exact mark, a forged answer gets none, and no reply disturbs the grader."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from minilab.comprobar import CheckFailed, comprobar
from minilab.pruebas.casos import Case, Remote, Reply, StudentError
from minilab.pruebas.remoto import LocalRemote, namespace_of
from minilab_grading.arnes.aislamiento import Isolation, Launch, NoIsolation, choose_isolation
from minilab_grading.arnes.calificar import grade_check, teacher_folders
from minilab_grading.arnes.celdas import sources_of
from minilab_grading.arnes.sesion import REPLY_MAX, Session, WorkerDied
from minilab_grading.casos import cases_of

ASSIGNMENT = "P_sirve_y_demuestralo"
SEED = 20261121


@pytest.fixture(scope="module")
def isolation():
    return choose_isolation(teacher_folders(), allow_none=True)


@pytest.fixture
def fraction(isolation, solutions, submission):
    """Fraction of the hidden cases of one check passed by the reference with one cell replaced."""

    def evaluate(check: str, cell: str, code: str) -> float:
        prelude, imports, checks = cases_of(ASSIGNMENT, SEED)
        notebook = submission({**solutions, cell: code})
        return grade_check(checks[check], notebook, prelude, imports, isolation).fraction

    return evaluate


@pytest.mark.parametrize("seed", [0, SEED])
def test_reference_passes_every_hidden_case_for_any_seed(isolation, solved, seed):
    prelude, imports, checks = cases_of(ASSIGNMENT, seed)
    ordinary = {k: p for k, p in checks.items() if not p.level}
    marks = {k: grade_check(p, solved, prelude, imports, isolation) for k, p in ordinary.items()}
    assert {k: n.fraction for k, n in marks.items()} == dict.fromkeys(ordinary, 1.0), marks


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
        "    resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))\n"
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


def test_the_courses_own_preparation_may_take_longer_than_a_call(isolation):
    slow = "import time\ntime.sleep(2)"
    with Session(isolation, call_s=1.0) as session:
        assert session.load([("preparacion", slow + "\nx = 7"), ("celda", "def f():\n    return x")]).error is None
        assert session.call("f", NO_CASE).value == 7
    with Session(isolation, call_s=1.0) as session:
        assert session.load([("preparacion", "1 / 0"), ("celda", "x = 7")]).error == "ZeroDivisionError"
        with pytest.raises(WorkerDied, match="no respondió en 1 s"):
            session.load([("celda", slow)])


def test_infinite_loop_is_cut_off(isolation):
    with Session(isolation, call_s=2.0) as session, pytest.raises(WorkerDied, match="no respondió"):
        session.load([("celda", "while True:\n    pass")])


def test_reply_to_another_call_is_refused(isolation):
    writes = 'os.write(f, b\'{"n": "1"}\\n\')'
    code = f"import os\nfor f in range(3, 9):\n    try:\n        {writes}\n    except OSError:\n        pass"
    with Session(isolation) as session, pytest.raises(WorkerDied, match="fuera de turno"):
        session.load([("celda", code)])


def test_first_of_two_copies_of_a_cell_counts(submission):
    notebook = submission({"percentil": "primera"})
    duplicate = next(c for c in notebook.cells if c.id == "percentil").copy()
    duplicate.source = "segunda"
    notebook.cells.append(duplicate)
    assert sources_of(notebook)["percentil"] == "primera"


NO_CASE = Case(name="x", args=(), hint="")
STUDENT = """
class Cola:
    def __init__(self, nombre):
        if not nombre:
            raise ValueError("sin nombre")
        self.nombre, self.dentro = nombre, []
    def mete(self, cosas):
        self.dentro += cosas
        cosas.clear()
        return (self.nombre, len(self.dentro))
    def rara(self, que):
        return {"inf": float("inf"), "set": {1}, "enorme": 10 ** 400, "medio": "\\ud800", "sale": sys.exit}[que]
    def sale(self):
        sys.exit(3)
def suma(*numeros):
    return sum(numeros)
"""


@pytest.fixture(params=["isolated", "local"])
def remote(request, isolation):
    if request.param == "local":
        namespace = {"sys": sys}
        exec(STUDENT, namespace)
        yield LocalRemote(namespace)
        return
    with Session(isolation) as session:
        assert session.load([("celda", "import sys\n" + STUDENT)]).error is None
        yield session.remote()


def test_remote_objects_behave_alike_isolated_and_in_the_notebook(remote: Remote):
    first, second = remote.new("Cola", "a"), remote.new("Cola", "b")
    given = [1, 2]
    assert remote.run(first, [("mete", [given]), ("mete", [given])]) == [["a", 2], ["a", 4]]
    assert given == [1, 2]
    assert remote.call(second, "mete", [5]) == ["b", 1]
    assert remote.function("suma", 1, 2.5) == 3.5


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda r: r.new("Cola", ""), "ValueError"),
        (lambda r: r.new("Pila"), "NameError"),
        (lambda r: r.new("Cola"), "TypeError"),
        (lambda r: r.function("resta", 1), "NameError"),
        (lambda r: r.call(r.new("Cola", "a"), "vacia"), "AttributeError"),
        (lambda r: r.call(r.new("Cola", "a"), "sale"), "SystemExit"),
        *[(lambda r, q=q: r.call(r.new("Cola", "a"), "rara", q), "TypeError") for q in ("inf", "set", "enorme")],
        *[(lambda r, q=q: r.call(r.new("Cola", "a"), "rara", q), "TypeError") for q in ("medio", "sale")],
    ],
)
def test_remote_reports_what_the_students_code_raises_and_goes_on(remote: Remote, act, error):
    with pytest.raises(StudentError) as raised:
        act(remote)
    assert raised.value.error == error
    assert remote.function("suma", 2, 2) == 4


def test_namespace_of_a_class_holds_its_helpers():
    namespace: dict = {}
    exec("def ayuda():\n    return 3\nclass C:\n    def da(self):\n        return ayuda()", namespace)
    student = LocalRemote(namespace_of(namespace["C"]))
    assert student.call(student.new("C"), "da") == 3 and student.function("ayuda") == 3


def test_public_check_plays_its_cases_on_the_students_class(monkeypatch):
    from minilab import comprobar as module
    from minilab.pruebas.casos import Check, Outcome

    def play(remote: Remote) -> Outcome:
        value = remote.call(remote.new("Doble"), "de", 4)
        return Outcome(None if value == 8 else f"un 8, no {value}", note="2,0×")

    case = Case(name="el doble de 4", args=(), hint="Suma el número consigo mismo.", play=play)
    monkeypatch.setitem(module.CHECKS, "doble", Check("doble", "Doble", ("doble",), (case,)))
    good = type("Doble", (), {"de": lambda self, x: 2 * x})
    assert "1 de 1" in repr(comprobar("doble", good))
    with pytest.raises(CheckFailed, match=r"(?s)el doble de 4 \(2,0×\).*un 8, no 4.*pista"):
        comprobar("doble", type("Doble", (), {"de": lambda self, x: x}))
    with pytest.raises(CheckFailed, match="falta implementar Doble"):
        comprobar("doble", type("Doble", (), {"__init__": lambda self: unfinished()}))


def unfinished() -> None:
    raise NotImplementedError("Falta implementar")


def test_added_cells_count_as_far_as_they_run(isolation):
    added = "import no_existe\nfrom minilab import comprobar\ndef ayuda():\n    return 3\nclass Rota:\n    x = 1 / 0"
    with Session(isolation) as session:
        assert session.load([("celdas añadidas", added), ("celda", "def f():\n    return ayuda()")]).error is None
        assert session.call("f", NO_CASE).value == 3
        assert session.load([("celda", "1 / 0")]).error == "ZeroDivisionError"


def test_dataclasses_and_annotations_work_as_in_a_notebook(isolation):
    code = (
        "import dataclasses, typing\n@dataclasses.dataclass\nclass P:\n    x: int = 1\n    y: 'list[int]' = None\n"
        "def f():\n    return [P().x, str(typing.get_type_hints(P)['x']), type(P.__annotations__['x']).__name__]"
    )
    with Session(isolation) as session:
        assert session.load([("celda", code)]).error is None
        assert session.call("f", NO_CASE).value == [1, "<class 'int'>", "type"]


FAKE_WORKER = """
import json, sys
lines = open(sys.argv[1], "rb").read().split(b"<fin>")
hello = json.loads(sys.stdin.buffer.readline())
sys.stdout.buffer.write(json.dumps({"n": hello["n"], "valor": None}).encode() + b"\\n")
sys.stdout.buffer.flush()
for line in lines:
    asked = sys.stdin.buffer.readline()
    if not asked:
        break
    sys.stdout.buffer.write(line.replace(b"<n>", json.loads(asked)["n"].encode()))
    sys.stdout.buffer.flush()
"""


@dataclass(frozen=True)
class Forged(Isolation):
    """A worker that writes the given bytes, one piece for each call, with the call's nonce in place of ``<n>``."""

    pieces: bytes = b""

    def launch(self, base: Path, program: str, *args: str) -> Launch:
        (base / "falso.py").write_text(FAKE_WORKER)
        (base / "falso.bin").write_bytes(self.pieces)
        command = (sys.executable, "-I", "-S", str(base / "falso.py"), str(base / "falso.bin"))
        return Launch(command, {}, base)


def forged(*pieces: bytes) -> Forged:
    return Forged("ninguno", pieces=b"<fin>".join(pieces))


VALUES = (
    *(b"NaN", b"Infinity", b"1e999", b"-1e999", b"9" * 400, b"9" * 4000, b'"\\ud800"', b'{"\\udfff": 1}'),
    *(b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40),
)


def test_forged_values_become_a_students_error():
    lines = [b'{"n": "<n>", "valor": %b}\n' % value for value in VALUES]
    with Session(forged(*lines)) as session:
        for value in VALUES:
            assert session.call("f", NO_CASE).error == "TypeError", value[:20]


BROKEN = (
    *(b"\n", b"null\n", b"[]\n", b"3\n", b'"<n>"\n', b"{}\n", b'{"n": null}\n', b'{"n": ["<n>"]}\n', b"\xff\xfe{}\n"),
    *(
        b'{"n": "<n>", "llegan": [{}]}\n',
        b'{"n": "<n>", "llegan": 3}\n',
        b'{"n": "<n>", "valor": ' + b"9" * 5000 + b"}\n",
    ),
    *(b"[" * 100_000 + b"\n", b'{"a":' * 100_000 + b"\n", b"", b'{"n": "<n>", "val', b"x" * (REPLY_MAX + 1)),
)


@pytest.mark.parametrize("piece", BROKEN, ids=range(len(BROKEN)))
def test_broken_protocol_is_the_workers_death(piece):
    with Session(forged(piece), call_s=5.0) as session:
        with pytest.raises(WorkerDied):
            session.call("f", NO_CASE)
        with pytest.raises(WorkerDied):
            session.call("f", NO_CASE)


@pytest.mark.parametrize("seed", range(25))
def test_random_bytes_never_disturb_the_grader(seed):
    random = Random(seed)
    valid = b'{"n": "<n>", "error": null, "valor": [1, {"a": "b"}], "mensaje": ""}\n'
    mutated = bytearray(valid)
    for _ in range(random.randrange(1, 8)):
        mutated[random.randrange(len(mutated))] = random.randrange(256)
    pieces = [bytes(mutated), random.randbytes(random.randrange(1, 3000)) + b"\n"]
    with Session(forged(*pieces), call_s=5.0) as session, pytest.raises(WorkerDied):
        for _ in range(3):
            assert isinstance(session.call("f", NO_CASE), Reply)


@pytest.mark.parametrize("reply", [b'{"n": "<n>", "valor": []}\n', b'{"n": "<n>", "valor": {"0": 1}}\n'])
def test_list_of_another_length_is_refused(reply):
    with Session(forged(reply)) as session, pytest.raises(WorkerDied, match="protocolo"):
        session.remote().run(1, [("paso", [])])


def test_error_texts_of_a_forged_reply_can_be_written_anywhere():
    reply = b'{"n": "<n>", "error": "%b", "mensaje": "\\ud800\\u0000"}\n' % (b"x" * 500)
    with Session(forged(reply, b'{"n": "<n>", "error": {"a": 1}, "mensaje": [2]}\n')) as session:
        reply = session.call("f", NO_CASE)
        assert len(reply.error) == 80 and reply.message.encode() == b"?\0"
        assert session.call("f", NO_CASE) == Reply(error="?", message="?")


def test_all_waiting_on_a_worker_has_one_budget(isolation):
    with Session(isolation, session_s=1.0) as session:
        session.load([("celda", "import time\ndef f():\n    time.sleep(0.3)")])
        with pytest.raises(WorkerDied, match="agotó"):
            for _ in range(6):
                session.call("f", NO_CASE)


def test_worker_that_does_not_start_is_not_the_students_fault():
    class Missing(Isolation):
        def launch(self, base: Path, program: str, *args: str) -> Launch:
            return Launch(("false",), {}, base)

    with pytest.raises(NoIsolation, match="no arrancó"), Session(Missing("bwrap")):
        pass

"""The parts of minilab that every lab stands on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from minilab import comprobar as comprobar_module
from minilab.comprobar import CheckFailed, comprobar
from minilab.cronometro import mide
from minilab.cuaderno import prepara
from minilab.modelo import elige_modelo
from minilab.motor import con, lado_a_lado
from minilab.piezas import PieceError, costuras, needed_source
from minilab.plantilla import UNWRITTEN
from minilab.pruebas.aparte import OutOfProcess, run_apart
from minilab.pruebas.casos import Case, Check, Reply
from minilab.pruebas.jueces import far_from, near, shape_of
from minilab.pruebas.planos import MAX_ELEMENTS, NotPlainValue, to_plain
from minilab.pruebas.remoto import LocalRemote
from minilab.pruebas.tensores import Tensor, with_tensors
from minilab_grading.arnes.aislamiento import choose_isolation
from minilab_grading.arnes.sesion import Session
from minillm_serve.kv.block_pool import BlockPool
from minillm_serve.seams import GUIDED_COMPILE, KV_BLOCK_POOL

forked = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="checks run in the notebook's process here")


# -- checks in a process of their own ----------------------------------------------------------------------------------


@forked
def test_what_a_check_changes_is_gone_and_what_it_prints_is_shown(capsys):
    kept = [1]

    def work():
        kept.append(2)
        print("dentro")
        return os.getpid(), list(kept)

    child, seen = run_apart(work, 30)
    assert child != os.getpid() and seen == [1, 2] and kept == [1]
    assert capsys.readouterr().out == "dentro\n"


@forked
@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda: time.sleep(60), "no terminó en 1 s"),
        (lambda: os._exit(3), "terminó antes de tiempo"),
        (lambda: os.kill(os.getpid(), 9), "terminó antes de tiempo"),
    ],
)
def test_a_child_that_does_not_answer_is_said_so(work, sentence):
    with pytest.raises(OutOfProcess, match=sentence):
        run_apart(work, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts private memory")
def test_a_check_cannot_take_all_the_memory():
    with pytest.raises(MemoryError):
        run_apart(lambda: len(bytearray(3 << 30)), 30)


def test_what_the_work_raises_comes_back():
    with pytest.raises(KeyError, match="x"):
        run_apart(lambda: {}["x"], 30)


@forked
def test_torch_works_in_the_child_after_the_parent_used_its_threads():
    torch.randn(512, 512) @ torch.randn(512, 512)
    total = run_apart(lambda: float((torch.ones(400, 400) @ torch.ones(400, 400)).sum()), 60)
    assert total == 400.0**3


def check_of(*cases: Case) -> Check:
    return Check("doble", "doble", ("doble",), cases)


@forked
def test_a_check_that_hangs_names_the_case_and_leaves_the_rest(monkeypatch):
    quick = Case(name="el primero", args=(1,), expected=2, hint="—")
    cases = (quick, replace(quick, name="el que cuelga", args=(0,)), replace(quick, name="el último"))
    monkeypatch.setitem(comprobar_module.CHECKS, "doble", check_of(*cases))
    monkeypatch.setattr(comprobar_module, "LIMIT_S", 1.0)

    def doble(x):
        while not x:
            pass
        return 2 * x

    with pytest.raises(CheckFailed) as failure:
        comprobar("doble", doble)
    text = str(failure.value)
    assert "✔ el primero" in text and "✘ el que cuelga\n      ocurrió:  no terminó en 1 s" in text
    assert "✘ el último\n      ocurrió:  no se llegó a probar" in text


def test_the_function_is_found_by_its_name_where_the_check_is_asked_for(monkeypatch):
    monkeypatch.setitem(comprobar_module.CHECKS, "doble", check_of(Case(name="a", args=(3,), expected=6, hint="—")))
    names = {"comprobar": comprobar, "doble": lambda x: 2 * x}
    assert "1 de 1" in repr(eval('comprobar("doble")', names))
    with pytest.raises(CheckFailed, match="no encuentro doble"):
        eval('comprobar("doble")', {"comprobar": comprobar})


# -- tensors ----------------------------------------------------------------------------------------------------------

SHAPES = [[1.5, -2.0], [[1.0, 2.0], [3.0, 4.0]], [], [[[7.0]]]]


@pytest.mark.parametrize("values", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_a_tensor_arrives_as_it_was_written(values, dtype):
    [tensor] = with_tensors(to_plain([Tensor(values, dtype)]))
    assert (
        tensor.dtype == getattr(torch, dtype) and to_plain(tensor) == torch.tensor(values, dtype=tensor.dtype).tolist()
    )


def test_what_json_cannot_write_travels_as_text():
    [tensor] = with_tensors([Tensor([["inf", "-inf"], ["nan", 1.0]])])
    assert tensor[0].tolist() == [float("inf"), float("-inf")] and tensor[1].isnan().tolist() == [True, False]
    assert to_plain(tensor) == [["inf", "-inf"], ["nan", 1.0]]
    assert with_tensors([Tensor({"forma": [0, 3]})])[0].shape == (0, 3)
    assert to_plain(np.array([[1, 2]])) == [[1, 2]] and to_plain(torch.ones(2, requires_grad=True)) == [1.0, 1.0]


def test_arrays_of_objects_and_huge_ones_are_refused():
    with pytest.raises(NotPlainValue, match="elementos"):
        to_plain(torch.zeros(MAX_ELEMENTS + 1))
    with pytest.raises(NotPlainValue, match="complex"):
        to_plain(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(NotPlainValue, match="object"):
        to_plain(np.array([object()]))


SOURCE = """
class Suma:
    def __init__(self, x): self.x = x
    def mas(self, y): return self.x + y
def doble(x): return 2 * x
"""


def test_the_graders_worker_makes_the_same_tensors():
    args = [Tensor([[1.0, "-inf"], [3.0, 4.0]])]
    names: dict = {}
    exec(SOURCE, names)
    remotes = [LocalRemote(names)]
    with Session(choose_isolation((), allow_none=True)) as session:
        assert not session.load([("preparacion", "import torch"), ("celda", SOURCE)]).error
        remotes.append(session.remote())
        answers = []
        for remote in remotes:
            handle = remote.new("Suma", *args)
            answers.append((remote.call(handle, "mas", *args), remote.function("doble", *args)))
    assert answers[0] == answers[1] == ([[2.0, "-inf"], [6.0, 8.0]], [[2.0, "-inf"], [6.0, 8.0]])


def test_near_says_what_is_wrong_shape_first():
    assert near([[1.0, "inf"]])(Reply([[1.00001, "inf"]])) is None
    assert far_from([[1.0, 2.0]], [1.0, 2.0]) == "un resultado de forma [1, 2] (llegó de forma [2])"
    assert far_from([1.0], None) == "un resultado de forma [1] (llegó sin forma)"
    assert far_from([[1.0, 2.0]], [[1.0, 2.1]]) == "2 en [0, 1]"
    assert far_from([1.0, "-inf"], [1.0, -9e9]) == "-inf en [1]"
    assert far_from([True], [1]) == "True en [0]" and far_from(1.0, "nan") == "1"
    assert shape_of([[1], [2, 3]]) is None and shape_of([]) == [0] and shape_of([[None]]) is None


# -- parts of the engine ----------------------------------------------------------------------------------------------


def test_a_part_is_kept_with_what_it_uses_and_nothing_else():
    cells = [
        "import math\nimport os",
        "%magia\nx = 1",
        "N = 2\nM = 5\nclass Base:\n    pass",
        "class Bloques(Base):\n    def f(self):\n        return ayuda(N)",
        "def ayuda(n):\n    return math.ceil(n / 2)",
        "N = 4",
    ]
    source = needed_source(cells, "Bloques")
    names: dict = {}
    exec(source, names)
    assert names["Bloques"]().f() == 2 and "os" not in names and "M" not in names
    with pytest.raises(PieceError, match="Ninguna celda ejecutada define Pool"):
        needed_source(cells, "Pool")


def test_a_stored_part_is_used_later_and_a_broken_one_left_out(tmp_path, capsys):
    (tmp_path / "kv.block_pool.py").write_text("class P:\n    n = 3\n\nPIEZA = P\n")
    (tmp_path / "sample.py").write_text("import no_existe\nPIEZA = 1\n")
    found = costuras("kv.block_pool", "sample", "sched.policy", carpeta=tmp_path)
    assert found["kv.block_pool"].n == 3 and len(found) == 1
    told = capsys.readouterr().out
    assert "kv.block_pool: tuya" in told and "no_existe" in told and "sched.policy: de referencia" in told
    with pytest.raises(PieceError, match="No existe la pieza"):
        costuras("kv.bloques")


class Leaking(BlockPool):
    """Takes one block more than it says."""

    def allocate(self, count):
        blocks = super().allocate(count + 1)
        return None if blocks is None else blocks[:count]


def test_side_by_side_tells_speeds_hits_and_whether_the_tokens_are_the_same(monkeypatch):
    monkeypatch.setenv("MINILAB_MODELO", "mini")
    model = elige_modelo()
    prompts = ["What is a cat and what is it for?"] * 3
    both = lado_a_lado(
        model, prompts, {KV_BLOCK_POOL: Leaking}, max_tokens=8, veces=2, num_kv_blocks=600, max_num_seqs=1
    )
    assert both.iguales and both.ratio > 0 and len(both.tuya.tok_s) == 2
    assert both.tuya.aciertos == both.referencia.aciertos > 0
    assert "Los tokens son idénticos" in repr(both) and "<th scope=" in both._repr_html_()
    assert len(both.traza["requests"]) == 3 and both.traza["steps"]
    with pytest.raises(KeyError, match="no existe la pieza"):
        con({"kv.bloques": Leaking})


def test_a_compiler_that_speaks_spanish_guides_the_engine(monkeypatch):
    monkeypatch.setenv("MINILAB_MODELO", "mini")

    class Siempre:
        def __init__(self, esquema, vocabulario, fin):
            self.ids, self.fin, self.puestos = [vocabulario.index("7")], fin, 0

        def permitidos(self):
            return self.ids if self.puestos < 3 else [self.fin]

        def acepta(self, id):
            self.puestos += 1

    from minillm_serve import SamplingParams
    from minillm_serve.params import StructuredOutputsParams

    params = SamplingParams(max_tokens=9, structured_outputs=StructuredOutputsParams(json={"type": "integer"}))
    both = lado_a_lado(elige_modelo(), ["Seven?"], {GUIDED_COMPILE: Siempre}, params=params, veces=1)
    assert both.tuya.textos == ("777",) and not both.iguales
    assert "NO son los mismos" in repr(both)


# -- small things -----------------------------------------------------------------------------------------------------


def test_the_stopwatch_warms_up_and_says_how_far_apart_its_readings_lie(monkeypatch):
    moments = iter([0.0, 0.010, 1.0, 1.012, 2.0, 2.030])
    monkeypatch.setattr("minilab.cronometro.time.perf_counter", lambda: next(moments))
    calls: list[int] = []
    reading = mide(lambda: calls.append(1), veces=3, calienta=2)
    assert len(calls) == 5 and reading.veces == 3
    assert repr(reading) == "12 ms (10 a 30; 3 veces)"
    with pytest.raises(ValueError, match="al menos 1"):
        mide(lambda: None, veces=0)


def test_preparing_a_notebook_says_which_model_and_which_mode(monkeypatch, capsys):
    monkeypatch.setenv("MINILAB_MODELO", "mini")
    assert prepara("L01").rapido
    told = capsys.readouterr().out
    assert "Lab L01" in told and "Modelo diminuto" in told and "Modo rápido" in told


def test_what_is_missing_is_one_sentence_and_a_mistake_of_ones_own_keeps_its_traceback(execute):
    cells = [
        "from minilab.cuaderno import prepara\nprepara('L01')",
        "def f():\n    return nada",
        f"def g():\n    raise NotImplementedError('{UNWRITTEN}')",
        "g()",
        "f()",
        "[nada for _ in '1']",
    ]
    done = execute(new_notebook(cells=[new_code_cell(cell) for cell in cells]), 2, tiny=True, errors=True)
    [stub], [mistake], [missing] = (cell.outputs for cell in done.cells[-3:])
    assert stub.traceback == ["Falta implementar `g`: completa su celda, ejecútala y vuelve a esta."]
    assert len(mistake.traceback) > 1 and "name 'nada' is not defined" in mistake.traceback[-1]
    [sentence] = missing.traceback
    assert sentence.startswith("No existe `nada` (línea 1). Si no es una errata")


def test_a_script_that_forgot_a_solution_still_sees_its_traceback():
    """Only a notebook's stubs answer with one sentence."""
    code = "from minilab.cuaderno import prepara\nprepara('L01')\nraise NotImplementedError('otra cosa')"
    environment = {**os.environ, "MINILAB_MODELO": "mini"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr

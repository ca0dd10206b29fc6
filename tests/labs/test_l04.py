"""Lab 4: its kernels hold in every hidden case, wrong ones are caught and told apart, and they drive the engine."""

from __future__ import annotations

import math
import subprocess
import sys
from random import Random

import pytest
import torch
from lab_parts import run_cells
from mutants import (
    Mutant,
    assert_caught,
    assert_page_names_each,
    assert_solution_passes,
    hidden_check,
    passed,
    solution_cells,
)
from svg_rules import check_rules

from minilab.bancos import con_triton
from minilab.bancos import en_gpu as gpu_process
from minilab.bancos.kernels_grabados import KERNELS, fusion_grabada, kernels_grabados, lanzamientos_grabados
from minilab.comprobar import CheckFailed, comprobar
from minilab.motor import con, lado_a_lado
from minilab.pruebas import nucleos
from minilab.pruebas.aparte import OutOfProcess, run_apart
from minilab.pruebas.casos import Check
from minilab.pruebas.publicas import checks_of
from minilab.vistas.accesos import dibuja_accesos
from minilab.vistas.vista import Vista
from minilab_grading.arnes.aislamiento import choose_isolation
from minilab_grading.arnes.calificar import grade_check
from minilab_grading.casos import cases_of
from minillm_serve import LLM, SamplingParams

pytestmark = pytest.mark.skipif(not con_triton.HAY_TRITON, reason="needs triton, which runs on Linux")

LAB = "L04_kernels_triton"
PUBLIC = checks_of("l04")

MUTANTS = [
    Mutant("softmax_en_linea", "no encoge la suma del máximo menor", "a[1] * torch.exp(a[0] - m)", "a[1]"),
    Mutant("softmax_en_linea", "nan al unir nada con nada", 'if m == float("-inf"):', "if False:"),
    Mutant("softmax_en_linea", "nan con un trozo vacío", 'if m > float("-inf"):', "if True:"),
    Mutant("softmax_en_linea", "divide entre cero si no hay nadie", "if resumen[1] == 0:", "if False:"),
    Mutant(
        "softmax_en_linea",
        "no resta el máximo al final",
        "torch.exp(x - resumen[0]) / resumen[1]",
        "x.exp() / x.exp().sum()",
    ),
    Mutant("softmax_triton", "lee sin máscara", 'mask=columna < n, other=float("-inf"))', "mask=columna < BLOQUE)"),
    Mutant("softmax_triton", "rellena con 0 en vez de −inf", 'other=float("-inf"))\n    m', "other=0.0)\n    m"),
    Mutant("softmax_triton", "escribe sin máscara", ", mask=columna < n)\n    ### END", ")\n    ### END"),
    Mutant("softmax_triton", "usa n como paso", "tl.program_id(0) * paso", "tl.program_id(0) * n"),
    Mutant("softmax_triton", "no resta el máximo", 'v - tl.where(maximo == float("-inf"), 0.0, maximo)', "v"),
    Mutant("softmax_triton", "nan en la fila vacía", 'tl.where(maximo == float("-inf"), 0.0, maximo)', "maximo"),
    Mutant("softmax_triton", "usa columna <= n", "columna < n", "columna <= n"),
    Mutant("recoge", "ignora la tabla", "casilla = bloque * TAM", "casilla = token // TAM * TAM"),
    Mutant("recoge", "olvida el hueco dentro del bloque", "bloque * TAM + token % TAM", "bloque * TAM"),
    Mutant(
        "recoge",
        "escribe todos los tokens del programa",
        "fila, mask=vivo[:, None])\n    ### END",
        "fila)\n    ### END",
    ),
    Mutant("recoge", "supone bloques de 4", "token // TAM, mask", "token // 4, mask"),
    Mutant("atencion_paginada", "no corta en la longitud", ".flatten(0, 1)[:largo]", ".flatten(0, 1)"),
    Mutant("atencion_paginada", "no tapa el futuro", ".tril(largo - n)", ""),
    Mutant("atencion_paginada", "tapa como si no hubiera nada antes", ".tril(largo - n)", ".tril()"),
    Mutant(
        "atencion_paginada", "repite la lista entera de grupos", "repeat_interleave(grupo, 1)", "repeat(1, grupo, 1)"
    ),
    Mutant("atencion_paginada", "olvida la escala", " * escala", ""),
    Mutant("atencion_paginada", "no avanza a la secuencia siguiente", "inicio += n", "pass"),
    Mutant(
        "atencion_paginada",
        "softmax a mano, sin restar el máximo",
        '.masked_fill(~visible, float("-inf")).softmax(-1)',
        '.masked_fill(~visible, float("-inf")).exp()\n        pesos = pesos / pesos.sum(-1, keepdim=True)',
        hidden=True,
    ),
    Mutant("decode_triton", "no encoge lo acumulado", "acc * encoge", "acc"),
    Mutant("decode_triton", "no encoge la suma", "s * encoge", "s"),
    Mutant("decode_triton", "lee los huecos muertos", ", mask=vivo[:, None], other=0.0)", ")"),
    Mutant(
        "decode_triton",
        "los huecos muertos puntúan 0",
        'tl.sum(k * consulta[None, :], 1), float("-inf"))',
        "tl.sum(k * consulta[None, :], 1), 0.0)",
    ),
    Mutant(
        "decode_triton",
        "la cabeza h usa la clave h % G",
        "cabeza // GRUPO, cabezas // GRUPO",
        "cabeza % (cabezas // GRUPO), cabezas // GRUPO",
    ),
    Mutant("decode_triton", "se deja la última página", "tl.cdiv(largo, TAM)", "largo // TAM"),
    Mutant("decode_triton", "todas usan la tabla de la primera", "tablas + secuencia * paso_tabla", "tablas"),
    Mutant("decode_triton", "olvida la escala", "tl.load(q + donde) * escala", "tl.load(q + donde)"),
    Mutant("decode_triton", "no divide entre la suma", "acc / tl.where(s == 0.0, 1.0, s)", "acc"),
    Mutant("decode_triton", "nan si la secuencia está vacía", "tl.where(s == 0.0, 1.0, s)", "s"),
    Mutant(
        "roofline",
        "los pesos, una vez por petición",
        'forma["parametros"] * forma["bytes_peso"] + lote',
        'lote * forma["parametros"] * forma["bytes_peso"] + lote',
    ),
    Mutant("roofline", "olvida que hay claves y valores", "lote * 2 * cabeza", "lote * cabeza"),
    Mutant("roofline", "cuenta la caché con todas las cabezas", 'forma["cabezas_kv"]', 'forma["cabezas"]'),
    Mutant(
        "roofline", "el techo es la suma", "min(tflops * 1000, intensidad * gb_s)", "tflops * 1000 + intensidad * gb_s"
    ),
    Mutant(
        "roofline", "techo en TFLOP/s", "min(tflops * 1000, intensidad * gb_s)", "min(tflops, intensidad * gb_s / 1000)"
    ),
    Mutant("fusion", "vuelve a leer lo que acaba de escribir", " if n not in escrito]", "]"),
    Mutant("fusion", "escribe también lo que nadie necesita", "[n for n in escrito if n in utiles]", "escrito"),
    Mutant(
        "fusion",
        "no lee lo que se escribe después",
        "    for kernel in kernels:\n        lee",
        '    escrito = [n for kernel in kernels for n in kernel["escribe"]]\n    for kernel in kernels:\n        lee',
    ),
    Mutant("fusion", "repite nombres", "list(dict.fromkeys(lee))", "lee"),
    Mutant("fusion", "solo cuenta lo que se lee", '[*kernel["lee"], *kernel["escribe"]]', 'kernel["lee"]'),
]


def names_of(*sources: str) -> dict:
    """What the grader's worker would hold after these cells."""
    return run_cells((cases_of(LAB, 0)[0], *sources))


def passed_apart(check: Check, names: dict) -> list[bool]:
    """Whether each case passes, in a child: a kernel that strays may take the process with it, and all cases then."""
    try:
        return run_apart(lambda: passed(check, names), 60)
    except OutOfProcess:
        return [False] * len(check.cases)


@pytest.fixture
def cells(solved) -> dict[str, str]:
    return solution_cells(solved(LAB))


def test_the_solution_passes_every_hidden_case(cells):
    assert_solution_passes(LAB, cells, range(4), build=names_of)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(cells, mutant):
    assert_caught(LAB, cells, mutant, seeds=[7], build=names_of, judge=passed_apart)


@pytest.mark.parametrize(
    "check, right, wrong, said",
    [
        (
            "softmax_triton",
            ", mask=columna < n)\n    ### END",
            ")\n    ### END",
            "escribiste en las columnas de relleno",
        ),
        ("softmax_triton", 'mask=columna < n, other=float("-inf"))', "mask=columna < BLOQUE)", "salió nan"),
        (
            "recoge",
            "fila, mask=vivo[:, None])\n    ### END",
            "fila)\n    ### END",
            "escribiste en las filas a partir de",
        ),
        ("decode_triton", ", mask=vivo[:, None], other=0.0)", ")", "leíste memoria que no es tuya"),
    ],
)
def test_a_kernels_fault_is_told_by_its_trace(cells, check, right, wrong, said):
    source = cells[PUBLIC[check].cells[-1]].replace(right, wrong)
    names = names_of(source)
    with pytest.raises(CheckFailed) as failure:
        comprobar(check, names[PUBLIC[check].function])
    assert said in str(failure.value)


def test_a_launcher_that_skips_the_kernel_gains_nothing_hidden(cells):
    """The cell's launcher is the student's to edit; hidden cases launch the kernel by themselves."""
    stub = "@triton.jit\ndef kernel_softmax(x, salida, n, paso, BLOQUE: tl.constexpr):\n    pass\n\n\n"
    skip = (
        "def softmax_filas(x, n):\n    y = torch.full_like(x, -7.0)\n    y[:, :n] = x[:, :n].softmax(1).nan_to_num()\n"
    )
    names = names_of(f"{stub}{skip}    return y\n")
    comprobar("softmax_triton", names["kernel_softmax"])
    assert not any(passed_apart(hidden_check(LAB, "softmax_triton", 0), names))
    plain = names_of(stub.removeprefix("@triton.jit\n") + skip)
    assert not any(passed_apart(hidden_check(LAB, "softmax_triton", 0), plain))


def test_the_worker_of_the_grader_runs_kernels_within_its_limits(solved, cells):
    """Triton's interpreter in the isolated worker: memory, time, and the source that it looks for."""
    prelude, imports, checks = cases_of(LAB, 1)
    check: Check = checks["prueba_decode_triton"]
    mark = grade_check(check, solved(LAB), prelude, imports, choose_isolation([], True))
    assert mark.fraction == 1.0, (mark.notice, [r for r in mark.results if not r.passed])


def test_without_triton_the_checks_say_so_in_spanish():
    """macOS, Windows: the notebook opens, torch exercises work, and a kernel's check names the reason."""
    script = """
import sys
sys.modules["triton"] = None
from minilab.bancos.con_triton import HAY_TRITON, tl, triton
from minilab.comprobar import CheckFailed, comprobar
import torch

@triton.jit
def kernel_softmax(x, salida, n, paso, BLOQUE: tl.constexpr):
    pass

def softmax_filas(x, n):
    salida = torch.full_like(x, -7.0)
    kernel_softmax[(x.shape[0],)](x, salida, n, x.stride(0), BLOQUE=triton.next_power_of_2(n))
    return salida

assert not HAY_TRITON and triton.cdiv(7, 4) == 2 and triton.next_power_of_2(5) == 8
try:
    comprobar("softmax_triton")
except CheckFailed as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "aquí no hay Triton, que solo existe para Linux" in done.stdout and done.stderr == ""


def test_the_oracles_agree_with_counting_by_hand():
    assert nucleos.softmax([-math.inf, -math.inf]) == [0.0, 0.0]
    assert nucleos.summary([1.0, 3.0]) == [3.0, pytest.approx(1 + math.exp(-2))]
    shape = {"parametros": 100, "capas": 1, "cabezas": 2, "cabezas_kv": 1, "dim": 4, "bytes_peso": 2, "bytes_kv": 2}
    assert nucleos.intensity(1, 0, shape) == 1.0
    assert nucleos.intensity(3, 10, shape) == pytest.approx(3 * (200 + 320) / (200 + 3 * 160))
    kernels = [{"lee": ["x", "r"], "escribe": ["t"]}, {"lee": ["t", "w"], "escribe": ["y"]}]
    assert nucleos.fused(kernels, ["y"]) == {"lee": ["x", "r", "w"], "escribe": ["y"]}


def test_paged_cases_keep_nan_wherever_nobody_may_look():
    named, expected = nucleos.paged_case(Random(0), [5, 3], [2, 1])
    flat = nucleos._flat(named["claves"]["valores"])
    assert flat.count("nan") == len(flat) - (5 + 3) * 2 * 8
    assert len(expected) == 3 and not any(isinstance(x, str) for x in nucleos._flat(expected))


def test_the_students_attention_drives_the_engine(cells, tiny):
    attention = names_of(cells["atencion_paginada"])["atencion_paginada"]
    prompts = ["a text", "a longer text to begin with, so that it takes more than one block", "b"]
    result = lado_a_lado(
        tiny, prompts, {"attention.paged": attention}, max_tokens=12, veces=1, max_num_batched_tokens=32
    )
    assert result.iguales


def test_the_students_kernel_decodes_in_the_engine(cells, solved, tiny):
    """As in the notebook: prefill in torch, decode by the kernel, in the interpreter."""
    [mixed] = [
        c.source for c in solved(LAB).cells if c.cell_type == "code" and c.source.startswith("def atencion_mixta")
    ]
    names = names_of(cells["atencion_paginada"], cells["decode_triton"], mixed.partition("pocos = ")[0])
    params = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
    answers = []
    for parts in ({"attention.paged": names["atencion_mixta"]}, {}):
        with LLM(tiny.carpeta, seams=con(parts)) as llm:
            answers.append([o.outputs[0].token_ids for o in llm.generate(["one", "two and a half"], params)])
    assert answers[0] == answers[1]


def test_the_map_of_accesses_shows_rows_padding_and_strays(cells):
    import torch

    from minilab.bancos.accesos import registra, ver_accesos

    names, x = names_of(cells["softmax_triton"]), torch.randn(3, 8)
    state = registra(lambda: names["softmax_filas"](x, 5), x=x)
    assert len(state.programas) == 3 and state.fuera == 0
    assert state.quienes("x") == {8 * row + column: {row + 1} for row in range(3) for column in range(5)}
    assert state.tocados("salida", 2, True) == 5 and state.saltos("x", 2) == 1
    assert state.solo(2).quienes("x").keys() == set(range(8, 13))
    with pytest.raises(ValueError, match="hay 3 programas"):
        state.solo(4)
    wide = registra(lambda: names["kernel_softmax"][(3,)](x, x.clone(), 8, 5, BLOQUE=8), x=x)
    assert any(len(who) > 1 for who in wide.quienes("x").values()), "rows that overlap"
    for seen in (state, wide, state.solo(2)):
        check_rules(dibuja_accesos(seen))
    panel = ver_accesos(lambda: names["softmax_filas"](x, 5), x=x)
    panel.mandos["programa"].value = 2
    assert isinstance(panel.vista, Vista) and "el 2" in panel.vista.titulo
    assert "15 de 24" in repr(ver_accesos(lambda: names["softmax_filas"](x, 5), x=x))


def test_recorded_figures_come_with_their_origin():
    for table in (kernels_grabados("decode attention"), fusion_grabada(), lanzamientos_grabados()):
        assert table.tabla.filas and "reports/gpu-h100" in table.origen and "H100" in table.origen
        assert table.origen in table._repr_html_()
    assert KERNELS in fusion_grabada().origen


def test_kernels_leave_for_a_gpu_in_a_process_of_their_own(cells, monkeypatch):
    names = names_of(cells["decode_triton"])
    parts = [names[name] for name in ("actualiza", "lee_pagina", "kernel_decode", "decode_paginado")]
    monkeypatch.setattr(gpu_process.shutil, "which", lambda name: None)
    assert "este equipo no tiene GPU de NVIDIA" in repr(gpu_process.en_gpu(*parts))
    source = gpu_process.program(*parts)
    assert source.count("@triton.jit") == 3 and "TRITON_INTERPRET" not in source
    compile(source, "kernels.py", "exec")
    monkeypatch.setattr(gpu_process.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(gpu_process, "program", lambda *_: "raise RuntimeError('no hay dispositivo')")
    assert repr(gpu_process.en_gpu(*parts)) == "No medido en una GPU: RuntimeError: no hay dispositivo."
    answer = '{"gpu": "X", "error": 1e-6, "bytes": 4000000, "tuya": 2.0, "sdpa": 3.0}'
    monkeypatch.setattr(gpu_process, "program", lambda *_: f"print('{answer}')")
    assert gpu_process.en_gpu(*parts).gb_s == 2000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernels_of_the_solution_hold_on_a_gpu(cells):
    names = names_of(cells["decode_triton"])
    parts = [names[name] for name in ("actualiza", "lee_pagina", "kernel_decode", "decode_paginado")]
    measured = gpu_process.en_gpu(*parts)
    assert measured.error < 1e-5 and measured.gb_s > 0


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)

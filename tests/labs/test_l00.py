"""Lab 0: its solution holds in every hidden case, and each common wrong answer is caught where its page says."""

from __future__ import annotations

import pytest
from mutants import (
    Mutant,
    assert_caught,
    assert_page_names_each,
    assert_solution_passes,
    hidden_check,
    names_of,
    results,
    solution_cells,
)

from minilab.marcas import sirve
from minilab.modelo import make_tiny_model
from minilab.pruebas.publicas import checks_of
from minillm_serve import LLM

LAB = "L00_puesta_a_punto"
PUBLIC = checks_of("l00")

MUTANTS = [
    Mutant("percentil", "no ordena la lista", "sorted(valores)", "valores"),
    Mutant("percentil", "no interpola", "* (posicion - abajo)", "* 0"),
    Mutant("percentil", "posición n · p / 100", "(len(orden) - 1) * p", "len(orden) * p"),
    Mutant("medidas_de", "TPOT = total / tokens", "sum(itl) / len(itl)", "(orden[-1] - inicio) / len(orden)"),
    Mutant("medidas_de", "supone los instantes en orden", "sorted(tiempos)", "list(tiempos)"),
    Mutant("medidas_de", "acepta un token anterior al inicio", " or orden[0] < inicio", ""),
    Mutant("medidas_de", "rechaza el token del mismo instante", "orden[0] < inicio", "orden[0] <= inicio", hidden=True),
    Mutant(
        "throughput",
        "suma las velocidades",
        'sum(p["tokens"] for p in peticiones) / reloj',
        'sum(p["tokens"] / (p["fin"] - p["inicio"]) for p in peticiones)',
    ),
    Mutant("throughput", "mira la última de la lista", 'max(p["fin"] for p in peticiones)', 'peticiones[-1]["fin"]'),
    Mutant("throughput", "el reloj empieza en 0", ' - min(p["inicio"] for p in peticiones)', ""),
    Mutant("throughput", "divide entre cero", "reloj <= 0", "False", hidden=True),
    Mutant("mide_funcion", "no calienta", "range(calienta)", "range(0)"),
    Mutant("mide_funcion", "no espera al final", "funcion()\n        espera()\n", "funcion()\n"),
    Mutant("mide_funcion", "no espera al principio", "espera()\n        antes", "antes"),
    Mutant("mide_funcion", "supone que hay sincroniza", "sincroniza or (lambda: None)", "sincroniza"),
    Mutant("mide_funcion", "ordena las lecturas", '"lecturas": lecturas', '"lecturas": sorted(lecturas)'),
    Mutant("mide_funcion", "da la media", "percentil(lecturas, 50)", "sum(lecturas) / veces", hidden=True),
    Mutant("razon_honesta", "no compara la carga", "for campo in IGUALES:", "for campo in ():"),
    Mutant(
        "razon_honesta",
        "si falta en las dos, coincide",
        "campo not in base or campo not in medida or base[campo] != medida[campo]",
        "base.get(campo) != medida.get(campo)",
    ),
    Mutant(
        "razon_honesta",
        "divide la base entre la medida",
        'medida["tok_s"] / base["tok_s"]',
        'base["tok_s"] / medida["tok_s"]',
    ),
    Mutant("razon_honesta", "la frase no nombra la base", "contra {base['sistema']}, {base['modo']}", "más rápido"),
    Mutant("bases_que_cumplen", "se compara consigo mismo", "b != sistema and ", ""),
    Mutant("bases_que_cumplen", "divide al revés", "suya / tok_s", "tok_s / suya"),
    Mutant("bases_que_cumplen", "excluye los extremos", "<= suya / tok_s <=", "< suya / tok_s <", hidden=True),
    Mutant("bases_que_cumplen", "no ordena los nombres", "sorted(b for", "list(b for", hidden=True),
]


def test_the_solution_passes_every_hidden_case(solved):
    assert_solution_passes(LAB, solution_cells(solved(LAB)), range(5))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(solved, mutant):
    assert_caught(LAB, solution_cells(solved(LAB)), mutant)


def test_refusing_everything_earns_nothing_where_refusals_are_asked_for():
    always = "def {0}(*args, **kwargs):\n    raise ValueError('modelo dtype equipo prompts nuevos')\n"
    for name in ("percentil", "medidas_de", "throughput", "mide_funcion", "razon_honesta"):
        found = results(hidden_check(LAB, name, 3), names_of(LAB, always.format(name)))
        assert not any(r.passed for r in found), name


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)


def test_token_times_are_those_of_the_clock_that_was_given(tmp_path):
    ticks = iter(range(10_000))
    llm = LLM(make_tiny_model(tmp_path / "mini"))
    together = sirve(llm, ["One", "Two words", "And three words"], 4, reloj=lambda: float(next(ticks)))
    assert [m["tokens"] for m in together] == [4, 4, 4]
    assert len({m["inicio"] for m in together}) == 1 and together[0]["tiempos"] == together[2]["tiempos"]
    for m in together:
        assert m["inicio"] < m["tiempos"][0] and m["tiempos"] == sorted(m["tiempos"]) and m["fin"] == m["tiempos"][-1]
    apart = sirve(llm, ["One", "Two words"], 3, a_la_vez=False, reloj=lambda: float(next(ticks)))
    assert apart[0]["fin"] < apart[1]["inicio"]


def test_few_places_make_the_others_wait(tmp_path):
    """Section 4 shows the tail of TTFT: with two places, pairs of requests start one after the other."""
    ticks = iter(range(10_000))
    llm = LLM(make_tiny_model(tmp_path / "mini"), max_num_seqs=2)
    first = [m["tiempos"][0] for m in sirve(llm, ["One", "Two", "Three", "Four"], 3, reloj=lambda: float(next(ticks)))]
    assert first[0] == first[1] < first[2] == first[3]

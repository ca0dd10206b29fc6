"""Lab 2: its solution holds in every hidden case, common wrong answers are caught, and its parts drive the engine."""

from __future__ import annotations

from functools import partial

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

from minilab.bancos.lotes import Banco, BrokenRule, EnLotes, espera_media, esperas, reloj_virtual
from minilab.motor import lado_a_lado, traza
from minilab.pruebas.lotes import continuous_rows, static_rows
from minilab.pruebas.publicas import checks_of
from minillm_serve import LLM, SamplingParams

LAB = "L02_batching_continuo"
PUBLIC = checks_of("l02")
QUESTIONS = ["One", "Two words", "And three words", "Four of them here", "Five", "Six is the last one of all"]

MUTANTS = [
    Mutant("lugares_vacios", "no cuenta el lugar que nadie pidió", "lugares * max(lote)", "len(lote) * max(lote)"),
    Mutant("lugares_vacios", "la más larga de todas", "max(lote)", "max(largos)"),
    Mutant("estatico", "empieza cuando acaba la última de la lista", "inicio += max(lote)", "inicio += lote[-1]"),
    Mutant("estatico", "numera dentro del lote", "[primero + i,", "[i,"),
    Mutant("estatico", "no suma los inicios", "inicio += max(lote)", "inicio = max(lote)"),
    Mutant("continuo", "reparte los lugares por turno", "libre.index(min(libre))", "i % lugares"),
    Mutant("continuo", "olvida la llegada", "max(libre[lugar], llegadas[i])", "libre[lugar]"),
    Mutant("continuo", "entra al llegar aunque no haya lugar", "max(libre[lugar], llegadas[i])", "llegadas[i]"),
    Mutant("razones", "divide al revés", "una_a_una / en_lotes", "en_lotes / una_a_una"),
    Mutant("razones", "cambia la base del continuo", '"continuo": una_a_una', '"continuo": en_lotes'),
    Mutant("razones", "cobra los pasos vacíos", "len(con_alguien)", "max((f for _, _, f in filas), default=0)"),
    Mutant("razones", "paga la lectura por petición", "len(con_alguien)", "sum(f - i for _, i, f in filas)"),
    Mutant(
        "planificador_continuo",
        "espera a que el lote se vacíe",
        "while self.espera and",
        'while self.espera and not any(p["desde"] for p in self.activas) and',
    ),
    Mutant("planificador_continuo", "no devuelve los bloques", 'self.memoria.devuelve(p["bloques"])', "pass"),
    Mutant("planificador_continuo", "reserva solo el prompt", "len(prompt) + max_nuevos - 1", "len(prompt)"),
    Mutant(
        "planificador_continuo", "no mira los lugares", 'len(self.activas) < self.limites["max_peticiones"]', "True"
    ),
    Mutant("planificador_continuo", "vuelve a calcular desde 0", 'p["desde"] += len(p["tokens"])', 'p["desde"] += 0'),
    Mutant(
        "planificador_continuo",
        "reserva un token de más",
        "len(prompt) + max_nuevos - 1",
        "len(prompt) + max_nuevos",
        hidden=True,
    ),
    Mutant(
        "planificador_continuo",
        "manda al final a la que no cabe",
        "                break",
        "                self.espera.append(self.espera.pop(0))\n                break",
        hidden=True,
    ),
    Mutant(
        "planificador_continuo",
        "no cuenta el token de las activas",
        'self.limites["max_tokens"] - len(self.activas)',
        'self.limites["max_tokens"]',
        hidden=True,
    ),
    Mutant(
        "politica",
        "sin envejecer",
        "peticion.arrival_step + ESPERA * peticion.num_prompt_tokens / MAX_PROMPT",
        "peticion.num_prompt_tokens",
    ),
    Mutant(
        "politica",
        "por orden de llegada",
        "peticion.arrival_step + ESPERA * peticion.num_prompt_tokens / MAX_PROMPT",
        "peticion.arrival_step",
    ),
    Mutant(
        "politica", "castigo sin tope", "ESPERA * peticion.num_prompt_tokens / MAX_PROMPT", "peticion.num_prompt_tokens"
    ),
    Mutant(
        "politica",
        "una tanda cada ESPERA pasos",
        "peticion.arrival_step + ESPERA * peticion.num_prompt_tokens / MAX_PROMPT",
        "(peticion.arrival_step // ESPERA, peticion.num_prompt_tokens)",
        hidden=True,
    ),
    Mutant(
        "politica",
        "castigo cortado",
        "ESPERA * peticion.num_prompt_tokens / MAX_PROMPT",
        "min(peticion.num_prompt_tokens, ESPERA)",
        hidden=True,
    ),
]


@pytest.fixture
def names(solved):
    """What the solved notebook defines for the engine."""
    cells = solution_cells(solved(LAB))
    return names_of(LAB, cells["planificador_continuo"], cells["politica"])


def test_the_solution_passes_every_hidden_case(solved):
    assert_solution_passes(LAB, solution_cells(solved(LAB)), range(6))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(solved, mutant):
    assert_caught(LAB, solution_cells(solved(LAB)), mutant, seeds=(3, 4))


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)


def test_a_static_batch_earns_part_of_the_marks(solved):
    """The bound is honest: 5 times needs a batch that is decided at every step; below it the credit is linear."""
    cells = solution_cells(solved(LAB))
    mutant = next(m for m in MUTANTS if m.told == "espera a que el lote se vacíe")
    own = cells["planificador_continuo"].replace(mutant.right, mutant.wrong)
    for seed in range(4):
        found = {r.name: r for r in results(hidden_check(LAB, mutant.check, seed), names_of(LAB, own))}
        for load in ("throughput: mezcladas", "throughput: a ráfagas"):
            assert not found[load].passed and 0.2 < found[load].credit < 0.8, (seed, found[load])


def test_a_constant_rank_earns_nothing():
    constant = "class Politica:\n    pass\ndef rangos(p):\n    return [0] * len(p)\n"
    assert not any(r.passed for r in results(hidden_check(LAB, "politica", 3), names_of(LAB, constant)))


def test_the_students_scheduler_gives_the_engines_tokens(names, tiny):
    run = Banco(tiny).corre(names["PlanificadorContinuo"], QUESTIONS, 6, lugares=4)
    llm = LLM(tiny.carpeta, kernels="torch")
    outputs = llm.generate(Banco(tiny).ids(QUESTIONS), SamplingParams(max_tokens=6, temperature=0.0, ignore_eos=True))
    assert run.tokens == tuple(tuple(o.outputs[0].token_ids) for o in outputs)


def test_the_runs_on_the_model_are_the_plans_on_paper(names, tiny):
    """Continuous, and the same scheduler fed batch by batch: as many steps as the notebook's own two functions say."""
    lengths, bench, scheduler = [2, 9, 3, 2, 7, 2], Banco(tiny), names["PlanificadorContinuo"]
    plans = {
        scheduler: continuous_rows(lengths, 2, [0] * 6),
        partial(EnLotes, scheduler): static_rows(lengths, 2),
    }
    for maker, rows in plans.items():
        run = bench.corre(maker, QUESTIONS, lengths, lugares=2)
        assert [len(t) for t in run.tokens] == lengths
        assert run.pasos == max(end for _, _, end in rows)
        drawn = {name: (min(r[1] for r in run.filas if r[0] == name), max(r[2] for r in run.filas if r[0] == name))
                 for name in {r[0] for r in run.filas}}  # fmt: skip
        assert drawn == {f"p{i}": (start, end) for i, start, end in rows}


def test_a_broken_rule_is_told_in_one_sentence(names, tiny):
    class Hasty(names["PlanificadorContinuo"]):
        def paso(self):
            return [{**entry, "desde": entry["desde"] + 1} for entry in super().paso()]

    for play in (lambda: reloj_virtual(Hasty), lambda: Banco(tiny).corre(Hasty, QUESTIONS, 4, lugares=2)):
        with pytest.raises(BrokenRule, match="paso 1: petición") as failure:
            play()
        assert failure.value._render_traceback_() == [str(failure.value)]


def test_batches_lose_where_lengths_differ(names):
    continuous = reloj_virtual(names["PlanificadorContinuo"])
    batches = reloj_virtual(partial(EnLotes, names["PlanificadorContinuo"]))
    assert all(ratio > 5 for ratio in continuous.values())
    assert batches["mezcladas"] < 5 < batches["cortas"]


def test_the_policy_drives_the_engines_queue(names, tiny):
    long = "word " * 60
    queue = [long, long, *QUESTIONS]
    options = {"max_tokens": 3, "max_num_seqs": 1, "enable_prefix_caching": False}
    both = lado_a_lado(tiny, queue, {"sched.policy": names["Politica"]}, veces=1, **options)
    assert both.iguales
    lengths = [r["prompt_tokens"] for r in sorted(both.traza["requests"].values(), key=lambda r: r["first_token"])]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    assert espera_media(traza(tiny, queue, **options)) > 0


def test_without_ageing_the_long_one_starves_and_with_it_it_does_not(names):
    class Shortest:
        def rank(self, request):
            return request.num_prompt_tokens

    arrivals = [(0, 64), (0, 64), (0, 2000), *((step, 64) for step in range(1, 600))]
    rangos = names["rangos"]
    assert esperas(partial(rangos, clase=Shortest), arrivals, 2)[2] is None
    assert 0 < esperas(rangos, arrivals, 2)[2] <= names["ESPERA"]

"""Lab 7: wrong answers are caught where the instructor page says so, and the student's parts drive the live engine."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
import pytest
from chi_squared import chi_squared
from mutants import page_rows

from minilab.bancos.especulativa import (
    Buscador,
    Carrera,
    Corredor,
    cabeza,
    carrera,
    coste_por_tokens,
    traza_de,
    verificador,
    verificador_voraz,
)
from minilab.comprobar import CheckFailed, comprobar
from minilab.modelo import elige_modelo
from minilab.pruebas.casos import Check, Reply, Result, StudentError, judge_case, play_case
from minilab.pruebas.especulacion import FAULTY, greedy
from minilab.pruebas.ji_cuadrado import ji_cuadrado
from minilab.pruebas.publicas import checks_of
from minilab.pruebas.remoto import LocalRemote
from minilab_grading.casos import l07_especulativa as hidden
from minillm_serve import SamplingParams
from minillm_serve.sample.rejection import verify
from minillm_serve.spec.ngram import NgramProposer

LAB = "L07_especulativa"
PUBLIC = checks_of("l07")
SEEDS = (0, 1, 20261123)
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 3}


@pytest.fixture(scope="session")
def sources() -> dict[str, str]:
    from minilab import construir

    notebook = construir.instructor(construir.SOURCE_FOLDER / f"{LAB}.py")
    cells = [c for c in notebook.cells if c.cell_type == "code" and c.metadata.get("nbgrader", {}).get("solution")]
    return {c.metadata.nbgrader.grade_id: c.source for c in cells}


@pytest.fixture(scope="session")
def student(sources) -> dict:
    """The solved notebook's functions, as the grader's worker has them."""
    return namespace(*sources.values())


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setenv("MINILAB_MODELO", "mini")
    return elige_modelo()


def namespace(*cells: str) -> dict:
    names: dict = {}
    for source in (hidden.PRELUDE, *cells):
        exec(source, names)
    return names


def verdicts(check: Check, names: dict, only: str = "") -> dict[str, Result]:
    """Case name -> verdict, without the worker; ``only`` of this case."""
    remote, found = LocalRemote(names), {}
    for case in (case for case in check.cases if only in ("", case.name)):
        if case.play is not None:
            found[case.name] = play_case(case, remote)
            continue
        try:
            reply = Reply(value=remote.function(check.function, *case.args))
        except StudentError as error:
            reply = Reply(error=error.error, message=error.message)
        found[case.name] = judge_case(case, reply)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_the_solution_passes_the_hidden_cases(student, seed):
    for check in hidden.checks(seed).values():
        failed = {name: result for name, result in verdicts(check, student).items() if not result.passed}
        assert failed == {}


def test_no_case_asks_for_a_choice_that_rounding_decides(sources):
    """The sum and the closed formula differ in their last digits: both are right, with any seed."""
    closed = "    return k + 1 if alfa == 1 else (1 - alfa ** (k + 1)) / (1 - alfa)\n"
    by_sum = "    return sum(alfa**i for i in range(k + 1))\n"
    assert by_sum in sources["ganancia"]
    for source in (sources["ganancia"], sources["ganancia"].replace(by_sum, closed)):
        names = namespace(source)
        for seed in range(150):
            check = Check("ganancia", "ganancia", ("ganancia",), hidden._gain(Random(seed)))
            assert all(result.passed for result in verdicts(check, names).values()), seed


def test_the_cases_hang_on_the_seed_alone_and_differ_between_seeds():
    asked = [[repr(case.args) for case in hidden.checks(seed)["prueba_rebobina"].cases] for seed in (1, 1, 2)]
    assert asked[0] == asked[1]
    runs = [[_recorded(case) for case in hidden.checks(seed)["prueba_rebobina"].cases] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def _recorded(case) -> list:
    """What a play asks of the student."""

    class Recorder:
        def function(self, name, *args):
            calls.append((name, args))
            raise StudentError("ValueError")

    calls: list = []
    with pytest.raises(StudentError):
        case.play(Recorder())
    return calls


# ---- Common wrong answers: cell, what is replaced (None: what is defined again), by what, the hidden case or "public"

VORAZ = "def verifica_voraz(borrador, elegidos):\n    "
MISTAKES = {
    "lo de los apuntes": ("voraz", None, VORAZ + "return elegidos[: len(borrador)]", "public"),
    "sin regalo": ("voraz", "return [*borrador[:valen], elegidos[valen]]",
                   "return borrador if valen == len(borrador) > 0 else [*borrador[:valen], elegidos[valen]]", "public"),
    "coincidencias sueltas": ("voraz", None, VORAZ + "n = sum(a == b for a, b in zip(borrador, elegidos))\n"
                              "    return [*borrador[:n], elegidos[n]]", "public"),
    "la primera aparición": ("busca_ngram", "range(len(tokens) - largo - 1, -1, -1)", "range(len(tokens) - largo)",
                             "public"),
    "se encuentra a sí mismo": ("busca_ngram", "len(tokens) - largo - 1, -1", "len(tokens) - largo, -1", "public"),
    "la más corta primero": ("busca_ngram", "range(min(n, len(tokens) - 1), 0, -1)",
                             "range(1, min(n, len(tokens) - 1) + 1)", "public"),
    "sin solaparse": ("busca_ngram", "len(tokens) - largo - 1, -1", "len(tokens) - 2 * largo, -1",
                      "apariciones que se solapan"),
    "cuenta el último token": ("rebobina", "largo + len(nuevos) - 1", "largo + len(nuevos)", "public"),
    "corta sin el fin": ("rebobina", "salida.index(fin) + 1", "salida.index(fin)", "public"),
    "no mira el fin": ("rebobina", "salida[: salida.index(fin) + 1] if fin in salida else salida", "salida", "public"),
    "llenos hacia arriba": ("rebobina", '"llenos": kv // tam_bloque', '"llenos": -(-kv // tam_bloque)', "public"),
    "el último fin": ("rebobina", "salida.index(fin)", "(len(salida) - 1 - salida[::-1].index(fin))",
                      "dos veces el fin"),
    "el sustituto, de p": ("verifica", "residuo if any(residuo) else p[i]", "p[i]", "public"),
    "menor o igual": ("verifica", ">= p[i][d]", "> p[i][d]", "public"),
    "el mismo número dos veces": ("verifica", "p[i], u_sortea", "p[i], u_acepta", "public"),
    "sin token de regalo": ("verifica", "return [*borradores, sortea(p[-1], uniformes[-1][1])]", "return borradores",
                            "public"),
    "regalo de la fila anterior": ("verifica", "sortea(p[-1]", "sortea(p[max(0, len(borradores) - 1)]", "public"),
    "residuo sin signo": ("verifica", "max(b - a, 0.0)", "abs(b - a)", "public"),
    "mayor o igual al sortear": ("verifica", None, "def sortea(pesos, u):\n    meta, suma = u * sum(pesos), 0.0\n"
                                 "    for i, peso in enumerate(pesos):\n        suma += peso\n"
                                 "        if suma >= meta:\n            return i\n", "public"),
    "divide por q": ("verifica", "u_acepta * fila_q[d] >= p[i][d]", "u_acepta >= p[i][d] / fila_q[d]",
                     "borradores que p o q no darían"),
    "residuo vacío": ("verifica", "residuo if any(residuo) else p[i]", "residuo", "residuo todo ceros"),
    "nadie se pasa de la lista": ("verifica", None, "def sortea(pesos, u):\n    suma = 0.0\n"
                                  "    for i, peso in enumerate(pesos):\n        suma += peso\n"
                                  "        if suma > u:\n            return i\n    return len(pesos) - 1\n", "public"),
    "solo su propio rechazo": ("ley", "rechazo * r", "propone * (1 - si) * r", "public"),
    "sin camino de vuelta": ("ley", " + rechazo * r", "", "public"),
    "1 + k·α": ("ganancia", "sum(alfa**i for i in range(k + 1))", "1 + k * alfa", "public"),
    "la fracción, también con 1": ("ganancia", "sum(alfa**i for i in range(k + 1))",
                                   "(1 - alfa ** (k + 1)) / (1 - alfa)", "public"),
    "la base de una petición": ("ganancia", "sin = tiempo_de_paso(n, libres, pendiente)", "sin = 1", "public"),
    "proponer es gratis": ("ganancia", " + k * c", "", "public"),
    "siempre especula": ("ganancia", "max(range(maximo + 1)", "max(range(1, maximo + 1)", "public"),
    "de dos iguales, el mayor": ("ganancia", "max(range(maximo + 1)", "max(reversed(range(maximo + 1))",
                                 "cuando no compensa"),
    "una sola prueba": ("caza_errores", None, "def mis_pruebas():\n    return [{'borrador': [1], 'elegidos': [9, 4],"
                        " 'esperado': [9]}]", "public"),
    "espera lo equivocado": ("caza_errores", "\"esperado\": [9]}", "\"esperado\": [9, 2, 3]}", "public"),
    "sin el caso vacío": ("caza_errores", '        {"borrador": [], "elegidos": [5], "esperado": [5]},\n', "",
                          "caza: sin borradores no da nada"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_common_mistake_is_caught_where_the_page_says(sources, mistake):
    cell, old, new, where = MISTAKES[mistake]
    assert old is None or old in sources[cell], "the solution has changed: write the mistake anew"
    names = namespace(
        *([sources[cell]] if old is None else []), new if old is None else sources[cell].replace(old, new)
    )
    if where == "public":
        with pytest.raises(CheckFailed, match=f"✘ {cell}: \\d"):
            comprobar(cell, names[PUBLIC[cell].function])
        return
    assert "superadas" in repr(comprobar(cell, names[PUBLIC[cell].function])), "the public check catches it already"
    for seed in SEEDS:
        assert not verdicts(hidden.checks(seed)[f"prueba_{cell}"], names, where)[where].passed


def test_a_wrong_rule_is_refuted_by_its_law_alone(sources):
    """With a replacement drawn from p the tokens look right one by one: the counts do not."""
    hasty = sources["verifica"].replace("residuo if any(residuo) else p[i]", "p[i]")
    found = verdicts(hidden.checks(3)["prueba_verifica"], namespace(hasty))
    laws = [result for name, result in found.items() if name.startswith("χ²")]
    assert len(laws) == 4 and not any(law.passed for law in laws)
    assert found["nunca un token con p = 0"].passed


def test_one_who_goes_on_behind_a_rejected_draft_is_caught(sources):
    on = (
        "def verifica(borradores, q, p, uniformes):\n"
        "    salen = []\n"
        "    for i in range(len(borradores)):\n"
        "        salen += _una(borradores[i : i + 1], None if q is None else q[i : i + 1], p[i : i + 2],"
        " uniformes[i : i + 2])[:1]\n"
        "    return salen + [sortea(p[-1], uniformes[-1][1])]\n"
    )
    names = namespace(sources["verifica"].replace("def verifica(", "def _una("), on)
    found = verdicts(hidden.checks(5)["prueba_verifica"], names)
    assert not found["borradores sorteados de q"].passed and not found["sin q"].passed


@pytest.mark.parametrize("fault", FAULTY)
def test_every_faulty_verifier_differs_from_a_good_one_on_a_short_example(fault):
    examples = [
        (list(drafts), list(chosen))
        for k in range(4)
        for drafts in itertools.product((1, 2), repeat=k)
        for chosen in itertools.product((1, 2), repeat=k + 1)
    ]
    assert any(FAULTY[fault](list(d), list(c)) != greedy(d, c) for d, c in examples)


def test_constants_and_public_answers_by_heart_earn_next_to_nothing(sources):
    by_heart = namespace(
        "def verifica_voraz(b, e):\n    return [7, 8, 5]",
        "def busca_ngram(t, n, k):\n    return []",
        "def rebobina(*a):\n    return {'nuevos': [5], 'kv': 12, 'sobran': 2, 'bloques': 3, 'llenos': 3}",
        "def sortea(p, u):\n    return 1\ndef verifica(b, q, p, u):\n    return [*b, 0]",
        "def ley(q, a, r):\n    return q",
        "def tokens_por_paso(a, k):\n    return 1\ndef ganancia(*a):\n    return 1.0\ndef mejor_k(*a):\n    return 0",
    )
    for grade_id in ("voraz", "busca_ngram", "rebobina", "verifica", "ley", "ganancia"):
        results = verdicts(hidden.checks(9)[f"prueba_{grade_id}"], by_heart).values()
        passed = sum(r.weight for r in results if r.passed) / sum(r.weight for r in results)
        assert passed <= 0.2, (grade_id, [r.name for r in results if r.passed])


# ---- The oracle of the hidden cases is the engine's own rule


def test_the_oracle_agrees_with_the_engine_on_every_call():
    for drawn in ("q", "None", "any"):
        for drafts, q, p, uniforms in hidden._asked(Random(4), 200, drawn):
            share = None if q is None else np.array(q).reshape(len(drafts), len(p[0]))
            assert hidden.verified(drafts, q, p, uniforms) == verify(drafts, share, np.array(p), np.array(uniforms))


def test_the_search_agrees_with_the_engines_index(student):
    """Where the copy ends with the text the engine reads on in its own draft; the student's stops."""
    rng = Random(8)
    for _ in range(300):
        text = [rng.randrange(3) for _ in range(rng.randrange(1, 30))]
        theirs, ours = NgramProposer(1, 3), Buscador(student["busca_ngram"], 3)
        for proposer in (theirs, ours):
            proposer.add(0, text[:-1])
            proposer.extend(0, text[-1:])
        engine, own = theirs.propose({0: 5}).get(0, ()), ours.propose({0: 5}).get(0, ())
        assert engine[: len(own)] == own and bool(engine) == bool(own)


def test_the_chi_squared_test_is_the_engines():
    rng = np.random.default_rng(3)
    for cells in (2, 5, 30):
        law = rng.random(cells)
        law /= law.sum()
        counts = rng.multinomial(800, law)
        ours, theirs = ji_cuadrado(counts.tolist(), law.tolist()), chi_squared(counts, law)
        if ours.grados == theirs.degrees:
            assert ours.estadistico == pytest.approx(theirs.statistic) and ours.p_valor == pytest.approx(theirs.p)
    assert ji_cuadrado([3, 7], [0.0, 1.0]).p_valor == 0
    with pytest.raises(ValueError, match="una sola"):
        ji_cuadrado([3], [1.0])


# ---- The live engine


def test_the_greedy_verifier_and_the_search_drive_the_engine(tiny, student):
    own = Corredor(NGRAM, verificador_voraz(student["verifica_voraz"]), student["busca_ngram"])
    found = carrera(tiny, ["a b a b a b a", "hello hello hello"], {"": Corredor(), "own": own}, max_tokens=24, veces=1)
    assert found.iguales("own") and found.cifras["own"]["drafts"] > 0
    assert found.tokens_por_paso("own") > 1 > found.aceptacion("own") > 0
    assert found.alfa("own") > found.aceptacion("own")


@pytest.mark.parametrize("cuts", [{}, {"top_p": 0.8}, {"top_k": 3}])
def test_the_sampling_verifier_gives_the_tokens_of_the_engines_rule(tiny, student, cuts):
    drawn = cabeza(tiny, 3, draft_sample_method="probabilistic", rejection_sample_method="standard", dynamic=False)
    runners = {"engine": Corredor(drawn), "own": Corredor(drawn, verificador(student["verifica"]))}
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=5, ignore_eos=True, **cuts)
    found = carrera(tiny, ["hello", "what is it?"], runners, params=params, veces=1)
    assert found.respuestas["engine"] == found.respuestas["own"] and found.cifras["own"]["drafts"] > 0


def test_a_wrong_verifier_changes_the_text_and_the_race_says_so(tiny, student):
    """The notes' rule, with the bonus token that the engine insists on."""
    hasty = Corredor(NGRAM, verificador_voraz(lambda drafts, chosen: [*drafts, chosen[-1]]))
    found = carrera(tiny, ["a b a b a b a"], {"sin": Corredor(), "mal": hasty}, max_tokens=24, veces=1)
    assert not found.iguales("mal") and "NO" in repr(found)


def test_the_greedy_verifier_refuses_a_temperature_in_spanish():
    seam = verificador_voraz(lambda drafts, chosen: chosen[:1])
    with pytest.raises(ValueError, match="temperatura 0"):
        seam([1], None, np.array([[0.5, 0.5], [0.0, 1.0]]), np.zeros((2, 2)))


def test_the_engine_keeps_the_students_accounts(tiny, student):
    """After each step the positions that stand are all known tokens but the last."""
    own = Corredor({**NGRAM, "dynamic": False}, verificador_voraz(student["verifica_voraz"]), student["busca_ngram"])
    trace = traza_de(tiny, ["a b a b a b a", "hello hello"], own, max_tokens=40)
    rewound = 0
    for rid, request in trace["requests"].items():
        length = request["prompt_tokens"]
        kv = 0
        for step in trace["steps"]:
            kv = step.get("new_requests", {}).get(rid, [0, kv])[1]
            if rid not in step["num_tokens"]:
                continue
            kv += step["num_tokens"][rid]
            if rid in step["tokens"]:
                drafts = step.get("drafts", {}).get(rid, [])
                assert kv == length + len(drafts)
                count = student["rebobina"](length, len(drafts), step["tokens"][rid], request["eos_token_ids"][0], 16)
                kv, length, rewound = count["kv"], length + len(count["nuevos"]), rewound + count["sobran"]
    assert rewound > 0
    assert sum(many for _, many in coste_por_tokens(trace).values()) >= 2


def test_figures_of_a_race_are_counted_by_hand():
    row = {"speed_up": 2.0, "same_tokens": True, "acceptance_rate": 0.5, "tokens_per_step": 2.5}
    race = Carrera("base", {"x": row}, {"x": ((4, 4), (4, 1), (2, 0))}, {"x": ()})
    assert race.alfa("x") == 5 / 7
    assert Carrera("base", {"x": row}, {"x": ()}, {"x": ()}).alfa("x") is None
    with pytest.raises(ValueError, match="dos corredores"):
        carrera(None, ["hi"], {"una": Corredor()})


# ---- What the text says


def test_numbers_of_the_text_are_those_of_the_functions(solved, student):
    text = " ".join(" ".join(c.source for c in solved(LAB).cells).split())
    assert "3,36" in text and round(student["tokens_por_paso"](0.8, 4), 2) == 3.36
    q, p = [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]
    hasty = student["ley"](q, [float(a >= b) for a, b in zip(p, q, strict=True)], p)
    assert [round(x, 2) for x in hasty] == [0.62, 0.21, 0.17]
    assert "0,21 en vez de 0,3" in text and "0,62 en vez de 0,6 y 0,17 en vez de 0,1" in text
    assert student["rebobina"](10, 4, [5, 6, 7], 0, 4)["sobran"] == 2


def test_the_instructor_page_lists_these_mistakes_and_says_truly_what_catches_each():
    rows = page_rows(LAB)
    said = {(cell, name): "pública" if where == "public" else "oculta" for name, (cell, *_, where) in MISTAKES.items()}
    assert {key: where.rpartition(", ")[2] for key, where in rows.items()} == said

"""Lab 1: its solution holds in every hidden case, wrong answers are caught, and a student's cache drives the engine."""

from __future__ import annotations

from random import Random

import pytest
import torch
from mutants import (
    Mutant,
    assert_caught,
    assert_page_names_each,
    assert_solution_passes,
    names_of,
    passed,
    solution_cells,
)

from minilab.bancos.bucle import ConTuCache, SinCache, carga
from minilab.comprobar import CheckFailed, comprobar
from minilab.modelo import LabModel, make_tiny_model
from minilab.pruebas.atencion_en_listas import SmallNet, attend, attend_causal, numbers
from minilab.pruebas.casos import Check
from minilab.pruebas.publicas import checks_of
from minilab_grading.casos import l01_cache_kv as hidden
from minilab_grading.casos.l01_cache_kv import work
from minillm_serve import LLM, SamplingParams

LAB = "L01_cache_kv"
PUBLIC = checks_of("l01")

MUTANTS = [
    Mutant("trabajo", "cuenta un paso de más", "range(m)", "range(m + 1)"),
    Mutant("trabajo", "con caché no paga el prompt", "con_cache and paso > 0", "con_cache"),
    Mutant("trabajo", "cada token hace i productos", "sum(i + 1 for i", "sum(i for i"),
    Mutant(
        "trabajo",
        "el token nuevo solo se mira a sí mismo",
        "sum(i + 1 for i in range(primero, longitud))",
        "longitud - primero",
    ),
    Mutant("atencion", "no divide entre √D", " / q.shape[1] ** 0.5", ""),
    Mutant("atencion", "softmax sobre las cabezas", "softmax(puntos, dim=1)", "softmax(puntos, dim=0)"),
    Mutant(
        "atencion",
        "repite la lista entera de grupos",
        "claves.repeat_interleave(comparten, dim=1)",
        "claves.repeat(1, comparten, 1)",
    ),
    Mutant("atencion", "divide entre D", "** 0.5", "** 1.0"),
    Mutant(
        "atencion",
        "softmax a mano, sin restar el máximo",
        "torch.softmax(puntos, dim=1)",
        "torch.exp(puntos) / torch.exp(puntos).sum(1, keepdim=True)",
        hidden=True,
    ),
    Mutant("atencion_causal", "mira al futuro", "ve = antes + i + 1", "ve = claves.shape[0]"),
    Mutant("atencion_causal", "olvida lo que había en la caché", "ve = antes + i + 1", "ve = i + 1"),
    Mutant("atencion_causal", "no se mira a sí mismo", "ve = antes + i + 1", "ve = max(1, antes + i)"),
    Mutant("atencion_causal", "devuelve una lista de tensores", "torch.stack(filas)", "filas"),
    Mutant("cache_kv", "devuelve solo lo nuevo", "return self.claves[capa], self.valores[capa]", "return k, v"),
    Mutant(
        "cache_kv", "pone lo nuevo delante", "torch.cat((guardado[capa], nuevo))", "torch.cat((nuevo, guardado[capa]))"
    ),
    Mutant(
        "cache_kv",
        "guarda todas las capas en la misma",
        "guardado[capa] = nuevo if guardado[capa] is None else torch.cat((guardado[capa], nuevo))",
        "self.claves = self.valores = [nuevo if x is None else torch.cat((x, nuevo)) for x in guardado]",
    ),
    Mutant("cache_kv", "rebobina con x[:-n]", "tensor[:quedan]", "tensor[:-n]"),
    Mutant("cache_kv", "rebobina uno de menos", "quedan = self.largo() - n", "quedan = self.largo() - max(n - 1, 0)"),
    Mutant(
        "cache_kv",
        "rebobina las claves y no los valores",
        "in (self.claves, self.valores):\n            for",
        "in (self.claves,):\n            for",
    ),
    Mutant("cache_kv", "deja n en lugar de quitar n", "tensor[:quedan]", "tensor[:n]"),
    Mutant("cache_kv", "no comprueba n", "if not 0 <= n <= self.largo():", "if False:"),
    Mutant("cache_kv", "deja pasar un n negativo", "if not 0 <= n <= self.largo():", "if n > self.largo():"),
    Mutant(
        "cache_kv",
        "mira la primera capa",
        "0 if self.claves[-1] is None else self.claves[-1]",
        "0 if self.claves[0] is None else self.claves[0]",
    ),
    Mutant("cache_kv", "vacía no sabe su largo", "0 if self.claves[-1] is None else self.claves", "self.claves"),
    Mutant("cache_kv", "vacía no se deja rebobinar", "None if tensor is None else tensor[:quedan]", "tensor[:quedan]"),
    Mutant("genera", "vuelve a meter el texto entero", "ids = [token]", "ids, posicion = [*prompt, *salida], 0"),
    Mutant(
        "genera",
        "empieza en la posición 1",
        "ids, posicion, salida = list(prompt), 0",
        "ids, posicion, salida = list(prompt), 1",
    ),
    Mutant("genera", "repite la última posición", "posicion += len(ids)", "posicion += max(1, len(ids) - 1)"),
    Mutant("genera", "llama una vez de más", "while len(salida) < nuevos:", "for _ in range(nuevos + 1):"),
    Mutant(
        "genera",
        "devuelve también el fin",
        "        if token == fin:\n            break\n        salida.append(token)",
        "        salida.append(token)\n        if token == fin:\n            break",
    ),
    Mutant("genera", "el token 0 pasa por «nada»", "if token == fin:", "if not token or token == fin:"),
    Mutant("genera", "un fin igual a 0 no cuenta", "if token == fin:", "if fin and token == fin:"),
    Mutant("genera", "devuelve tensores", "token = int(logits.argmax())", "token = logits.argmax()"),
    Mutant("bytes_kv", "olvida los valores", "2 * capas", "capas"),
    Mutant("bytes_kv", "olvida las capas", "2 * capas", "2"),
    Mutant(
        "cuantos_caben",
        "redondea hacia arriba",
        "(memoria - pesos) // por_peticion",
        "-(-(memoria - pesos) // por_peticion)",
    ),
    Mutant("cuantos_caben", "no resta los pesos", "(memoria - pesos)", "memoria"),
    Mutant(
        "cuantos_caben",
        "da un número negativo",
        "max(0, (memoria - pesos) // por_peticion)",
        "(memoria - pesos) // por_peticion",
    ),
]


def test_the_solution_passes_every_hidden_case(solved):
    assert_solution_passes(LAB, solution_cells(solved(LAB)), range(4))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(solved, mutant):
    assert_caught(LAB, solution_cells(solved(LAB)), mutant)


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)


# --- the oracles ---


def test_the_oracle_in_lists_is_torchs_attention():
    rng = Random(4)
    for held, heads, groups, dim, asked in ((5, 6, 2, 3, 5), (9, 4, 4, 2, 1), (7, 9, 3, 4, 3)):
        keys, values, queries = (numbers(rng, n, h, dim) for n, h in ((held, groups), (held, groups), (asked, heads)))
        k, v, q = (torch.tensor(x, dtype=torch.float64).transpose(0, 1) for x in (keys, values, queries))
        mask = torch.ones(asked, held, dtype=torch.bool).tril(held - asked)
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).transpose(0, 1)
        torch.testing.assert_close(torch.tensor(attend_causal(queries, keys, values), dtype=torch.float64), expected)
        torch.testing.assert_close(torch.tensor(attend(queries[-1], keys, values), dtype=torch.float64), expected[-1])


def test_the_small_net_depends_on_order_and_position():
    net = SmallNet(Random(2), 2, 4, 2, dim=3, vocab=11, positions=12)
    rows = [net.logits(ids) for ids in ([1, 2, 3], [2, 1, 3], [2, 3])]
    assert len({tuple(round(x, 6) for x in row) for row in rows}) == 3
    (tokens, lead), (first, _) = net.greedy([1, 2, 3], 4), net.greedy([1, 2, 3], 2)
    assert tokens == first + net.greedy([1, 2, 3, *first], 2)[0]
    leads = [sorted(net.logits([1, 2, 3, *tokens[:i]]))[-2:] for i in range(4)]
    assert lead == min(best - second for second, best in leads)


def test_what_the_cached_net_draws_never_hangs_on_rounding(solved):
    """Float32 in the student's worker against the oracle's float64, with many seeds."""
    cells = solution_cells(solved(LAB))
    solution = names_of(LAB, *(cells[c] for c in hidden.DRIVEN))
    for seed in range(40):
        check = Check("genera", "genera", (), tuple(hidden._whole(Random(seed))))
        assert all(passed(check, solution)), seed


def test_work_is_what_the_closed_forms_say():
    for n, m in ((1, 1), (3, 2), (17, 40)):
        last = n + m - 1
        assert work(n, m, True) == {"tokens": last, "productos": last * (last + 1) // 2}
        each = range(n, n + m)
        assert work(n, m, False) == {"tokens": sum(each), "productos": sum(t * (t + 1) // 2 for t in each)}


SECOND_CALL_WRONG = """
def genera(modelo, prompt, nuevos, fin=None):
    ids, salida = list(prompt), []
    while len(salida) < nuevos:
        token = int(modelo(ids, list(range(len(ids)))).argmax())
        if token == fin:
            break
        salida.append(token)
        ids = [token]
    return salida
"""


# --- the student's cache under the real engine's model ---


@pytest.fixture
def solution(solved) -> dict:
    cells = solution_cells(solved(LAB))
    return names_of(LAB, *(cells[c] for c in PUBLIC["genera"].cells))


def three_ways(model: LabModel, names: dict, prompt: list[int], new: int) -> list[list[int]]:
    """Greedy tokens with the student's cache, without one, and from the engine itself."""
    net = carga(model)
    layers = net.config.num_layers
    cached = ConTuCache(net, names["CacheKV"](layers), names["atencion_causal"])
    uncached = SinCache(net, lambda: names["CacheKV"](layers), names["atencion_causal"])
    mine, again = (names["genera"](m, prompt, new) for m in (cached, uncached))
    assert cached.calculados == work(len(prompt), new, True)["tokens"]
    assert uncached.calculados == work(len(prompt), new, False)["tokens"]
    greedy = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
    with LLM(model.carpeta) as llm:
        engine = list(llm.generate([prompt], greedy)[0].outputs[0].token_ids)
    return [mine, again, engine]


@pytest.mark.parametrize("seed", range(3))
def test_a_students_cache_drives_the_engines_model_to_the_same_tokens(tmp_path, solution, seed):
    model = LabModel(str(make_tiny_model(tmp_path / "mini", seed)), "mini", real=False, rapido=True)
    prompt = [Random(seed).randrange(3, 200) for _ in range(9)]
    mine, uncached, engine = three_ways(model, solution, prompt, 10)
    assert mine == uncached == engine


@pytest.mark.model
def test_a_students_cache_drives_the_real_model_to_the_same_tokens(solution):
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import DEFAULT_MODEL, resolve_model

    try:
        model = LabModel(str(resolve_model(DEFAULT_MODEL)), DEFAULT_MODEL, real=True, rapido=True)
    except ConfigError as error:
        pytest.skip(str(error))
    with LLM(model.carpeta) as llm:
        prompt = llm.tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}])
    mine, uncached, engine = three_ways(model, solution, prompt, 6)
    assert mine == uncached == engine


def test_a_wrong_cache_shows_in_the_engines_logits(tmp_path, solution):
    """Section 6: one token too many, or a position that does not go back, is another text; a right rewind is not."""
    net = carga(LabModel(str(make_tiny_model(tmp_path / "mini")), "mini", real=False, rapido=True))

    def logits(gone: int, position: int) -> torch.Tensor:
        cache = solution["CacheKV"](net.config.num_layers)
        model = ConTuCache(net, cache, solution["atencion_causal"])
        model([*range(20, 32)], range(12))
        cache.rebobina(gone)
        return model([40], [position])

    fresh = ConTuCache(net, solution["CacheKV"](net.config.num_layers), solution["atencion_causal"])
    right = fresh([*range(20, 29), 40], range(10))
    torch.testing.assert_close(logits(3, 9), right, rtol=1e-4, atol=1e-4)
    for gone, position in ((2, 10), (3, 12)):
        assert (logits(gone, position) - right).abs().max() > 0.01


def test_an_attention_of_the_wrong_shape_is_told_in_spanish(tmp_path, solution):
    net = carga(LabModel(str(make_tiny_model(tmp_path / "mini")), "mini", real=False, rapido=True))
    flat = ConTuCache(net, solution["CacheKV"](net.config.num_layers), lambda q, k, v: q[0])
    with pytest.raises(ValueError, match="debe devolver la forma"):
        flat([5, 6], [0, 1])
    listed = ConTuCache(net, solution["CacheKV"](net.config.num_layers), lambda q, k, v: list(q))
    with pytest.raises(TypeError, match="debe devolver un tensor y devolvió un objeto de tipo list"):
        listed([5, 6], [0, 1])


def test_a_complaint_about_a_call_counts_from_one(solved):
    """What the notebook calls the first call."""
    cells = solution_cells(solved(LAB))
    names = names_of(LAB, *(cells[c] for c in PUBLIC["genera"].cells), SECOND_CALL_WRONG)
    with pytest.raises(CheckFailed, match=r"llamada 2 de 4: se esperaba modelo\(ids=\[4\], posiciones=\[3\]\)"):
        comprobar("genera", names["genera"])

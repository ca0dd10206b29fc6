"""Lab 5: its solution holds in every hidden case, common wrong answers are caught, and its parts drive the engine."""

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

from minilab.bancos.lotes import COSTES
from minilab.bancos.slo import Llegada, Motor, colision, envenena, percentil, simula
from minilab.motor import lado_a_lado
from minilab.pruebas.publicas import checks_of
from minilab.vistas import linea_de_traza
from minillm_serve.kv.prefix_cache import block_key

LAB = "L05_prefill_prefijos_slo"
PUBLIC = checks_of("l05")
HASHED = 'hashlib.sha256(len(padre).to_bytes(4, "little") + padre + contenido).digest()'
JOINED = 'b"".join(token.to_bytes(4, "little") for token in tokens)'

MUTANTS = [
    Mutant("reparte_presupuesto", "las activas no gastan", "presupuesto - len(reparto)", "presupuesto"),
    Mutant("reparte_presupuesto", "el prompt entra entero", "min(faltan, quedan)", "faltan"),
    Mutant("reparte_presupuesto", "si no cabe entero, espera", "if quedan == 0", "if quedan < faltan"),
    Mutant(
        "reparte_presupuesto", "primero el prompt más corto", "in esperando", "in sorted(esperando, key=lambda e: e[1])"
    ),
    Mutant("reparte_presupuesto", "deja parejas con 0 tokens", "if quedan == 0", "if quedan < 0"),
    Mutant("reparte_presupuesto", "todas las activas, quepan o no", "activas[:presupuesto]", "activas"),
    Mutant(
        "mayor_hueco",
        "mezcla las peticiones",
        "in momentos.values()",
        "in [sorted(t for own in momentos.values() for t in own)]",
    ),
    Mutant("mayor_hueco", "solo el primer hueco", "range(1, len(instantes))", "range(1, min(2, len(instantes)))"),
    Mutant("mayor_hueco", "del primero al último", "instantes[i - 1]", "instantes[0]"),
    Mutant("clave_de_bloque", "suma los tokens", JOINED, 'sum(tokens).to_bytes(8, "little")'),
    Mutant("clave_de_bloque", "olvida al padre", HASHED, "hashlib.sha256(contenido).digest()"),
    Mutant("clave_de_bloque", "ordena los tokens", "for token in tokens)", "for token in sorted(tokens))"),
    Mutant("clave_de_bloque", "junta las cifras", JOINED, '"".join(map(str, tokens)).encode()'),
    Mutant(
        "clave_de_bloque",
        "da clave al bloque a medias",
        "range(tam_bloque, len(tokens) + 1, tam_bloque)",
        "range(tam_bloque, len(tokens) + tam_bloque, tam_bloque)",
    ),
    Mutant("clave_de_bloque", "un byte por token", JOINED, "bytes(t % 256 for t in tokens)", hidden=True),
    Mutant("clave_de_bloque", "ignora la raíz", "else raiz", 'else b""', hidden=True),
    Mutant(
        "clave_de_bloque",
        "hash() de Python",
        HASHED,
        'hash((padre, tuple(tokens))).to_bytes(32, "big", signed=True)',
        hidden=True,
    ),
    Mutant(
        "clave_de_bloque",
        "crc32 repetido",
        HASHED,
        '__import__("zlib").crc32(padre + contenido).to_bytes(4, "big") * 8',
        hidden=True,
    ),
    Mutant(
        "clave_de_bloque",
        "mezcla al padre con XOR",
        HASHED,
        "bytes(x ^ y for x, y in zip(hashlib.sha256(contenido).digest(), padre.ljust(32)))",
        hidden=True,
    ),
    Mutant("clave_de_bloque", "recorta y rellena", HASHED, HASHED + '[:8].ljust(32, b"0")', hidden=True),
    Mutant(
        "clave_de_bloque",
        "32 bits estirados",
        HASHED,
        '__import__("random").Random(__import__("zlib").crc32(padre + contenido)).randbytes(32)',
        hidden=True,
    ),
    Mutant("aciertos", "encuentra también el último token", "(len(tokens) - 1) // tam", "len(tokens) // tam"),
    Mutant("aciertos", "cuenta bloques y no tokens", "hallados += tam_bloque", "hallados += 1"),
    Mutant(
        "aciertos",
        "guarda antes de buscar",
        "nombres = claves(tokens, tam_bloque)",
        "nombres = claves(tokens, tam_bloque); guardadas.update(nombres)",
    ),
    Mutant("aciertos", "divide entre los prompts", "sum(len(tokens) for tokens in prompts)", "len(prompts)"),
    Mutant(
        "aciertos",
        "no guarda el último bloque lleno",
        "guardadas.update(nombres)",
        "guardadas.update(nombres[: (len(tokens) - 1) // tam_bloque])",
    ),
    Mutant(
        "aciertos",
        "compara bloques sueltos",
        "claves(tokens, tam_bloque)",
        "[tuple(tokens[i : i + tam_bloque]) for i in range(0, len(tokens) - tam_bloque + 1, tam_bloque)]",
    ),
    Mutant("aciertos", "solo recuerda el prompt anterior", "guardadas.update(nombres)", "guardadas = set(nombres)"),
    Mutant("cubo_de_fichas", "empieza vacío", "= rafaga, reloj()", "= 0, reloj()"),
    Mutant("cubo_de_fichas", "guarda más de las que caben", "min(self.rafaga, ", "max(0, "),
    Mutant("cubo_de_fichas", "redondea las fichas", "self.ritmo * pasado", "int(self.ritmo * pasado)"),
    Mutant("cubo_de_fichas", "rellena dos veces al volver", "max(self.visto, ahora)", "ahora"),
    Mutant("cubo_de_fichas", "quita fichas al retroceder", "max(0, ahora - self.visto)", "ahora - self.visto"),
    Mutant("cubo_de_fichas", "gasta aunque no pase", "return False", "self.fichas = 0; return False"),
    Mutant(
        "cubo_de_fichas",
        "espera sin rellenar",
        "        self.rellena()\n        return max(",
        "        return max(",
    ),
    Mutant(
        "cubo_de_fichas",
        "espera negativa",
        "max(0, (fichas - self.fichas) / self.ritmo)",
        "(fichas - self.fichas) / self.ritmo",
        hidden=True,
    ),
    Mutant("cubo_de_fichas", "espera lo que nunca llega", "if fichas > self.rafaga:", "if False:", hidden=True),
    Mutant("elige_presupuesto", "el límite justo no cumple", "<= limite", "< limite"),
    Mutant("elige_presupuesto", "basta con cumplir uno", "if all(", "if any("),
    Mutant("elige_presupuesto", "el mayor en el empate", ', m["presupuesto"])', ', -m["presupuesto"])'),
    Mutant(
        "elige_presupuesto",
        "el último de la lista en el empate",
        'min(cumplen, key=lambda m: (-m["tok_s"], m["presupuesto"]))',
        'max(reversed(cumplen), key=lambda m: m["tok_s"])',
    ),
    Mutant("elige_presupuesto", "la menos mala si ninguna cumple", "return None", 'return medidas[0]["presupuesto"]'),
    Mutant(
        "elige_presupuesto",
        "solo mira la ITL",
        "in slo.items())",
        'in slo.items() if nombre == "itl_p95")',
    ),
]


@pytest.fixture
def names(solved):
    """What the solved notebook defines."""
    cells = solution_cells(solved(LAB))
    return names_of(LAB, *(cells[c] for c in ("reparte_presupuesto", "mayor_hueco", "clave_de_bloque", "aciertos")))


def test_the_solution_passes_every_hidden_case(solved):
    assert_solution_passes(LAB, solution_cells(solved(LAB)), range(3))


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(solved, mutant):
    assert_caught(LAB, solution_cells(solved(LAB)), mutant)


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)


@pytest.mark.parametrize(
    "hashed",
    [
        'hashlib.blake2b(padre + contenido, digest_size=32, person=b"b").digest()',
        'hashlib.sha3_256(len(tokens).to_bytes(4, "big") + contenido + padre).digest()',
        "hashlib.sha512(padre + contenido).digest()[:32]",
    ],
)
def test_another_sound_hash_loses_nothing(solved, hashed):
    own = solution_cells(solved(LAB))["clave_de_bloque"].replace(HASHED, hashed)
    found = results(hidden_check(LAB, "clave_de_bloque", 5), names_of(LAB, own))
    assert [r for r in found if not r.passed] == []


def test_each_weak_hash_loses_its_own_case(solved):
    own = solution_cells(solved(LAB))["clave_de_bloque"]
    weak = {m.told: m for m in MUTANTS if m.check == "clave_de_bloque"}
    caught = {
        "suma los tokens": "los mismos tokens, o la misma suma",
        "olvida al padre": "el mismo bloque tras otro comienzo",
        "hash() de Python": "256 bits de verdad",
        "32 bits estirados": "ni una repetida entre muchas",
        "ignora la raíz": "otra raíz, otras claves",
    }
    for told, case in caught.items():
        names = names_of(LAB, own.replace(weak[told].right, weak[told].wrong))
        failed = {r.name for r in results(hidden_check(LAB, "clave_de_bloque", 7), names) if not r.passed}
        assert case in failed, (told, failed)


def test_the_key_names_blocks_in_the_engine_and_the_prediction_is_what_it_finds(names, tiny):
    opening = "The same opening for all of these questions, long enough for some blocks. "
    llm_ids = Motor(tiny).llm.tokenizer.encode
    prompts = [list(llm_ids(opening + q)) for q in ("One?", "Two, too?", "And what is three?", "One?")]
    both = lado_a_lado(
        tiny, prompts, {"kv.block_key": names["clave_de_bloque"]}, max_tokens=3, veces=1, chat=False, num_kv_blocks=256
    )
    assert both.iguales
    predicted = names["aciertos"](prompts, 16)
    assert predicted > 0.4
    assert both.tuya.aciertos == pytest.approx(predicted) == pytest.approx(both.referencia.aciertos)


def test_the_bound_holds_for_any_prompt_and_costs_ttft(names):
    a, b = COSTES.step_s, COSTES.token_s
    requests = [Llegada(f"chat {i}", 0, 40, 60) for i in range(3)] + [Llegada("largo", 8, 3000, 4)]
    ttft = []
    for budget in (32, 256, 4096):
        run = simula(names["reparte_presupuesto"], requests, budget, a, b)
        assert names["mayor_hueco"](run.momentos) <= a + b * budget + 1e-12
        assert {name: len(m) for name, m in run.momentos.items()} == {r.nombre: r.nuevos for r in requests}
        ttft.append(run.ttft("largo"))
    assert ttft == sorted(ttft, reverse=True) and ttft[0] > 4 * ttft[-1]


@pytest.mark.parametrize(
    ("split", "told"),
    [
        (lambda active, waiting, budget: [], "vacío"),
        (lambda active, waiting, budget: [[99, 1]], "no puede"),
        (lambda active, waiting, budget: [[waiting[0][0], waiting[0][1]]], "presupuesto"),
        (lambda active, waiting, budget: [[waiting[0][0], 1]] * 2, "dos veces"),
        (lambda active, waiting, budget: None, "lista"),
    ],
)
def test_a_split_that_breaks_a_rule_is_told_in_spanish(split, told):
    with pytest.raises(ValueError, match=told):
        simula(split, [Llegada("a", 0, 50, 2)], 10, 1.0, 0.1)


def test_one_engine_serves_with_any_budget_and_each_run_has_its_own_trace(tiny):
    engine = Motor(tiny)
    requests = [Llegada("chat", 0, "Hello there", 12), Llegada("largo", 4, "word " * 60, 2)]
    runs = {budget: engine.sirve(requests, presupuesto=budget) for budget in (16, 512)}
    for budget, run in runs.items():
        assert max(sum(step["num_tokens"].values()) for step in run.traza["steps"]) <= budget
        assert run.traza["config"]["max_num_batched_tokens"] == budget
        assert {r["id"] for r in run.traza["requests"].values()} == {"chat", "largo"}
        assert [r.nombre for r in linea_de_traza(run.traza, con_id=True).peticiones] == ["chat", "largo"]
        assert [len(m) for m in run.momentos.values()] == [12, 2]
        assert run.ttft("largo") > 0 and run.bloques > 0 and run.tok_s > 0
    assert len(runs[16].traza["steps"]) > len(runs[512].traza["steps"])
    assert runs[16].momentos["largo"][0] > runs[16].momentos["chat"][3]


def test_priority_puts_the_day_before_the_night(tiny):
    night = [Llegada(f"n{i}", 0, f"word {i} " * 20, 6, prioridad=10) for i in range(4)]
    day = [Llegada("d", 1, "Hi", 2)]
    first = {}
    for policy in ("fcfs", "priority"):
        run = Motor(tiny, max_num_seqs=1, scheduling_policy=policy).sirve(night + day)
        first[policy] = sorted(run.momentos, key=lambda name: run.momentos[name][0]).index("d")
    assert first == {"fcfs": 4, "priority": 1}


def weak_sum(parent, tokens):
    return ((int.from_bytes(parent, "big") + sum(tokens)) % 2**256).to_bytes(32, "big")


def sum_without_parent(parent, tokens):
    return sum(tokens).to_bytes(32, "big")


def test_a_weak_key_serves_somebody_elses_memory_and_salt_helps_where_the_parent_counts(names, tiny):
    """In the live engine: with the tiny model every character is a token, so both digits lie in one block."""
    own, forged, question = "code 7391, keep this in mind", "code 1937, keep this in mind", " and what is it?"
    clean = envenena(tiny, block_key, own, own, question)[0]
    poisoned, cached = envenena(tiny, weak_sum, own, forged, question)
    assert cached >= 16 and poisoned != clean
    assert envenena(tiny, weak_sum, own, forged, question, sal=True) == (clean, 0)
    assert envenena(tiny, sum_without_parent, own, forged, question, sal=True)[1] >= 16
    assert envenena(tiny, names["clave_de_bloque"], own, forged, question) == (clean, 0)


def test_a_short_key_collides_and_a_long_one_does_not():
    one, other, tries = colision(lambda parent, tokens: block_key(parent, tokens)[:2], 5000)
    assert one != other and tries < 5000 and block_key(b"", one)[:2] == block_key(b"", other)[:2]
    assert colision(block_key, 2000) is None


def test_percentile_is_lab_zeros():
    assert percentil([4.0, 1.0, 3.0, 2.0], 50) == 2.5 and percentil([7.0], 95) == 7.0

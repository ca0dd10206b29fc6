"""Lab 3: its solution holds in every hidden case, wrong answers are caught, and a student's pool drives the engine."""

from __future__ import annotations

from random import Random

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

from minilab.motor import con, lado_a_lado
from minilab.pruebas import paginas
from minilab.pruebas.publicas import checks_of
from minillm_serve import LLM, SamplingParams

LAB = "L03_paged_attention"
PUBLIC = checks_of("l03")

MUTANTS = [
    Mutant("direccion", "acepta posiciones negativas", "if not 0 <= pos < len", "if not pos < len"),
    Mutant("direccion", "no comprueba el final", "len(tabla) * tam", "10**9"),
    Mutant(
        "direccion",
        "cambia bloque y hueco",
        "tabla[pos // tam] * tam + pos % tam",
        "tabla[pos % tam] * tam + pos // tam",
    ),
    Mutant("direccion", "olvida el hueco", " + pos % tam", ""),
    Mutant("fragmentacion", "redondea hacia abajo", "-(-n // tam) * tam", "n // tam * tam"),
    Mutant("fragmentacion", "cobra un bloque a la vacía", "-(-n // tam) * tam", "max(1, -(-n // tam)) * tam"),
    Mutant("fragmentacion", "divide entre cero", " if r else 0.0", ""),
    Mutant("fragmentacion", "el último hueco como el mayor", "mayor = max(mayor, actual)", "mayor = actual or mayor"),
    Mutant(
        "fragmentacion",
        "media de las partes",
        "return {metodo: 1 - usadas / r if r else 0.0 for metodo, r in reservadas.items()}",
        "partes = [1 - n / (-(-n // tam) * tam) for n in longitudes if n]\n"
        "    vacia = 1 - usadas / reservadas['contigua'] if longitudes else 0.0\n"
        "    return {'contigua': vacia, 'paginada': sum(partes) / max(1, len(partes))}",
    ),
    Mutant("fragmentacion", "no piensa en la memoria llena", " if libres else 0.0", "", hidden=True),
    Mutant("reparto", "da lo que hay, aunque sea menos", "return None", "count = len(self.libres)"),
    Mutant(
        "reparto",
        "libera sin mirar la cuenta",
        "if self.cuentas[bloque] == 0:\n                self",
        "if True:\n                self",
    ),
    Mutant("reparto", "no devuelve el bloque", "self.libres.append(bloque)", "pass"),
    Mutant("reparto", "no quita el bloque de los libres", "self.libres.pop() for", "self.libres[-1 - _] for"),
    Mutant("reparto", "acepta soltar dos veces", " or self.cuentas[bloque] == 0", ""),
    Mutant(
        "reparto", "acepta números negativos", "0 <= bloque < self.num_blocks", "bloque < self.num_blocks", hidden=True
    ),
    Mutant(
        "reparto",
        "un número demasiado grande da IndexError",
        "0 <= bloque < self.num_blocks",
        "0 <= bloque",
        hidden=True,
    ),
    Mutant("reparto", "acepta repetidos", "len(set(blocks)) != len(blocks)", "False", hidden=True),
    Mutant("reparto", "devuelve una lista", "tuple(self.libres.pop()", "list(self.libres.pop()"),
    Mutant(
        "reparto",
        "revisa mientras cambia",
        "self.revisa(blocks)\n        for bloque in blocks:\n            self.cuentas[bloque] -= 1",
        "for bloque in blocks:\n            self.revisa([bloque])\n            self.cuentas[bloque] -= 1",
    ),
    Mutant("copia", "copia la tabla y no suma referencias", "bloques.share(tabla)", "pass"),
    Mutant("copia", "devuelve la misma tabla", "return list(tabla)", "return tabla"),
    Mutant("copia", "escribe sin copiar", " or bloques.refs(tabla[i]) > 1", ""),
    Mutant("copia", "copia siempre", "bloques.refs(tabla[i]) > 1", "True"),
    Mutant("copia", "no copia el contenido", "memoria[nuevo[0]][:] = memoria[tabla[i]]", "pass"),
    Mutant("copia", "no suelta el bloque viejo", "bloques.free([tabla[i]])", "pass"),
    Mutant("copia", "los dos bloques son la misma lista", "memoria[nuevo[0]][:] = ", "memoria[nuevo[0]] = "),
    Mutant(
        "copia",
        "copia solo hasta la posición",
        "memoria[nuevo[0]][:] = memoria[tabla[i]]",
        "memoria[nuevo[0]][: pos % tam] = memoria[tabla[i]][: pos % tam]",
        hidden=True,
    ),
    Mutant(
        "copia", "solo piensa en dos dueños", "bloques.refs(tabla[i]) > 1", "bloques.refs(tabla[i]) == 2", hidden=True
    ),
    Mutant("desalojo", "empieza por la más antigua", "reverse=True)[:-1]", "reverse=False)[:-1]"),
    Mutant("desalojo", "desaloja también a la más antigua", "reverse=True)[:-1]", "reverse=True)"),
    Mutant(
        "desalojo",
        "cuenta los compartidos como libres",
        'sum(usos[bloque] == 0 for bloque in p["bloques"])',
        'len(p["bloques"])',
    ),
    Mutant(
        "desalojo",
        "se salta a quien no libera nada",
        'fuera.append(p["id"])',
        'if all(usos[bloque] > 1 for bloque in p["bloques"]):\n            continue\n        fuera.append(p["id"])',
    ),
    Mutant(
        "desalojo",
        "solo libera lo que era de una",
        'usos.subtract(p["bloques"])\n        libres += sum(usos[bloque] == 0',
        "libres += sum(usos[bloque] == 1",
        hidden=True,
    ),
    Mutant("desalojo", "espera a que cuadre justo", "libres >= faltan", "libres == faltan"),
    Mutant("desalojo", "echa a todas aunque no baste", "fuera if libres >= faltan else None", "fuera"),
    Mutant(
        "desalojo",
        "sigue el orden de la lista",
        'sorted(peticiones, key=lambda p: p["llegada"], reverse=True)',
        "peticiones[::-1]",
        hidden=True,
    ),
    Mutant("auditoria", "olvida la caché de prefijos", "duenos.update(guardados)", "pass"),
    Mutant("auditoria", "cuenta tablas y no bloques", "len(+duenos)", "sum(duenos.values())"),
    Mutant("auditoria", "cree a las cuentas", "len(+duenos)", "sum(cuenta > 0 for cuenta in cuentas)"),
    Mutant(
        "auditoria",
        "solo mira los bloques con dueño",
        "if cuenta != duenos[bloque]",
        "if duenos[bloque] and cuenta != duenos[bloque]",
        hidden=True,
    ),
    Mutant(
        "auditoria",
        "solo busca cuentas de menos",
        "if cuenta != duenos[bloque]",
        "if cuenta < duenos[bloque]",
        hidden=True,
    ),
]


@pytest.fixture
def cells(solved) -> dict[str, str]:
    return solution_cells(solved(LAB))


def pool_of(cells):
    return names_of(LAB, cells["reparto"])["Bloques"]


def test_the_solution_passes_every_hidden_case(cells):
    assert_solution_passes(LAB, cells, range(6))


def test_hidden_cases_depend_on_the_seed_and_on_nothing_else():
    def direction(seed):
        return [case.args for case in hidden_check(LAB, "direccion", seed).cases]

    assert direction(3) == direction(3) != direction(4)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_common_wrong_answer_is_caught(cells, mutant):
    assert_caught(LAB, cells, mutant, seeds=range(4))


def test_a_public_answer_learnt_by_heart_fails_the_hidden_cases(cells):
    names = {"direccion": lambda pos, tabla, tam: {6: 10, 0: 48}[pos]}
    assert not any(r.passed for r in results(hidden_check(LAB, "direccion", 0), names))
    names = {"victimas": lambda peticiones, faltan: {2: [13, 12], 1: [13], 3: None, 0: []}[faltan]}
    assert sum(r.passed for r in results(hidden_check(LAB, "desalojo", 0), names)) <= 2


def test_any_order_of_the_free_blocks_is_right(cells):
    """Which free block is given first is the student's choice."""
    first = cells["reparto"].replace("self.libres.pop() for", "self.libres.pop(0) for")
    names = names_of(LAB, first)
    for seed in range(3):
        assert all(r.passed for r in results(hidden_check(LAB, "reparto", seed), names))


def test_the_oracles_agree_with_counting_by_hand():
    requests = [{"id": i, "llegada": i, "bloques": b} for i, b in enumerate(([0, 1], [0, 2], [0, 3]))]
    assert paginas.victims(requests, 1) == [2]
    assert paginas.victims(requests, 2) == [2, 1]
    assert paginas.victims(requests, 3) is None, "block 0 is the oldest's too"
    assert paginas.fragmentation([5, 7], 4, 12) == {"contigua": 0.5, "paginada": 0.25}
    assert paginas.external("AA..B.") == pytest.approx(1 / 3) and paginas.external("....") == 0
    assert paginas.audit([1, 0], 0, [[0]], []) == {"mal_contados": [], "perdidos": 1}


@pytest.mark.parametrize("blocks, size", [(4, 2), (9, 1), (30, 4)])
def test_random_toy_scripts_fork_rewrite_and_run_out_of_memory(blocks, size):
    scripts = [paginas.random_toy(Random(seed), blocks, size, 60) for seed in range(20)]
    kinds = {operation[0] for script in scripts for operation in script}
    assert kinds == {"nueva", "bifurca", "pon", "termina"}


def test_the_students_pool_drives_the_engine(cells, tiny):
    prompts = ["one and the same beginning of all the texts, " + end for end in ("alpha", "beta", "gamma")]
    result = lado_a_lado(
        tiny, prompts, {"kv.block_pool": pool_of(cells)}, max_tokens=12, veces=1, chat=False, num_kv_blocks=64
    )
    assert result.iguales and result.tuya.aciertos == result.referencia.aciertos > 0


def test_the_engine_with_the_students_pool_keeps_its_invariants_when_it_preempts(cells, tiny):
    with LLM(tiny.carpeta, seams=con({"kv.block_pool": pool_of(cells)}), num_kv_blocks=7) as llm:
        prompts = [f"{i} some words to begin with" for i in range(4)]
        llm.generate(prompts, SamplingParams(max_tokens=30, temperature=0.0, ignore_eos=True))
        assert llm.core.scheduler.num_preemptions > 0
        llm.core.scheduler.kv.check()


def test_the_audit_finds_what_is_wrong_with_the_broken_pools_of_the_notebook(cells, solved, tiny):
    [broken] = [c.source for c in solved(LAB).cells if c.cell_type == "code" and "class Olvida(BlockPool)" in c.source]
    names = names_of(LAB, "from minillm_serve.kv.block_pool import BlockPool", cells["auditoria"])
    exec(broken.partition("charlas = ")[0], names)
    lost = {}
    for name in ("Olvida", "SueltaDosVeces", "Repite", "BlockPool"):
        with LLM(tiny.carpeta, seams=con({"kv.block_pool": names[name]}), num_kv_blocks=64) as llm:
            llm.generate(["a text of some length, " + x for x in "abcd"], SamplingParams(max_tokens=8, ignore_eos=True))
            lost[name] = names["audita_motor"](llm)["perdidos"]
    assert lost["Olvida"] > 0 > max(lost["SueltaDosVeces"], lost["Repite"]) and lost["BlockPool"] == 0


def test_the_page_names_each_wrong_answer_and_what_catches_it():
    assert_page_names_each(LAB, MUTANTS)

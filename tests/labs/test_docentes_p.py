"""Each common wrong answer that the instructor page of the project lists is caught where the page says."""

from __future__ import annotations

import asyncio
import json
import re

import jsonschema
import pytest

from minilab.comprobar import CheckFailed, comprobar
from minilab.pruebas.casos import Reply, judge_case, play_case
from minilab.pruebas.planos import to_plain
from minilab.pruebas.publicas import checks_of
from minilab.pruebas.remoto import LocalRemote
from minilab_grading.casos import cases_of

LAB = "P_sirve_y_demuestralo"
CHECKS = checks_of("p")
SERIAL = "async def _en_serie(*cs):\n    return [await c for c in cs]\n"


@pytest.fixture
def cells(solved) -> dict[str, str]:
    """Grade id -> source of each solution cell."""
    found = [c for c in solved(LAB).cells if c.metadata.get("nbgrader", {}).get("solution")]
    return {c.metadata.nbgrader.grade_id: c.source for c in found}


def mutant(cells: dict[str, str], check: str, old: str, new: str) -> dict:
    """The names that the check's cells define, with one change."""
    source = "\n".join(cells[cell] for cell in CHECKS[check].cells)
    assert source.count(old) >= 1, f"the solution of {check} no longer says: {old}"
    names = {"asyncio": asyncio, "json": json, "jsonschema": jsonschema}
    exec(SERIAL + source.replace(old, new), names)
    return names


PUBLIC = {
    "percentil con índice entero": (
        "percentil",
        "return orden[abajo] + (orden[arriba] - orden[abajo]) * (posicion - abajo)",
        "return orden[min(len(orden) * p // 100, len(orden) - 1)]",
    ),
    "percentil sin ordenar": ("percentil", "sorted(valores)", "list(valores)"),
    "suma de velocidades": (
        "resume",
        'sum(p["tokens"] for p in peticiones) / reloj',
        'sum(p["tokens"] / (p["fin"] - p["inicio"]) for p in peticiones)',
    ),
    "await en un bucle": ("cliente", "asyncio.gather(*(", "_en_serie(*("),
    "el rol es el primer token": (
        "cliente",
        "if trozo.choices and trozo.choices[0].delta.content:",
        "if trozo.choices:\n            trozo.choices[0].delta.content = trozo.choices[0].delta.content or ''",
    ),
    "lote estático": (
        "planificador",
        "while libre > 0 and self.espera",
        "while libre > 0 and self.espera and not self.lote",
    ),
    "la máscara mira la primera letra": (
        "mascara",
        "if t and t[0] in vivas and avanza(self.estado, t)",
        "if t and t[0] in vivas",
    ),
    "fin siempre permitido": ("mascara", "if FINAL in self.estado else ids", "if True else ids"),
    "guided_json": (
        "cuerpo_json",
        '"response_format": {"type": "json_schema", "json_schema": {"name": "respuesta", "schema": esquema}}',
        '"extra_body": {"guided_json": esquema}',
    ),
    "recorta lo que hay entre llaves": (
        "es_valida",
        "json.loads(texto,",
        "json.loads(__import__('re').search('{.*}', texto)[0],",
    ),
    "la orden de los apuntes": (
        "orden_vllm",
        'orden = ["vllm", "serve", modelo]',
        'orden = ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", modelo]',
    ),
    "copia la razón": ("veredicto", 'informe["minillm_tok_s"] / informe["baseline_tok_s"]', 'informe["ratio"]'),
}


@pytest.mark.parametrize("mistake", PUBLIC)
def test_the_public_check_catches_it(cells, mistake):
    check, old, new = PUBLIC[mistake]
    names = mutant(cells, check, old, new)
    with pytest.raises(CheckFailed, match="pista:"):
        comprobar(check, names[CHECKS[check].function])


HIDDEN = {
    "el reloj no empieza en cero": (
        "resume",
        'max(p["fin"] for p in peticiones) - min(p["inicio"] for p in peticiones)',
        'max(p["fin"] for p in peticiones)',
        "reloj que no empieza en cero",
    ),
    "no devuelve los bloques": (
        "planificador",
        'self.activas.remove(p)\n                    self.bloques.suelta(p["bloques"])',
        "self.activas.remove(p)",
        "sin fugas",
    ),
    "pasa otra más corta": (
        "planificador",
        "if not self.admite(self.espera[0]):\n                break",
        "self.espera.sort(key=lambda p: len(p['tokens']))\n"
        "            if not self.admite(self.espera[0]):\n                break",
        "orden de llegada",
    ),
    "acepta NaN": ("es_valida", ", parse_constant=rechaza", "", "constante que no es JSON"),
    "no mira finish_reason": ("es_valida", 'if fin != "stop":', "if False:", "cortada por el límite"),
    "mayor que cinco": ("veredicto", "ratio >= 5", "ratio > 5", "justo en el umbral"),
}


@pytest.mark.parametrize("mistake", HIDDEN)
def test_the_hidden_case_catches_it_and_spares_the_solution(cells, mistake):
    check, old, new, name = HIDDEN[mistake]
    _, _, hidden = cases_of(LAB, 7)
    [case] = [c for h in hidden.values() if h.name == check for c in h.cases if c.name == name]
    function = CHECKS[check].function
    assert verdict(case, mutant(cells, check, old, old), function)
    assert not verdict(case, mutant(cells, check, old, new), function)


def verdict(case, names: dict, function: str) -> bool:
    if case.play:
        return play_case(case, LocalRemote(names)).passed
    return judge_case(case, Reply(value=to_plain(names[function](*case.args)))).passed


def test_every_row_of_the_page_is_tried_here():
    from test_docentes import page_of, sections_of, tables_of

    [table] = tables_of(sections_of(page_of("P"))["Respuestas equivocadas frecuentes"])
    where = ["oculta" if "(oculta" in row[-1] else "pública" for row in table[1:]]
    assert (where.count("pública"), where.count("oculta")) == (len(PUBLIC), len(HIDDEN))
    named = {name for row in table[1:] for name in re.findall(r"`(\w+)`", row[-1])}
    assert named == {check for check, *_ in [*PUBLIC.values(), *HIDDEN.values()]}

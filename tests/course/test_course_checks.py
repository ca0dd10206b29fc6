"""Public checks: they pass on the reference, fail on each classic mistake, and speak Spanish."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest

from minilab.comprobar import ComprobacionFallida, comprobar
from minilab.planos import ValorNoPlano, a_plano, iguales
from minilab.publicas import PRUEBAS
from minilab.servidor_simulado import ClienteBloqueado, ServidorSimulado, guion_de

PREVIO = {"asyncio": asyncio, "json": json, "jsonschema": jsonschema}


def espacio(*fuentes: str) -> dict:
    nombres = dict(PREVIO)
    for fuente in fuentes:
        exec(fuente, nombres)
    return nombres


@pytest.mark.parametrize("nombre", PRUEBAS)
def test_reference_solution_passes_its_public_check(nombre, soluciones):
    prueba = PRUEBAS[nombre]
    funcion = espacio(*(soluciones[c] for c in prueba.celdas))[prueba.funcion]
    assert "públicas superadas" in repr(comprobar(nombre, funcion))


@pytest.mark.parametrize("nombre", PRUEBAS)
def test_released_stub_fails_with_one_spanish_sentence(nombre, publicado):
    prueba = PRUEBAS[nombre]
    celda = next(c for c in publicado.cells if c.id == prueba.celdas[-1])
    with pytest.raises(ComprobacionFallida, match="falta implementar") as fallo:
        comprobar(nombre, espacio(celda.source)[prueba.funcion])
    assert fallo.value._render_traceback_() == [str(fallo.value)]


ERRORES = {
    "percentil": "def percentil(v, p):\n    return sorted(v)[len(v) * p // 100]",
    "resume": (
        "def resume(ps):\n    return {'tok_s': sum(p['tokens'] / (p['fin'] - p['inicio']) for p in ps),"
        " 'ttft_p50': 1.0, 'ttft_p95': 1.45}"
    ),
    "cuerpo_json": (
        "def cuerpo_json(p, e):\n    return {'messages': [{'role': 'user', 'content': p}], 'max_tokens': 9,"
        " 'extra_body': {'guided_json': e}}"
    ),
    "es_valida": (
        "def es_valida(t, e, fin):\n    import re\n    m = re.search(r'{.*}', t)\n"
        "    try:\n        jsonschema.validate(json.loads(m[0]), e)\n    except Exception:\n        return False\n"
        "    return True"
    ),
    "veredicto": (
        "def veredicto(i):\n    return {'ratio': i['ratio'], 'ratio_lote': 1.5, 'json_pct': 100.0, 'cumple': True}"
    ),
    "prediccion": "def mi_prediccion():\n    return {'contra_una_a_una': None, 'contra_lote': 2}",
}


@pytest.mark.parametrize("nombre", ERRORES)
def test_classic_mistake_is_diagnosed(nombre):
    with pytest.raises(ComprobacionFallida) as fallo:
        comprobar(nombre, espacio(ERRORES[nombre])[PRUEBAS[nombre].funcion])
    assert all(palabra in str(fallo.value) for palabra in ("esperaba:", "obtuve:", "pista:"))


@pytest.mark.parametrize(
    ("cambio", "queja"),
    [
        (("asyncio.gather(*(", "_en_serie(*("), "en vuelo a la vez"),
        (("trozo.choices[0].delta.content:", "trozo.choices:"), "la medida"),
        (('"ignore_eos": True', '"x": True'), "ignore_eos"),
    ],
)
def test_client_check_tells_what_is_wrong(soluciones, cambio, queja):
    serie = "async def _en_serie(*cs):\n    return [await c for c in cs]\n"
    fuente = soluciones["cliente"].replace(*cambio).replace(".delta.content\n", ".delta.content or ''\n")
    if "trozo.choices:" in cambio[1]:
        fuente = fuente.replace("if trozo.choices and trozo.choices:", "if trozo.choices:")
    with pytest.raises(ComprobacionFallida, match=queja):
        comprobar("cliente", espacio(serie + fuente)["lanza_todas"])


def test_plain_values_decide_not_the_methods_of_a_students_class():
    class Siempre(float):
        def __eq__(self, otro):
            return True

    with pytest.raises(ValorNoPlano):
        a_plano(Siempre(3.0))
    assert iguales(1, 1.0) and not iguales(True, 1) and not iguales(None, 0) and not iguales([1], [1, 2])
    assert not iguales({"a": 1}, {"a": 1, "b": 2}) and not iguales(float("nan"), float("nan"))


def test_simulated_time_never_goes_back_and_streams_interleave():
    tiempos: list[float] = []

    async def una(servidor, prompt):
        flujo = await servidor.cliente.chat.completions.create(
            stream=True, messages=[{"role": "user", "content": prompt}]
        )
        async for trozo in flujo:
            tiempos.append(servidor.reloj())
            del trozo

    async def todas(servidor):
        await asyncio.gather(una(servidor, "a"), una(servidor, "b"))

    servidor = ServidorSimulado(lambda cuerpos: [guion_de("xyz", 1.0 + i, 0.3) for i, _ in enumerate(cuerpos)])
    asyncio.run(servidor.conduce(todas(servidor)))
    assert tiempos == sorted(tiempos) and len(tiempos) == 10


def test_client_that_waits_for_nothing_is_told_so():
    async def eterno():
        await asyncio.Event().wait()

    servidor = ServidorSimulado(lambda cuerpos: [])
    with pytest.raises(ClienteBloqueado):
        asyncio.run(servidor.conduce(eterno()))

"""The public cases of each check: what a student may see. The hidden ones live with the grader."""

from __future__ import annotations

from typing import Any

from minilab.casos import Caso, Prueba
from minilab.jueces import juez_de_cliente, juez_de_cuerpo, juez_de_prediccion
from minilab.servidor_simulado import guion_de

PETICIONES = [
    {"inicio": 0.0, "primer_token": 0.5, "fin": 2.0, "tokens": 30},
    {"inicio": 0.0, "primer_token": 1.5, "fin": 4.0, "tokens": 50},
]
PERSONA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
INFORME: dict[str, Any] = {
    "baseline_tok_s": 10.0,
    "baseline_batch_tok_s": 40.0,
    "minillm_tok_s": 60.0,
    "ratio": 99.0,
    "json_total": 50,
    "json_valid": 50,
}
GUIONES = {
    "What is a token?": guion_de(["A", " piece", " of", " text"], 0.4, 0.1),
    "What is a batch?": guion_de(["Many", " at", " once"], 0.7, 0.2),
    "What is a cache?": guion_de(["Stored", " work"], 0.2, 0.3),
}

PRUEBAS: dict[str, Prueba] = {
    p.nombre: p
    for p in (
        Prueba(
            "prediccion",
            "mi_prediccion",
            ("prediccion",),
            (
                Caso(
                    nombre="dos números",
                    args=(),
                    juez=juez_de_prediccion,
                    pista="Sustituye los None por los números que esperas medir.",
                ),
            ),
        ),
        Prueba(
            "percentil",
            "percentil",
            ("percentil",),
            (
                Caso(nombre="mediana impar", args=([3.0, 1.0, 2.0], 50), espera=2.0, pista="Ordena antes de elegir."),
                Caso(
                    nombre="interpola",
                    args=([1.0, 2.0, 3.0, 4.0], 50),
                    espera=2.5,
                    pista="La posición es (n − 1)·p/100; si cae entre dos valores, interpola linealmente.",
                ),
                Caso(nombre="p95", args=([10.0, 20.0], 95), espera=19.5, pista="95 % del camino de 10 a 20."),
                Caso(nombre="lista vacía", args=([], 50), error="ValueError", pista="Sin datos no hay percentil."),
            ),
        ),
        Prueba(
            "resume",
            "resume",
            ("percentil", "resume"),
            (
                Caso(
                    nombre="dos peticiones a la vez",
                    args=(PETICIONES,),
                    espera={"tok_s": 20.0, "ttft_p50": 1.0, "ttft_p95": 1.45},
                    pista="El throughput es tokens totales entre el tiempo de reloj, no la suma de velocidades.",
                ),
            ),
        ),
        Prueba(
            "cliente",
            "lanza_todas",
            ("cliente",),
            (
                Caso(
                    nombre="tres peticiones en paralelo",
                    args=("modelo-x", list(GUIONES), 4),
                    guiones=GUIONES,
                    juez=juez_de_cliente("modelo-x", list(GUIONES), 4, GUIONES),
                    pista="Crea las tres corrutinas y espéralas juntas con asyncio.gather.",
                ),
            ),
        ),
        Prueba(
            "cuerpo_json",
            "cuerpo_json",
            ("cuerpo_json",),
            (
                Caso(
                    nombre="petición con esquema",
                    args=("Invent a person.", PERSONA),
                    juez=juez_de_cuerpo("Invent a person.", PERSONA),
                    pista="Usa response_format con type json_schema; guided_json ya no existe.",
                ),
            ),
        ),
        Prueba(
            "es_valida",
            "es_valida",
            ("es_valida",),
            (
                Caso(nombre="válida", args=('{"name": "Ana", "age": 3}', PERSONA, "stop"), espera=True, pista="—"),
                Caso(
                    nombre="no cumple el esquema",
                    args=('{"name": "Ana"}', PERSONA, "stop"),
                    espera=False,
                    pista="Que sea JSON no basta: compara con el esquema usando jsonschema.",
                ),
                Caso(
                    nombre="texto alrededor",
                    args=('Sure! {"name": "Ana", "age": 3}', PERSONA, "stop"),
                    espera=False,
                    pista="Todo el texto debe ser JSON; no recortes ni arregles nada.",
                ),
            ),
        ),
        Prueba(
            "veredicto",
            "veredicto",
            ("veredicto",),
            (
                Caso(
                    nombre="calcula tú la razón",
                    args=(INFORME,),
                    espera={"ratio": 6.0, "ratio_lote": 1.5, "json_pct": 100.0, "cumple": True},
                    pista="Divide las velocidades del informe; no copies su campo ratio.",
                ),
                Caso(
                    nombre="un JSON malo",
                    args=({**INFORME, "json_valid": 49},),
                    espera={"ratio": 6.0, "ratio_lote": 1.5, "json_pct": 98.0, "cumple": False},
                    pista="El criterio pide 100 % de JSON válido, no «casi todo».",
                ),
            ),
        ),
    )
}

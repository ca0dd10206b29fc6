"""The public cases of project P: what a student may see. The hidden ones live with the grader."""

from __future__ import annotations

from random import Random
from typing import Any

from minilab.pruebas import hostil
from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import body_judge, client_judge, positive_numbers
from minilab.pruebas.orden import order_judge
from minilab.pruebas.servidor_simulado import script_of
from minilab.reloj import cargas
from minilab.reloj.partidas import fast

REQUESTS = [
    {"inicio": 0.0, "primer_token": 0.5, "fin": 2.0, "tokens": 30},
    {"inicio": 0.0, "primer_token": 1.5, "fin": 4.0, "tokens": 50},
]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
REPORT: dict[str, Any] = {
    "baseline_tok_s": 10.0,
    "baseline_batch_tok_s": 40.0,
    "minillm_tok_s": 60.0,
    "ratio": 99.0,
    "json_total": 50,
    "json_valid": 50,
}
ORDER = ("HuggingFaceTB/SmolLM2-135M-Instruct", 8000, 50, 2048)
REHEARSAL = Case(
    name="ensayo: una ráfaga, con reloj virtual",
    args=(),
    play=fast(cargas.bursts(Random(5))),
    hint="Mantén el lote lleno: quien llega entra en el paso siguiente si cabe, aunque haya un lote en marcha.",
)
SCRIPTS = {
    "What is a token?": script_of(["A", " piece", " of", " text"], 0.4, 0.1),
    "What is a batch?": script_of(["Many", " at", " once"], 0.7, 0.2),
    "What is a cache?": script_of(["Stored", " work"], 0.2, 0.3),
}

PREDICTED = ("contra_una_a_una", "contra_lote")

CHECKS: dict[str, Check] = {
    p.name: p
    for p in (
        Check(
            "prediccion",
            "mi_prediccion",
            ("prediccion",),
            (
                Case(
                    name="dos números",
                    args=(),
                    judge=positive_numbers(PREDICTED),
                    hint="Sustituye los None por los números que esperas medir.",
                ),
            ),
        ),
        Check(
            "percentil",
            "percentil",
            ("percentil",),
            (
                Case(name="mediana impar", args=([3.0, 1.0, 2.0], 50), expected=2.0, hint="Ordena antes de elegir."),
                Case(
                    name="interpola",
                    args=([1.0, 2.0, 3.0, 4.0], 50),
                    expected=2.5,
                    hint="La posición es (n − 1)·p/100; si cae entre dos valores, interpola linealmente.",
                ),
                Case(name="p95", args=([10.0, 20.0], 95), expected=19.5, hint="95 % del camino de 10 a 20."),
                Case(name="lista vacía", args=([], 50), error="ValueError", hint="Sin datos no hay percentil."),
            ),
        ),
        Check(
            "resume",
            "resume",
            ("percentil", "resume"),
            (
                Case(
                    name="dos peticiones a la vez",
                    args=(REQUESTS,),
                    expected={"tok_s": 20.0, "ttft_p50": 1.0, "ttft_p95": 1.45},
                    hint="El throughput es tokens totales entre el tiempo de reloj, no la suma de velocidades.",
                ),
            ),
        ),
        Check(
            "cliente",
            "lanza_todas",
            ("cliente",),
            (
                Case(
                    name="tres peticiones en paralelo",
                    args=("modelo-x", list(SCRIPTS), 4),
                    scripts=SCRIPTS,
                    judge=client_judge("modelo-x", list(SCRIPTS), 4, SCRIPTS),
                    hint="Crea las tres corrutinas y espéralas juntas con asyncio.gather.",
                ),
            ),
        ),
        Check("planificador", "Planificador", ("planificador",), cargas.public_cases()),
        Check("reloj_real", "Planificador", ("planificador",), (REHEARSAL,)),
        Check("mascara", "Mascara", ("mascara",), hostil.public_cases()),
        Check(
            "orden_vllm",
            "orden_vllm",
            ("orden_vllm",),
            (
                Case(
                    name="orden para cincuenta peticiones",
                    args=ORDER,
                    judge=order_judge(*ORDER),
                    hint="vllm serve MODELO y sus opciones, cada una en su sitio de la lista.",
                ),
            ),
        ),
        Check(
            "cuerpo_json",
            "cuerpo_json",
            ("cuerpo_json",),
            (
                Case(
                    name="petición con esquema",
                    args=("Invent a person.", PERSON),
                    judge=body_judge("Invent a person.", PERSON),
                    hint="Usa response_format con type json_schema; guided_json ya no existe.",
                ),
            ),
        ),
        Check(
            "es_valida",
            "es_valida",
            ("es_valida",),
            (
                Case(name="válida", args=('{"name": "Ana", "age": 3}', PERSON, "stop"), expected=True, hint="—"),
                Case(
                    name="no cumple el esquema",
                    args=('{"name": "Ana"}', PERSON, "stop"),
                    expected=False,
                    hint="Que sea JSON no basta: compara con el esquema usando jsonschema.",
                ),
                Case(
                    name="texto alrededor",
                    args=('Sure! {"name": "Ana", "age": 3}', PERSON, "stop"),
                    expected=False,
                    hint="Todo el texto debe ser JSON; no recortes ni arregles nada.",
                ),
            ),
        ),
        Check(
            "veredicto",
            "veredicto",
            ("veredicto",),
            (
                Case(
                    name="calcula tú la razón",
                    args=(REPORT,),
                    expected={"ratio": 6.0, "ratio_lote": 1.5, "json_pct": 100.0, "cumple": True},
                    hint="Divide las velocidades del informe; no copies su campo ratio.",
                ),
                Case(
                    name="un JSON malo",
                    args=({**REPORT, "json_valid": 49},),
                    expected={"ratio": 6.0, "ratio_lote": 1.5, "json_pct": 98.0, "cumple": False},
                    hint="El criterio pide 100 % de JSON válido, no «casi todo».",
                ),
            ),
        ),
    )
}

"""The public checks of lab 9: what a student may see."""

from __future__ import annotations

import json

from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.jueces_servidor import (
    app_play,
    app_script,
    bridge_play,
    chat_request,
    error_play,
    fixed_play,
    length_play,
    metrics_judge,
    one_event,
    verdict_judge,
    whole_characters,
)

PREDICTED = ("bloqueante", "contra_serve")
HELLO = {"model": "aula", "messages": [{"role": "user", "content": "hi"}]}
HISTOGRAM = {
    "nombre": "aula:ttft_seconds", "tipo": "histogram", "ayuda": "TTFT.", "etiquetas": {"model_name": "m"},
    "limites": [0.1, 0.5], "observaciones": [0.05, 0.1, 0.4, 1.7],
}  # fmt: skip
COUNTER = {"nombre": "aula:tokens_total", "tipo": "counter", "ayuda": "Tokens.", "etiquetas": {}, "valor": 12}

LOOP_HINT = "Cumple los encargos, da un paso con asyncio.to_thread y reparte; sin nada pendiente, espera a `despierta`."
CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "prediccion_l09",
            "mi_prediccion",
            ("prediccion",),
            (
                Case(
                    name="dos números",
                    args=(),
                    judge=positive_numbers(PREDICTED),
                    hint="Escribe los dos números que esperas, mayores que 0.",
                ),
            ),
        ),
        Check(
            "trozo_sse",
            "trozo_sse",
            ("trozo_sse",),
            (
                Case(
                    name="un evento",
                    args=({"a": 1, "b": "sí"},),
                    judge=one_event({"a": 1, "b": "sí"}),
                    hint="data: , el JSON y dos saltos de línea.",
                ),
                Case(
                    name="texto con saltos y comillas",
                    args=({"t": 'uno\n\ndata: {"dos": 2}\n\n'},),
                    judge=one_event({"t": 'uno\n\ndata: {"dos": 2}\n\n'}),
                    hint="json.dumps escribe el salto como \\n; str() no da JSON.",
                ),
                Case(name="el final", args=(None,), judge=one_event(None), hint="[DONE] va sin comillas."),
            ),
        ),
        Check(
            "decodificador",
            "Decodificador",
            ("decodificador",),
            (
                Case(
                    name="una ñ en dos trozos, y nada detrás",
                    args=(),
                    play=whole_characters([b"a\xc3", b"\xb1", b"o"]),
                    hint="C3 anuncia dos octetos: guárdalo hasta que llegue el segundo; entonces entrégalos.",
                ),
                Case(
                    name="un euro y un emoji, octeto a octeto",
                    args=(),
                    play=whole_characters([bytes([b]) for b in "ok €🙂!".encode()]),
                    hint="Mira hacia atrás hasta tres octetos, hasta dar con el primero del carácter.",
                ),
                Case(
                    name="acaba a medias",
                    args=(),
                    play=whole_characters([b"fin \xf0\x9f"]),
                    hint="termina() entrega lo pendiente, con � donde falte.",
                ),
            ),
        ),
        Check(
            "valida_peticion",
            "valida_peticion",
            ("errores",),
            (
                Case(
                    name="vale", args=(HELLO, "aula"), judge=verdict_judge(None, None), hint="Lo que falta, falta bien."
                ),
                Case(
                    name="otro modelo",
                    args=({**HELLO, "model": "otro"}, "aula"),
                    judge=verdict_judge(404, "model"),
                    hint="404: lo que se pide no existe.",
                ),
                Case(
                    name="sin ningún mensaje",
                    args=({**HELLO, "messages": []}, "aula"),
                    judge=verdict_judge(400, "messages"),
                    hint="Una lista, con algo dentro, y es_mensaje para cada uno.",
                ),
                Case(
                    name="max_tokens es True",
                    args=({**HELLO, "max_tokens": True}, "aula"),
                    judge=verdict_judge(400, "max_tokens"),
                    hint="En Python True es un int: compara el tipo exacto.",
                ),
                Case(
                    name="temperatura demasiado alta",
                    args=({**HELLO, "temperature": 2.5}, "aula"),
                    judge=verdict_judge(400, "temperature"),
                    hint="Un número entre 0 y 2, los dos incluidos.",
                ),
                Case(
                    name="un campo que no sabemos obedecer",
                    args=({**HELLO, "guided_json": {"type": "object"}}, "aula"),
                    judge=verdict_judge(400, "guided_json"),
                    hint="Recorre NO_SABEMOS.",
                ),
                Case(
                    name="el cuerpo del error",
                    args=(),
                    play=error_play(404, "no está", "model", "NotFoundError"),
                    hint="Cuatro claves dentro de error; code es el número.",
                ),
                Case(
                    name="la respuesta no cabe",
                    args=(),
                    play=length_play(90, 20, 100),
                    hint="Prompt y respuesta comparten el contexto.",
                ),
                Case(
                    name="el prompt lo llena",
                    args=(),
                    play=length_play(100, 5, 100),
                    hint="Si no queda sitio ni para un token, el campo que hay que arreglar es messages.",
                ),
            ),
        ),
        Check(
            "puente",
            "Puente",
            ("puente",),
            (
                Case(
                    name="tres clientes a la vez",
                    args=(),
                    play=bridge_play(
                        {"plazas": 4, "clientes": [{"prompt": p, "max": 5, "llega": 0} for p in ("hi", "ñu", "yes")]}
                    ),
                    hint=LOOP_HINT,
                ),
                Case(
                    name="uno llega a mitad de un paso y otros se van",
                    args=(),
                    play=bridge_play(
                        {
                            "plazas": 4,
                            "clientes": [
                                {"prompt": "one", "max": 8, "llega": 0},
                                {"prompt": "two", "max": 8, "llega": 0, "se_va_tras": 2},
                                {"prompt": "three", "max": 4, "llega": 3},
                                {"prompt": "four", "max": 8, "llega": 0, "cancela_en": 3},
                            ],
                        }
                    ),
                    hint="Entrar y abortar se encargan; el aborto, en finally y solo si no había acabado.",
                ),
                Case(
                    name="otro llega cuando todo está en calma",
                    args=(),
                    play=bridge_play(
                        {
                            "plazas": 2,
                            "clientes": [{"prompt": "hi", "max": 2, "llega": m} for m in (0, -1)],
                        }
                    ),
                    hint="Duerme con clear() y wait(): encarga() despierta.",
                ),
            ),
        ),
        Check(
            "expone_metricas",
            "expone_metricas",
            ("metricas",),
            (
                Case(
                    name="un contador y un histograma",
                    args=([COUNTER, HISTOGRAM],),
                    judge=metrics_judge([COUNTER, HISTOGRAM]),
                    hint="Cubos acumulados: observaciones ≤ límite; +Inf las cuenta todas.",
                ),
            ),
        ),
        Check(
            "crea_app",
            "crea_app",
            ("trozo_sse", "decodificador", "errores", "puente", "metricas", "app"),
            (
                Case(
                    name="una respuesta por trozos",
                    args=(),
                    play=app_play(app_script([chat_request("hola ñandú", 6, stream=True)])),
                    hint="Un Decodificador por respuesta; trozo final con el motivo; después, el uso y [DONE].",
                ),
                Case(
                    name="una respuesta entera",
                    args=(),
                    play=app_play(app_script([chat_request("hola", None, stream=False)])),
                    hint="Sin stream: junta(peticion, todos los eventos). Sin max_tokens, 16.",
                ),
                Case(
                    name="un modelo que no está",
                    args=(),
                    play=app_play(
                        app_script(
                            [
                                (
                                    {"ruta": "/v1/chat/completions", "cuerpo": json.dumps({**HELLO, "model": "x"})},
                                    {"estado": 404, "campo": "model"},
                                )
                            ]
                        )
                    ),
                    hint="JSONResponse(error_openai(*error), error[0]).",
                ),
            ),
        ),
        Check(
            "chat_arreglado",
            "chat_arreglado",
            ("puente", "chat_arreglado"),
            (
                Case(
                    name="tres personas a la vez",
                    args=(),
                    play=fixed_play(["hi", "ñandú", "ok"], 9),
                    hint="Recorre puente.genera, con una lista de mensajes; junta los octetos antes de decodificar.",
                ),
                Case(
                    name="una respuesta que acaba a mitad de un carácter",
                    args=(),
                    play=fixed_play(["hi"], 8),
                    hint="Lo que no se completó es un �: al decodificar, replace.",
                ),
            ),
        ),
    )
}

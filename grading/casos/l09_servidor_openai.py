"""Hidden cases of lab 9, a server compatible with OpenAI. Names and hints are shown to students; arguments are not."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from minilab.bancos import servir
from minilab.pruebas import jueces_servidor as jueces
from minilab.pruebas.casos import Case, Check
from minilab.pruebas.jueces import positive_numbers
from minilab.pruebas.publicas import l09

# The toy engine and its rehearsals, as the notebook imports them; the links are those of its locked cell.
PRELUDE = (
    Path(servir.__file__).read_text(encoding="utf-8")
    + """
from contextlib import aclosing

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


def ensayo_puente(guion):
    return ensaya_puente(Puente, guion)


def ensayo_chat(guion):
    return ensaya_chat(chat_arreglado, Puente, guion)


def ensayo_app(guion):
    return ensaya_app(crea_app, Puente, guion)
"""
)
IMPORTS = ("fastapi",)

LETTERS = "abcdefgh ñáü¿→€你好🙂🎉𝄞\n\"\\'"
WORDS = ["river", "token", "cache", "ñandú", "lento", "rápido", "größe", "猫", "🙂", "queue"]


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    cases = {
        "prueba_prediccion": ("prediccion_l09", _prediction()),
        "prueba_trozo_sse": ("trozo_sse", _events(rng)),
        "prueba_decodificador": ("decodificador", _decoder(rng)),
        "prueba_valida_peticion": ("valida_peticion", _requests(rng)),
        "prueba_puente": ("puente", _bridge(rng)),
        "prueba_expone_metricas": ("expone_metricas", _metrics(rng)),
        "prueba_crea_app": ("crea_app", _app(rng)),
        "prueba_chat_arreglado": ("chat_arreglado", _fixed(rng)),
    }
    public = l09.CHECKS
    return {grade_id: Check(n, public[n].function, public[n].cells, c) for grade_id, (n, c) in cases.items()}


def _prediction() -> tuple[Case, ...]:
    hint = "Devuelve tus dos números, mayores que 0."
    return (Case(name="predicción escrita", args=(), judge=positive_numbers(l09.PREDICTED), hint=hint),)


def _text(rng: Random, length: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(length))


def _events(rng: Random) -> tuple[Case, ...]:
    number = rng.randrange(10**6)
    events: dict[str, Any] = {
        "texto al azar": {"choices": [{"delta": {"content": _text(rng, 40)}, "index": 0}], "id": f"c-{number}"},
        "un final falso dentro del texto": {"t": f"{number}\n\ndata: [DONE]\n\n"},
        "retornos de carro y separadores": {"t": f"a\r\n\r\ndata: {number}\r\rb\u2028c\x85d"},
        "comillas, barras y valores nulos": {"t": '"\\n"}', "n": None, "v": True, "x": number / 7},
        "claves que parecen campos": {"data: x": 1, "event:\n": [number, {"\n": "\n"}]},
        "un objeto vacío": {},
    }
    hint = "Un evento es una sola línea data: con JSON de verdad; nada del texto puede salirse de ella."
    cases = [Case(name=n, args=(e,), judge=jueces.one_event(e), hint=hint) for n, e in events.items()]
    return (*cases, Case(name="el cierre", args=(None,), judge=jueces.one_event(None), hint="data: [DONE]"))


def _decoder(rng: Random) -> tuple[Case, ...]:
    text = "¿ñ€你🙂𝄞 " + _text(rng, 12)
    octets = (_text(rng, 60) + "🎉").encode()
    cuts = sorted(rng.sample(range(1, len(octets)), 14))
    pieces = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    tail = "é€🙂"[rng.randrange(3)].encode()[:-1]
    garbage = [bytes(rng.choice((0x41, 0x80, 0xA0, 0xC3, 0xE2, 0xED, 0xF0, 0xFF)) for _ in range(3)) for _ in range(8)]
    hint = "Entrega cuanto antes lo que esté completo, y nunca medio carácter."
    plays = {
        "cortado en cada octeto": jueces.every_cut(text),
        "octeto a octeto": jueces.whole_characters([bytes([b]) for b in octets]),
        "trozos de cualquier tamaño": jueces.whole_characters(pieces),
        "trozos vacíos por medio": jueces.whole_characters([b"", *pieces[:3], b"", *pieces[3:], b""]),
        "acaba a mitad de un carácter": jueces.whole_characters([b"fin ", tail]),
        "octetos que no son UTF-8": jueces.same_as_whole(garbage),
        "un principio que nunca continúa": jueces.same_as_whole([b"\xf0", b"\x9f", b"A", b"\xe2\x82", b"\xc3("]),
    }
    return tuple(Case(name=name, args=(), play=play, hint=hint) for name, play in plays.items())


def _requests(rng: Random) -> tuple[Case, ...]:
    model = f"modelo-{rng.randrange(10**6)}"
    good = {"model": model, "messages": [{"role": "user", "content": _text(rng, 9)}]}
    full = {
        **good,
        "messages": [{"role": "system", "content": ""}, *good["messages"], {"role": "assistant", "content": "ok"}],
        "max_tokens": rng.randrange(1, 99),
        "temperature": 0,
        "stream": True,
        "tools": None,
        "user": "alguien",
    }
    twice = {"model": "otro", "messages": [], "max_tokens": 0}
    wrong: dict[str, tuple[Any, int | None, str | None]] = {
        "una petición completa": (full, None, None),
        "temperatura en el límite": ({**good, "temperature": 2}, None, None),
        "una lista en vez de un objeto": ([good], 400, None),
        "cuerpo que no era JSON": (None, 400, None),
        "sin modelo": ({"messages": good["messages"]}, 400, "model"),
        "modelo que no es texto": ({**good, "model": [model]}, 400, "model"),
        "modelo desconocido": ({**good, "model": model + "x"}, 404, "model"),
        "gana la primera regla": (twice, 404, "model"),
        "sin mensajes": ({"model": model}, 400, "messages"),
        "lista de mensajes vacía": ({**good, "messages": []}, 400, "messages"),
        "un mensaje malo entre buenos": ({**good, "messages": [*good["messages"], {"role": "user"}]}, 400, "messages"),
        "mensajes como texto": ({**good, "messages": "hola"}, 400, "messages"),
        "max_tokens cero": ({**good, "max_tokens": 0}, 400, "max_tokens"),
        "max_tokens negativo": ({**good, "max_tokens": -rng.randrange(1, 9)}, 400, "max_tokens"),
        "max_tokens con decimales": ({**good, "max_tokens": 2.0}, 400, "max_tokens"),
        "max_tokens nulo": ({**good, "max_tokens": None}, None, None),
        "temperatura nula": ({**good, "temperature": None}, None, None),
        "max_tokens lógico": ({**good, "max_tokens": True}, 400, "max_tokens"),
        "max_tokens como texto": ({**good, "max_tokens": "8"}, 400, "max_tokens"),
        "temperatura fuera": ({**good, "temperature": 2 + rng.random()}, 400, "temperature"),
        "temperatura lógica": ({**good, "temperature": True}, 400, "temperature"),
        "esquema que no se va a cumplir": (
            {**good, "response_format": {"type": "json_schema"}},
            400,
            "response_format",
        ),
        "herramientas": ({**good, "tools": []}, 400, "tools"),
    }
    hint = "Repasa la tabla de reglas y su orden."
    cases = [
        Case(name=name, args=(request, model), judge=jueces.verdict_judge(status, param), hint=hint)
        for name, (request, status, param) in wrong.items()
    ]
    context = rng.randrange(50, 200)
    lengths = {
        "cabe justo": (context - 8, 8),
        "sobra uno": (context - 8, 9),
        "el prompt lo llena": (context, 1),
        "el prompt no cabe": (context + rng.randrange(1, 50), 1),
        "queda sitio para uno": (context - 1, 1),
    }
    where = "El prompt que no deja sitio para un token es culpa de messages; lo demás, de max_tokens."
    cases += [Case(name=n, args=(), play=jueces.length_play(*pair, context), hint=where) for n, pair in lengths.items()]
    errors = {
        "cuerpo de un 400": (400, _text(rng, 20), "messages", "BadRequestError"),
        "cuerpo sin parámetro": (500, "algo falló", None, "InternalServerError"),
        "un estado que no está en la tabla": (418, "tetera", None, "APIError"),
    }
    shape = "message, type, param y code, dentro de error."
    return (*cases, *(Case(name=n, args=(), play=jueces.error_play(*e), hint=shape) for n, e in errors.items()))


def _client(rng: Random, arrives: int, **more: int) -> dict[str, Any]:
    prompt = " ".join(rng.choices(WORDS, k=rng.randrange(2, 5)))
    return {"prompt": prompt, "max": rng.randrange(6, 12), "llega": arrives, **more}


def _bridge(rng: Random) -> tuple[Case, ...]:
    c = lambda arrives, **more: _client(rng, arrives, **more)  # noqa: E731
    scripts = {
        "cincuenta a la vez": {"plazas": 50, "clientes": [c(0) for _ in range(50)]},
        "más clientes que plazas": {"plazas": 3, "clientes": [c(0) for _ in range(8)]},
        "llegan a mitad de un paso": {"plazas": 4, "clientes": [c(0), c(1), c(2), c(2), c(4)]},
        "se van a mitad de respuesta": {"plazas": 4, "clientes": [c(0), c(0, se_va_tras=1), c(0, se_va_tras=3), c(2)]},
        "se van mientras esperan": {"plazas": 2, "clientes": [c(0), c(0), c(0, cancela_en=2), c(1, cancela_en=3)]},
        "cuelga el único cliente": {"plazas": 2, "clientes": [c(0, se_va_tras=2), c(-1)]},
        "calma y vuelta a empezar": {"plazas": 2, "clientes": [c(0), c(-1), c(-1)]},
        "la misma pregunta dos veces": {"plazas": 4, "clientes": [{"prompt": "same", "max": 5, "llega": 0}] * 2},
    }
    hint = "El motor se toca solo entre dos pasos, el paso va en otro hilo y quien se va se aborta una vez."
    return tuple(Case(name=n, args=(), play=jueces.bridge_play(s), hint=hint) for n, s in scripts.items())


def _metrics(rng: Random) -> tuple[Case, ...]:
    def histogram(count: int, labels: dict[str, str]) -> dict[str, Any]:
        bounds = sorted({round(rng.uniform(0.01, 5), 3) for _ in range(rng.randrange(2, 7))})
        seen = [round(rng.expovariate(1.0), 4) for _ in range(count)]
        name = f"aula:espera_{rng.randrange(10**6)}_seconds"
        return {"nombre": name, "tipo": "histogram", "ayuda": "Espera.", "etiquetas": labels, "limites": bounds,
                "observaciones": [*seen, *(rng.choices(bounds, k=2) if count else [])]}  # fmt: skip

    def simple(kind: str, value: float, labels: dict[str, str]) -> dict[str, Any]:
        name = f"aula:cosa_{rng.randrange(10**6)}" + ("_total" if kind == "counter" else "")
        return {"nombre": name, "tipo": kind, "ayuda": "Una cosa.", "etiquetas": labels, "valor": value}

    labels = {"model_name": f"m-{rng.randrange(99)}", "engine": "0"}
    nasty = {"ruta": 'C:\\temp\\"x"\n{y="1"} 3'}
    groups = {
        "observaciones que caen en un límite": [histogram(20, labels)],
        "ninguna observación": [histogram(0, labels)],
        "histograma sin etiquetas": [histogram(6, {})],
        "etiquetas con comillas y barras": [simple("gauge", rng.randrange(9), nasty)],
        "varias seguidas": [
            simple("counter", rng.randrange(10**6), labels),
            simple("gauge", 2.5, {}),
            histogram(9, labels),
        ],
        "ninguna métrica con valor cero de más": [simple("counter", 0, labels)],
    }
    hint = "Cada cubo cuenta las observaciones ≤ su límite; después _sum y _count; escapa las etiquetas."
    return tuple(Case(name=n, args=(m,), judge=jueces.metrics_judge(m), hint=hint) for n, m in groups.items())


def _app(rng: Random) -> tuple[Case, ...]:
    def words(count: int) -> str:
        return " ".join(rng.choices(WORDS, k=count))

    def bad(body: Any, status: int, field: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        text = body if isinstance(body, str) else json.dumps(body)
        return {"ruta": "/v1/chat/completions", "cuerpo": text}, {"estado": status, "campo": field}

    hanging = []
    for _ in range(2):
        request, expected = jueces.chat_request(words(6), 20, stream=True)
        hanging.append(({**request, "se_va_tras": rng.randrange(1, 4)}, {**expected, "cuelga": True}))
    long = {**l09.HELLO, "messages": [{"role": "user", "content": words(250)}]}
    chats = {
        "cincuenta a la vez": ([jueces.chat_request(words(3), 6, stream=True) for _ in range(50)], 50),
        "trozos que cortan caracteres": ([jueces.chat_request("ñ" * rng.randrange(4, 9), 40, stream=True)], 4),
        "con streaming y sin él": (
            [jueces.chat_request(words(2), rng.randrange(3, 9), stream=bool(i % 2)) for i in range(6)], 6),
        "sin max_tokens": ([jueces.chat_request(words(8), None, stream=True)], 4),
        "max_tokens nulo": ([jueces.chat_request(words(8), None, stream=bool(i), max_tokens=None) for i in (0, 1)], 4),
        "cuelgan a mitad": ([*hanging, jueces.chat_request(words(3), 9, stream=True)], 4),
        "el cuerpo no es JSON": ([bad('{"model": ', 400, None)], 4),
        "esquema que no se va a cumplir": ([bad({**l09.HELLO, "response_format": {"type": "json_schema"}}, 400,
                                                "response_format")], 4),
        "el prompt no cabe": ([bad(long, 400, "messages")], 4),
        "la respuesta no cabe": ([bad({**l09.HELLO, "max_tokens": 200}, 400, "max_tokens")], 4),
        "lo malo no estorba a lo bueno": (
            [bad([], 400, None), jueces.chat_request(words(3), 5, stream=True), bad({"model": "x"}, 404, "model")], 4),
        "las otras rutas": ([({"ruta": "/metrics", "cuerpo": None}, {"estado": 200})], 4),
    }  # fmt: skip
    hint = "Valida antes de abrir la respuesta; un Decodificador por petición; aclosing cierra el generador de dentro."
    return tuple(
        Case(name=name, args=(), play=jueces.app_play(jueces.app_script(requests, places)), hint=hint)
        for name, (requests, places) in chats.items()
    )


def _fixed(rng: Random) -> tuple[Case, ...]:
    hint = "Un async for sobre puente.genera; decodifica una sola vez, al final."
    groups = {
        "ocho personas a la vez": ([f"{w} {rng.randrange(10**6)}" for w in rng.choices(WORDS, k=8)], 12),
        "una persona": ([" ".join(rng.choices(WORDS, k=4))], 30),
        "caracteres partidos": (["🙂ñ€" * rng.randrange(2, 5)], 50),
    }
    return tuple(Case(name=n, args=(), play=jueces.fixed_play(m, k), hint=hint) for n, (m, k) in groups.items())

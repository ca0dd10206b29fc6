"""Judges of lab 9, a server: what is right in events, decoded text, errors, a bridge, an app and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from minilab.bancos.servir import respuesta_de_juguete
from minilab.pruebas.casos import Outcome, Remote, Reply
from minilab.pruebas.planos import equal

# --- Server-sent events ---------------------------------------------------------------------------------------------


def sse_events(text: str) -> list[str]:
    """The data of each event, as the standard reads a stream (WHATWG); one that is unfinished is lost."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    events, data = [], []
    for line in lines[:-1]:
        if line == "":
            events += ["\n".join(data)] if data else []
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    return events


def one_event(event: Any) -> Callable[[Reply], str | None]:
    """Exactly one event whose data is the JSON of ``event``; with None, ``[DONE]``."""

    def judge(reply: Reply) -> str | None:
        if not isinstance(reply.value, str):
            return "una cadena"
        events = sse_events(reply.value)
        if len(events) != 1:
            return f"un evento, con su línea en blanco al final (un cliente lee {len(events)})"
        if event is None:
            return None if events == ["[DONE]"] else "data: [DONE]"
        try:
            data = json.loads(events[0])
        except ValueError:
            return "JSON detrás de data:"
        return None if equal(event, data) else f"el mismo diccionario después de ir y volver: {event}"

    return judge


# --- UTF-8 ----------------------------------------------------------------------------------------------------------


def complete_prefix(octets: bytes) -> str:
    """The characters of valid UTF-8 that are whole."""
    for missing in range(4):
        try:
            return octets[: len(octets) - missing].decode()
        except UnicodeDecodeError:
            continue
    raise ValueError("not UTF-8")


def whole_characters(pieces: Sequence[bytes]) -> Callable[[Remote], Outcome]:
    """After every piece exactly the characters that are complete have been told; at the end, nothing is lost."""

    def play(remote: Remote) -> Outcome:
        got = _decoded(remote, pieces)
        said, seen = "", b""
        for number, piece in enumerate(pieces):
            said, seen = said + got[number], seen + piece
            if said != (expected := complete_prefix(seen)):
                return Outcome(f"tras los octetos {list(seen)} se esperaba {expected!r} en total; iba {said!r}")
        whole = seen.decode("utf-8", "replace")
        return Outcome(
            None if said + got[-1] == whole else f"al terminar se esperaba {whole!r}; salió {said + got[-1]!r}"
        )

    return play


def every_cut(text: str) -> Callable[[Remote], Outcome]:
    """The text in two pieces, cut at each byte in turn, a new decoder each time."""
    octets = text.encode()

    def play(remote: Remote) -> Outcome:
        for cut in range(len(octets) + 1):
            outcome = whole_characters([octets[:cut], octets[cut:]])(remote)
            if outcome.complaint:
                return Outcome(f"cortado en el octeto {cut}: {outcome.complaint}")
        return Outcome()

    return play


def same_as_whole(pieces: Sequence[bytes]) -> Callable[[Remote], Outcome]:
    """Bytes that are not UTF-8: nothing breaks, and the total is what decoding all at once gives."""

    def play(remote: Remote) -> Outcome:
        got, whole = "".join(_decoded(remote, pieces)), b"".join(pieces).decode("utf-8", "replace")
        return Outcome(None if got == whole else f"con los octetos {list(b''.join(pieces))} se esperaba {whole!r}")

    return play


def _decoded(remote: Remote, pieces: Sequence[bytes]) -> list[str]:
    handle = remote.new("Decodificador")
    calls: list[tuple[str, Sequence[Any]]] = [("agrega", [list(piece)]) for piece in pieces]
    got = remote.run(handle, [*calls, ("termina", [])])
    return [text if isinstance(text, str) else repr(text) for text in got]


# --- Requests and errors --------------------------------------------------------------------------------------------


def verdict_judge(status: int | None, param: str | None) -> Callable[[Reply], str | None]:
    """None for a request that is right; else (status, a message, the field)."""

    def judge(reply: Reply) -> str | None:
        if status is None:
            return None if reply.value is None else "None: esta petición vale"
        if not isinstance(reply.value, list) or len(reply.value) != 3:
            return "(estado, mensaje, parámetro)"
        if [reply.value[0], reply.value[2]] != [status, param]:
            return f"el estado {status} y el parámetro {param!r}"
        return (
            None if isinstance(reply.value[1], str) and reply.value[1].strip() else "un mensaje que diga qué arreglar"
        )

    return judge


def error_play(status: int, message: str, param: str | None, kind: str) -> Callable[[Remote], Outcome]:
    def play(remote: Remote) -> Outcome:
        expected = {"error": {"message": message, "type": kind, "param": param, "code": status}}
        args = (status, message) if param is None else (status, message, param)
        got = remote.function("error_openai", *args)
        return Outcome(None if equal(expected, got) else f"error_openai debía devolver {expected}; devolvió {got}")

    return play


def length_play(prompt: int, answer: int, context: int) -> Callable[[Remote], Outcome]:
    param = "messages" if prompt >= context else "max_tokens" if prompt + answer > context else None

    def play(remote: Remote) -> Outcome:
        got = remote.function("valida_longitud", prompt, answer, context)
        complaint = verdict_judge(None if param is None else 400, param)(Reply(value=got))
        return Outcome(complaint and f"valida_longitud({prompt}, {answer}, {context}): se esperaba {complaint}")

    return play


# --- Bridge and app -------------------------------------------------------------------------------------------------


def bridge_play(script: dict[str, Any]) -> Callable[[Remote], Outcome]:
    """Everybody who stays gets all bytes, whoever leaves is aborted once, and the engine is used as it must be."""

    def play(remote: Remote) -> Outcome:
        return Outcome(_bridge_complaint(script, remote.function("ensayo_puente", script)))

    return play


def _bridge_complaint(script: dict[str, Any], got: dict[str, Any]) -> str | None:
    if got["quejas"]:
        return f"el motor se quejó: {got['quejas'][0]}"
    leavers = 0
    for client, octets in zip(script["clientes"], got["octetos"], strict=True):
        whole = list(respuesta_de_juguete(client["prompt"])[: 3 * client["max"]])
        if client.get("cancela_en") is not None:
            leavers += 1
            if octets != whole[: len(octets)]:
                return "a un cliente le llegaron octetos que no eran suyos, o en otro orden"
            continue
        expected = whole[: 3 * client.get("se_va_tras", client["max"])]
        leavers += len(expected) < len(whole)
        if octets != expected:
            return f"a un cliente le llegaron {len(octets)} octetos suyos y se esperaban {len(expected)}, en orden"
    if got["abortos"] != leavers:
        return f"{leavers} abortos (uno por cliente que se fue antes de acabar); hubo {got['abortos']}"
    if got["colas"]:
        return f"ninguna cola abierta al final; quedaron {got['colas']}"
    together = min(script["plazas"], sum(c["llega"] == 0 for c in script["clientes"]))
    if (most := max(map(len, got["pasos"]), default=0)) < together:
        return f"{together} peticiones en un mismo paso; como mucho hubo {most}"
    if got["vueltas"] > 6:
        return "que el bucle durmiera sin trabajo; daba vueltas preguntando pendientes()"
    return None


def app_play(script: dict[str, Any]) -> Callable[[Remote], Outcome]:
    """Statuses, error fields, texts and endings of all answers; nothing is left in the engine."""

    def play(remote: Remote) -> Outcome:
        got = remote.function("ensayo_app", {k: v for k, v in script.items() if k != "esperado"})
        if got["quejas"]:
            return Outcome(f"el motor se quejó: {got['quejas'][0]}")
        for expected, answer in zip(script["esperado"], got["respuestas"], strict=True):
            if complaint := _answer_complaint(expected, answer):
                return Outcome(complaint)
        if got["pendientes"]:
            return Outcome(f"ninguna petición en el motor al final; quedaron {got['pendientes']}")
        hung = sum("se_va_tras" in p for p in script["peticiones"])
        if got["abortos"] != hung:
            return Outcome(f"{hung} abortos, uno por cliente que colgó; hubo {got['abortos']}")
        chats = sum(e["estado"] == 200 and "texto" in e for e in script["esperado"])
        if got["a_la_vez"] < min(chats, script["plazas"]):
            return Outcome(f"{min(chats, script['plazas'])} peticiones en un paso; como mucho hubo {got['a_la_vez']}")
        return Outcome()

    return play


def _answer_complaint(expected: dict[str, Any], answer: dict[str, Any]) -> str | None:
    body = "".join(answer["trozos"])
    if answer["estado"] != expected["estado"]:
        return f"HTTP {expected['estado']}; llegó {answer['estado']}"
    if "campo" in expected:
        try:
            error = json.loads(body)["error"]
            right = (error["param"], error["code"]) == (expected["campo"], expected["estado"])
        except (ValueError, LookupError, TypeError):
            right = False
        return None if right else f"el cuerpo de error_openai con param {expected['campo']!r}"
    if "texto" not in expected or expected.get("cuelga"):
        return None
    return _stream_complaint(expected, answer, body) if expected["stream"] else _whole_complaint(expected, body)


def _stream_complaint(expected: dict[str, Any], answer: dict[str, Any], body: str) -> str | None:
    if not answer["tipo"].startswith("text/event-stream"):
        return "media_type text/event-stream"
    events = sse_events(body)
    if not events or events[-1] != "[DONE]" or events.count("[DONE]") != 1:
        return "un data: [DONE] al final"
    if len(answer["trozos"]) < len(events):
        return "que cada evento saliera por separado, según llega del motor"
    try:
        chunks = [json.loads(event) for event in events[:-1]]
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        text = "".join(choice["delta"]["content"] for choice in choices)
        endings = [choice["finish_reason"] for choice in choices]
        usage = chunks[-1]["usage"]
    except (ValueError, LookupError, TypeError):
        return "eventos de trozo() y, al final, uno de trozo_de_uso()"
    return _content_complaint(expected, text, endings[-1], usage) or (
        None if not any(endings[:-1]) else "el motivo del final solo en el último trozo"
    )


def _whole_complaint(expected: dict[str, Any], body: str) -> str | None:
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        return _content_complaint(expected, choice["message"]["content"], choice["finish_reason"], answer["usage"])
    except (ValueError, LookupError, TypeError):
        return "sin stream, un solo JSON: el que hace junta()"


def _content_complaint(expected: dict[str, Any], text: str, ending: str | None, usage: dict[str, Any]) -> str | None:
    if text != expected["texto"]:
        return f"el texto {expected['texto']!r}; llegó {text!r}"
    if ending != expected["fin"]:
        return f"finish_reason {expected['fin']!r}; llegó {ending!r}"
    counted = [usage["prompt_tokens"], usage["completion_tokens"]]
    return None if counted == expected["uso"] else f"el uso {expected['uso']}; llegó {counted}"


def chat_request(content: str, limit: int | None, stream: bool, **extra: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what is asked of the app, what is expected of it) for one chat with the toy engine."""
    messages = [{"role": "user", "content": content}]
    body = {"model": "aula", "messages": messages, **({"stream": True} if stream else {}), **extra}
    if limit is not None:
        body["max_tokens"] = limit
    octets = respuesta_de_juguete(messages)
    pieces = -(-len(octets) // 3)
    told = min(pieces, 16 if limit is None else limit)
    expected = {
        "estado": 200, "stream": stream, "texto": octets[: 3 * told].decode("utf-8", "replace"),
        "fin": "length" if told == (16 if limit is None else limit) else "stop", "uso": [len(content.split()), told],
    }  # fmt: skip
    return {"ruta": "/v1/chat/completions", "cuerpo": json.dumps(body)}, expected


def app_script(chats: Sequence[tuple[dict[str, Any], dict[str, Any]]], places: int = 4) -> dict[str, Any]:
    requests, expected = zip(*chats, strict=True)
    return {
        "modelo": "aula",
        "contexto": 200,
        "plazas": places,
        "peticiones": list(requests),
        "esperado": list(expected),
    }


def fixed_play(messages: Sequence[str], limit: int) -> Callable[[Remote], Outcome]:
    """Every caller has its whole text, and all of them shared a step."""

    def play(remote: Remote) -> Outcome:
        got = remote.function("ensayo_chat", {"mensajes": list(messages), "max": limit})
        if got["quejas"]:
            return Outcome(f"el motor se quejó: {got['quejas'][0]}")
        for message, text in zip(messages, got["textos"], strict=True):
            expected = respuesta_de_juguete(message)[: 3 * limit].decode("utf-8", "replace")
            if text != expected:
                return Outcome(f"para «{message}» el texto {expected!r}; llegó {text!r}")
        if got["a_la_vez"] < len(messages):
            return Outcome(f"{len(messages)} personas en un mismo paso; como mucho hubo {got['a_la_vez']}")
        return Outcome()

    return play


# --- Metrics --------------------------------------------------------------------------------------------------------


def metrics_judge(metrics: Sequence[dict[str, Any]]) -> Callable[[Reply], str | None]:
    """What Prometheus' own parser reads: kinds, help, samples; and buckets that add up."""

    def judge(reply: Reply) -> str | None:
        from prometheus_client.parser import text_string_to_metric_families

        if not isinstance(reply.value, str) or not reply.value.endswith("\n"):
            return "un texto que acaba en salto de línea"
        try:
            families = list(text_string_to_metric_families(reply.value))
        except (ValueError, LookupError, TypeError) as error:
            return f"texto que Prometheus entienda ({error})"
        got = {(s.name, tuple(sorted(_labels(s.labels).items()))): s.value for f in families for s in f.samples}
        for metric in metrics:
            family = next((f for f in families if f.name == metric["nombre"].removesuffix("_total")), None)
            if family is None or family.type != metric["tipo"] or family.documentation != metric["ayuda"]:
                return f"las líneas HELP y TYPE de {metric['nombre']} ({metric['tipo']})"
        expected = {key: value for metric in metrics for key, value in _samples(metric)}
        for key, value in expected.items():
            if key not in got:
                return f"una línea de {key[0]} con las etiquetas {dict(key[1])}"
            if abs(got[key] - value) > 1e-9 * max(1.0, abs(value)):
                return f"{key[0]}{dict(key[1])} con el valor {value:g}; llegó {got[key]:g}"
        extra = set(got) - set(expected)
        return f"solo las líneas pedidas; sobra {min(extra)[0]}" if extra else None

    return judge


def _labels(labels: dict[str, str]) -> dict[str, str]:
    return {name: _bound(value) if name == "le" else value for name, value in labels.items()}


def _bound(value: Any) -> str:
    return f"{float(value):.12g}"


def _samples(metric: dict[str, Any]) -> list[tuple[tuple[str, tuple], float]]:
    name, labels = metric["nombre"], metric["etiquetas"]
    key = lambda suffix, extra: (name + suffix, tuple(sorted({**labels, **extra}.items())))  # noqa: E731
    if metric["tipo"] != "histogram":
        return [(key("", {}), metric["valor"])]
    seen = metric["observaciones"]
    bounds = [*metric["limites"], float("inf")]
    rows = [(key("_bucket", {"le": _bound(b)}), float(sum(v <= b for v in seen))) for b in bounds]
    return [*rows, (key("_sum", {}), sum(seen)), (key("_count", {}), float(len(seen)))]

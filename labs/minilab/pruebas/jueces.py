"""Judges for answers that are right in more than one way. They see plain values only, in public and hidden cases."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from minilab.pruebas.casos import Reply, prompt_of
from minilab.pruebas.planos import equal
from minilab.pruebas.servidor_simulado import Script

RETIRED_FIELDS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def positive_numbers(keys: Sequence[str]) -> Callable[[Reply], str | None]:
    """A prediction: a dict of these keys, any positive number each. Compared with the measurement, not marked."""

    def judge(reply: Reply) -> str | None:
        if not isinstance(reply.value, dict) or sorted(reply.value) != sorted(keys):
            return f"un diccionario con las claves {', '.join(keys)}"
        if not all(type(v) in (int, float) and v > 0 for v in reply.value.values()):
            return "un número mayor que 0 en cada clave"
        return None

    return judge


def client_judge(
    model: str, prompts: list[str], max_tokens: int, scripts: dict[str, Script]
) -> Callable[[Reply], str | None]:
    """Every prompt sent once, all in one group, and each measurement equal to what the script dictates."""

    def judge(r: Reply) -> str | None:
        bodies = [body for group in r.groups for body in group]
        if sorted(map(prompt_of, bodies)) != sorted(prompts):
            return f"que cada uno de los {len(prompts)} prompts llegara al servidor una sola vez"
        if len(r.groups) != 1:
            largest = max(len(g) for g in r.groups)
            return f"{len(prompts)} peticiones en vuelo a la vez (la mayor simultaneidad fue {largest})"
        for body in bodies:
            if complaint := _body_complaint(body, model, max_tokens):
                return complaint
        if not isinstance(r.value, list) or len(r.value) != len(prompts):
            return "una lista con una medida por prompt"
        for prompt, measurement in zip(prompts, r.value, strict=True):
            if not equal(expected := _expected_measurement(scripts[prompt]), measurement):
                return f"para «{prompt}» la medida {expected}, en el orden de los prompts"
        return None

    return judge


def _body_complaint(body: dict[str, Any], model: str, max_tokens: int) -> str | None:
    if body.get("model") != model:
        return f"model={model!r} en la petición"
    if max_tokens not in (body.get("max_tokens"), body.get("max_completion_tokens")):
        return f"max_tokens={max_tokens} en la petición"
    if _fields(body.get("stream_options")).get("include_usage") is not True:
        return "stream_options={'include_usage': True}: sin él no hay recuento de tokens"
    if _fields(body.get("extra_body")).get("ignore_eos") is not True:
        return "extra_body={'ignore_eos': True}: así todas las respuestas miden lo mismo"
    return None


def _expected_measurement(script: Script) -> dict[str, Any]:
    text = [t for t in script if t.get("contenido")]
    return {
        "inicio": 0.0,
        "primer_token": text[0]["t"],
        "fin": script[-1]["t"],
        "tokens": script[-1]["uso"],
        "texto": "".join(t["contenido"] for t in text),
    }


def body_judge(question: str, schema: dict[str, Any]) -> Callable[[Reply], str | None]:
    """A chat body that forces ``schema`` by today's fields: response_format or structured_outputs."""

    def judge(r: Reply) -> str | None:
        body = r.value
        if not isinstance(body, dict):
            return "un diccionario con los argumentos de chat.completions.create"
        extra = _fields(body.get("extra_body"))
        if any(field in body or field in extra for field in RETIRED_FIELDS):
            return "un campo vigente: guided_json se retiró y hoy no garantiza nada"
        if prompt_of(body) != question:
            return "la pregunta como último mensaje"
        if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
            return "max_tokens con un entero positivo: un JSON cortado no es válido"
        if equal(schema, _fields(extra.get("structured_outputs")).get("json")):
            return None
        return _format_complaint(body.get("response_format"), schema)

    return judge


def _fields(value: Any) -> dict[str, Any]:
    """``value`` where it is a dict; a student may have put anything there."""
    return value if isinstance(value, dict) else {}


def _format_complaint(response_format: Any, schema: dict[str, Any]) -> str | None:
    if not isinstance(response_format, dict) or response_format.get("type") != "json_schema":
        return "response_format={'type': 'json_schema', …}"
    inner = response_format.get("json_schema")
    if not isinstance(inner, dict) or not SCHEMA_NAME.fullmatch(str(inner.get("name", ""))):
        return "json_schema con un name de letras, cifras, _ o -"
    if not equal(schema, inner.get("schema")):
        return "el esquema recibido, sin cambios, en json_schema.schema"
    return None


def near(expected: Any, rtol: float = 1e-4, atol: float = 1e-5) -> Callable[[Reply], str | None]:
    """A tensor as nested lists, within ``atol + rtol * |expected|``; the strings of inf and nan as they are."""
    return lambda reply: far_from(expected, reply.value, rtol, atol)


def far_from(expected: Any, got: Any, rtol: float = 1e-4, atol: float = 1e-5) -> str | None:
    """None, or what was expected in Spanish: the shape, else the first element that differs, with its indices."""
    if (shape := shape_of(expected)) != (theirs := shape_of(got)):
        seen = "sin forma" if theirs is None else f"de forma {theirs}"
        return f"un resultado de forma {shape} (llegó {seen})"
    for place, number, other in _pairs(expected, got, ()):
        if not _close(number, other, rtol, atol):
            where = f" en {list(place)}" if place else ""
            return f"{number:.6g}{where}" if type(number) in (int, float) else f"{number}{where}"
    return None


def shape_of(value: Any) -> list[int] | None:
    """The shape of nested lists, [] for a number; None where they are ragged or hold something else."""
    if not isinstance(value, list):
        return [] if isinstance(value, (int, float, str)) else None
    inner = [shape_of(v) for v in value]
    if not inner:
        return [0]
    return None if inner[0] is None or any(s != inner[0] for s in inner) else [len(value), *inner[0]]


def _pairs(expected: Any, got: Any, place: tuple[int, ...]) -> Any:
    if not isinstance(expected, list):
        yield place, expected, got
        return
    for i, (inner, other) in enumerate(zip(expected, got, strict=True)):
        yield from _pairs(inner, other, (*place, i))


def _close(expected: Any, got: Any, rtol: float, atol: float) -> bool:
    if isinstance(expected, str) or isinstance(got, str):
        return expected == got
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    return math.isclose(expected, got, rel_tol=0.0, abs_tol=atol + rtol * abs(expected))

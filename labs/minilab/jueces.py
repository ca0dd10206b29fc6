"""Judges for answers that are right in more than one way. They see plain values only, in public and hidden cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from minilab.casos import Respuesta, pregunta_de
from minilab.planos import iguales
from minilab.servidor_simulado import Guion

CAMPOS_RETIRADOS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
NOMBRE_DE_ESQUEMA = re.compile(r"[A-Za-z0-9_-]{1,64}")


def juez_de_prediccion(r: Respuesta) -> str | None:
    """Any positive prediction is right: it is compared with the measurement in class, not marked by its value."""
    claves = ("contra_una_a_una", "contra_lote")
    if not isinstance(r.valor, dict) or sorted(r.valor) != sorted(claves):
        return f"un diccionario con las claves {claves}"
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in r.valor.values()):
        return "dos números mayores que 0"
    return None


def juez_de_cliente(
    modelo: str, prompts: list[str], max_tokens: int, guiones: dict[str, Guion]
) -> Callable[[Respuesta], str | None]:
    """Every prompt sent once, all in one group, and each measurement equal to what the script dictates."""

    def juez(r: Respuesta) -> str | None:
        cuerpos = [cuerpo for grupo in r.grupos for cuerpo in grupo]
        if sorted(map(pregunta_de, cuerpos)) != sorted(prompts):
            return f"que cada uno de los {len(prompts)} prompts llegara al servidor una sola vez"
        if len(r.grupos) != 1:
            mayor = max(len(g) for g in r.grupos)
            return f"{len(prompts)} peticiones en vuelo a la vez (la mayor simultaneidad fue {mayor})"
        for cuerpo in cuerpos:
            if queja := _cuerpo_de_medida(cuerpo, modelo, max_tokens):
                return queja
        if not isinstance(r.valor, list) or len(r.valor) != len(prompts):
            return "una lista con una medida por prompt"
        for prompt, medida in zip(prompts, r.valor, strict=True):
            if not iguales(esperada := _medida_esperada(guiones[prompt]), medida):
                return f"para «{prompt}» la medida {esperada}, en el orden de los prompts"
        return None

    return juez


def _cuerpo_de_medida(cuerpo: dict[str, Any], modelo: str, max_tokens: int) -> str | None:
    if cuerpo.get("model") != modelo:
        return f"model={modelo!r} en la petición"
    if max_tokens not in (cuerpo.get("max_tokens"), cuerpo.get("max_completion_tokens")):
        return f"max_tokens={max_tokens} en la petición"
    if (cuerpo.get("stream_options") or {}).get("include_usage") is not True:
        return "stream_options={'include_usage': True}: sin él no hay recuento de tokens"
    if (cuerpo.get("extra_body") or {}).get("ignore_eos") is not True:
        return "extra_body={'ignore_eos': True}: así todas las respuestas miden lo mismo"
    return None


def _medida_esperada(guion: Guion) -> dict[str, Any]:
    texto = [t for t in guion if t.get("contenido")]
    return {
        "inicio": 0.0,
        "primer_token": texto[0]["t"],
        "fin": guion[-1]["t"],
        "tokens": guion[-1]["uso"],
        "texto": "".join(t["contenido"] for t in texto),
    }


def juez_de_cuerpo(pregunta: str, esquema: dict[str, Any]) -> Callable[[Respuesta], str | None]:
    """A chat body that forces ``esquema`` by today's fields: response_format or structured_outputs."""

    def juez(r: Respuesta) -> str | None:
        cuerpo = r.valor
        if not isinstance(cuerpo, dict):
            return "un diccionario con los argumentos de chat.completions.create"
        extra = cuerpo.get("extra_body") or {}
        if any(campo in cuerpo or campo in extra for campo in CAMPOS_RETIRADOS):
            return "un campo vigente: guided_json se retiró y hoy no garantiza nada"
        if pregunta_de(cuerpo) != pregunta:
            return "la pregunta como último mensaje"
        if not isinstance(cuerpo.get("max_tokens"), int) or cuerpo["max_tokens"] < 1:
            return "max_tokens con un entero positivo: un JSON cortado no es válido"
        if iguales(esquema, (extra.get("structured_outputs") or {}).get("json")):
            return None
        return _formato(cuerpo.get("response_format"), esquema)

    return juez


def _formato(formato: Any, esquema: dict[str, Any]) -> str | None:
    if not isinstance(formato, dict) or formato.get("type") != "json_schema":
        return "response_format={'type': 'json_schema', …}"
    interior = formato.get("json_schema")
    if not isinstance(interior, dict) or not NOMBRE_DE_ESQUEMA.fullmatch(str(interior.get("name", ""))):
        return "json_schema con un name de letras, cifras, _ o -"
    if not iguales(esquema, interior.get("schema")):
        return "el esquema recibido, sin cambios, en json_schema.schema"
    return None

"""The ``guided_json`` trap: a server that ignores the retired field without a word, as vLLM does since 0.12."""

from __future__ import annotations

import json
from functools import partial
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Outcome, Remote, prompt_of
from minilab.pruebas.hostil import Complaint, attempt
from minilab.pruebas.json_estricto import fault, parse_strict
from minilab.pruebas.planos import equal
from minilab_grading.casos.esquemas import LETTERS, Draw, Schema, number, record, text, words

SCHEMAS = 4


def trap_case(seed: int) -> Case:
    """A case for the check of ``cuerpo_json``: pairs of questions that differ in one fact, over hidden schemas."""
    return Case(
        name="un servidor que ignora guided_json",
        args=(),
        play=partial(_play, seed=seed),
        hint="HTTP 200 no es garantía: solo response_format o structured_outputs obligan a cumplir el esquema.",
    )


def _play(remote: Remote, seed: int) -> Outcome:
    def exchange() -> str:
        for turn in range(SCHEMAS):
            rng = Random(f"{seed} trampa {turn}")
            field, schema, facts = question(rng)
            for fact in facts:
                prompt = f"{' '.join(words(rng, 3))}: {fact}. {' '.join(words(rng, 2))}?"
                _judge(remote.function("cuerpo_json", prompt, schema), prompt, schema, {field: fact}, rng)
        return f"{2 * SCHEMAS} respuestas válidas"

    return attempt(exchange)


def question(rng: Random) -> tuple[str, Schema, list[str]]:
    """A field, the schema where it is, and two facts that the field may hold."""
    field, count, note, *facts = words(rng, 5)
    properties = {count: number(rng), field: {"enum": sorted(facts)}, note: text(0, 4)}
    names = rng.sample(sorted(properties), len(properties))
    return field, record({n: properties[n] for n in names}, [field, count]), facts


def _judge(body: Any, prompt: str, schema: Schema, fact: dict[str, str], rng: Random) -> None:
    if not isinstance(body, dict) or prompt_of(body) != prompt:
        raise Complaint("cuerpo_json debe devolver un diccionario con la pregunta como último mensaje")
    said, finish = answer(body, schema, fact, rng)
    if finish == "length":
        raise Complaint("la respuesta se cortó: max_tokens no deja acabar el JSON")
    if complaint := fault(said, schema):
        raise Complaint(f"el servidor contestó HTTP 200, pero {complaint}")
    if not fact.items() <= parse_strict(said).items():
        raise Complaint("la respuesta no depende de la pregunta: falta el dato que llevaba")


def answer(body: dict[str, Any], schema: Schema, fact: dict[str, str], rng: Random) -> tuple[str, str]:
    """Text and finish reason. Only a schema asked for by a field of today is kept to; other fields pass unseen.

    One character a token: the shortest limit that a right client may need.
    """
    value = Draw(rng, "azar", LETTERS, {}).value(schema) | fact
    said = _spaced(value) if equal(schema, _enforced(body)) else f"Claro:\n```json\n{_spaced(value)}\n```"
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    if type(limit) is int and limit < len(said):
        return said[: max(limit, 0)], "length"
    return said, "stop"


def _spaced(value: Any) -> str:
    """vLLM's grammars permit any white space between the pieces."""
    return json.dumps(value, ensure_ascii=False, indent=1)


def _enforced(body: dict[str, Any]) -> Any:
    """The schema that the server keeps to, or None."""
    extra = body.get("extra_body")
    modern = extra.get("structured_outputs") if isinstance(extra, dict) else None
    if isinstance(modern, dict) and "json" in modern:
        return modern["json"]
    asked = body.get("response_format")
    if not isinstance(asked, dict) or asked.get("type") != "json_schema":
        return None
    inner = asked.get("json_schema")
    return inner.get("schema") if isinstance(inner, dict) and inner.get("name") else None

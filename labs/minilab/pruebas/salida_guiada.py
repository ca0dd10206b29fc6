"""Plays and judges of lab 8, for public and hidden cases: tables, masks, verdicts and tool calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from minilab.pruebas.automatas import Language, Words, complaint
from minilab.pruebas.casos import Case, Outcome, Remote, Reply, StudentError
from minilab.pruebas.jueces import RETIRED_FIELDS, far_from, prompt_of
from minilab.pruebas.planos import equal
from minilab.pruebas.tensores import Tensor

Play = Callable[[Remote], Outcome]


def table_play(function: str, args: Sequence[Any], language: Language, alphabet: str, public: bool = True) -> Play:
    """The table that the student's function gives for ``args`` is exactly ``language``, on these letters."""

    def play(remote: Remote) -> Outcome:
        return Outcome(complaint(remote.function(function, *args), language, alphabet, public))

    return play


def masked_judge(logits: Sequence[float], ids: Sequence[int]) -> Callable[[Reply], str | None]:
    """(probabilities after the mask, probability removed), from the exponentials themselves."""
    highest = max(logits)
    powers = [_power(x - highest) for x in logits]
    left = sum(powers[i] for i in ids)
    after = [powers[i] / left if i in ids else 0.0 for i in range(len(logits))]
    removed = 1 - left / sum(powers)

    def judge(reply: Reply) -> str | None:
        if not isinstance(reply.value, list) or len(reply.value) != 2:
            return "una pareja: las probabilidades y la probabilidad quitada"
        if found := far_from(after, reply.value[0], 1e-3, 1e-6):
            return f"probabilidades después de la máscara: {found}"
        if found := far_from(removed, reply.value[1], 1e-3, 1e-5):
            return f"probabilidad quitada: {found}"
        return None

    return judge


def _power(exponent: float) -> float:
    return 2.718281828459045**exponent


def masked_case(name: str, logits: Sequence[float], ids: Sequence[int], hint: str) -> Case:
    args = (Tensor(list(logits)), list(ids))
    return Case(name=name, args=args, judge=masked_judge(logits, ids), hint=hint)


def both_at_once(
    schema: dict[str, Any], vocabulary: Sequence[str], end: int, first: Sequence[int], then: Sequence[int]
):
    """Two masks of one schema write different texts in turns; neither may feel the other."""
    expected = [_allowed_along(schema, vocabulary, end, tokens) for tokens in (first, then)]

    def play(remote: Remote) -> Outcome:
        handles = [remote.new("Mascara", schema, list(vocabulary), end) for _ in range(2)]
        for step in range(max(len(first), len(then)) + 1):
            for handle, tokens, right in zip(handles, (first, then), expected, strict=True):
                if step > len(tokens):
                    continue
                if remote.call(handle, "permitidos") != right[step]:
                    return Outcome("dos textos con el mismo esquema se estorban: cada Mascara tiene su propio estado")
                if step < len(tokens):
                    remote.call(handle, "acepta", tokens[step])
        return Outcome()

    return play


def _allowed_along(
    schema: dict[str, Any], vocabulary: Sequence[str], end: int, tokens: Sequence[int]
) -> list[list[int]]:
    """For a schema whose documents are few (``enum``): the exact ids before each of ``tokens`` and at the end."""
    texts = [json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in schema["enum"]]
    found, written = [], ""
    for token in (*tokens, None):
        ids = [i for i, t in enumerate(vocabulary) if t and any(x.startswith(written + t) for x in texts)]
        found.append(sorted([*ids, *([end] if written in texts else [])]))
        written += vocabulary[token] if token is not None else ""
    return found


def refused_token(schema: dict[str, Any], vocabulary: Sequence[str], end: int, tokens: Sequence[int], wrong: int):
    """After ``tokens``, accepting ``wrong`` raises ValueError and leaves the mask where it was."""

    def play(remote: Remote) -> Outcome:
        handle = remote.new("Mascara", schema, list(vocabulary), end)
        for token in tokens:
            remote.call(handle, "acepta", token)
        before = remote.call(handle, "permitidos")
        try:
            remote.call(handle, "acepta", wrong)
        except StudentError as error:
            if error.error != "ValueError":
                return Outcome(f"acepta de un token prohibido lanza ValueError, y lanzó {error.error}")
        else:
            return Outcome("acepta de un token prohibido debe lanzar ValueError")
        if remote.call(handle, "permitidos") != before:
            return Outcome("tras el ValueError la máscara debe seguir donde estaba")
        return Outcome()

    return play


def verdict_play(text: str, finish: str, expected: str, twin: str, schema: dict[str, Any]) -> Play:
    """A faulty answer beside a sound one: a verdict that never changes is right about none of the pairs."""

    def play(remote: Remote) -> Outcome:
        for answer, reason, right in ((twin, "stop", "válida"), (text, finish, expected)):
            got = remote.function("valida", answer, schema, reason)
            if got != right:
                return Outcome(f"se esperaba «{right}» y salió {got!r}")
        return Outcome()

    return play


def bounded_play(schema: dict[str, Any], expected: dict[str, Any], **limits: int) -> Play:
    def play(remote: Remote) -> Outcome:
        got = remote.function("acota", schema, *limits.values())
        return Outcome(None if equal(expected, got) else f"se esperaba {expected} y salió {got}")

    return play


def tool_judge(question: str, name: str, description: str, parameters: dict[str, Any]) -> Callable[[Reply], str | None]:
    """A body that offers one tool and asks for a call of it."""

    def judge(reply: Reply) -> str | None:
        body = reply.value
        if not isinstance(body, dict):
            return "un diccionario con los argumentos de chat.completions.create"
        extra = body.get("extra_body") if isinstance(body.get("extra_body"), dict) else {}
        if old := [f for f in ("functions", "function_call", *RETIRED_FIELDS) if f in body or f in extra]:
            return f"campos de hoy: {old[0]} ya no se usa"
        if prompt_of(body) != question:
            return "la pregunta como último mensaje"
        if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
            return "max_tokens con un entero positivo: una llamada cortada no se puede leer"
        tool = {"name": name, "description": description, "parameters": parameters}
        if not equal([{"type": "function", "function": tool}], body.get("tools")):
            return "tools con una sola herramienta: type «function» y, en function, name, description y parameters"
        if not equal({"type": "function", "function": {"name": name}}, body.get("tool_choice")):
            return "tool_choice que nombre esa función: así el motor obliga a llamarla"
        return None

    return judge


def message_of(name: str, arguments: str) -> dict[str, Any]:
    """An assistant's message as ``model_dump()`` gives it."""
    call = {"id": "call-1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def reading_play(message: dict[str, Any], offered: dict[str, Any], expected: Any) -> Play:
    """``lee_llamada`` gives ``expected``, or raises it where it is the name of an exception."""

    def play(remote: Remote) -> Outcome:
        try:
            got = remote.function("lee_llamada", message, offered)
        except StudentError as error:
            right = error.error == expected if isinstance(expected, str) else False
            if error.error == "NotImplementedError":
                raise
            return Outcome(None if right else f"se esperaba {expected} y lanzó {error}")
        return Outcome(None if equal(expected, got) else f"se esperaba {_told(expected)} y salió {got!r}")

    return play


def _told(expected: Any) -> str:
    return f"la excepción {expected}" if isinstance(expected, str) else repr(expected)


def choice_texts(texts: Sequence[str], public: bool = True) -> Play:
    return table_play("eleccion", [list(texts)], Words(texts), "".join(sorted({*"".join(texts), "x"})), public)


def string_words(least: int, most: int) -> Words:
    """Strings over the letters a and ñ: enough to see how many are counted."""
    inside, layer = [""], [""]
    for _ in range(most):
        layer = [text + letter for text in layer for letter in "añ"]
        inside += layer
    return Words(f'"{text}"' for text in inside if len(text) >= least)

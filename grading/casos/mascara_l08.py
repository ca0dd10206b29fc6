"""Hidden cases of lab 8's mask: its small dialect (properties in order, all required), drawn and played."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Outcome, Remote
from minilab.pruebas.hostil import ADVERSARIES, NEVER_CLOSES, Complaint, MaskTask, attempt, dictate, walk
from minilab.pruebas.salida_guiada import both_at_once, refused_token
from minilab_grading.casos.esquemas import LETTERS, Schema, record, text, words
from minilab_grading.casos.lenguaje_json import Language, TrustedMask, published
from minilab_grading.casos.mascara import CUTS
from minilab_grading.casos.vocabularios import by_character, make_vocabulary

RUNS = 12  # hostile runs of each family


def _integer(rng: Random) -> Schema:
    low = rng.randrange(-3, 30)
    return {"type": "integer", "minimum": low, "maximum": low + rng.randrange(1, 120)}


def _values(rng: Random) -> Schema:
    word = words(rng, 1)[0]
    return {"enum": [word, word + rng.choice(LETTERS), "ñ" + word, rng.randrange(100), True]}


def _flat(rng: Random) -> Schema:
    names = words(rng, 4)
    kinds = [text(0, 3), _integer(rng), {"type": "boolean"}, _values(rng)]
    rng.shuffle(kinds)
    return record(dict(zip(names, kinds, strict=True)), names)


def _nested(rng: Random) -> Schema:
    outer, inner, leaf, other = words(rng, 4)
    deepest = record({leaf: text(1, 2), outer: _integer(rng)}, [leaf, outer])
    return record({outer: record({inner: deepest}, [inner]), other: {"type": "boolean"}}, [outer, other])


def _strings(rng: Random) -> Schema:
    names = [*words(rng, 2), "ñ" + words(rng, 1)[0]]
    least = rng.randrange(3)
    return record({name: text(least, least + rng.randrange(1, 3)) for name in names}, names)


def _scalar(rng: Random) -> Schema:
    return rng.choice([_integer, _values])(rng)


def _none(rng: Random) -> Schema:
    return record({words(rng, 1)[0]: record({}, [])}, [])


FAMILIES: dict[str, Callable[[Random], Schema]] = {
    "propiedades de cuatro clases": _flat,
    "objetos dentro de objetos": _nested,
    "cadenas seguidas": _strings,
    "un valor suelto": _scalar,
    "un objeto vacío dentro": _none,
}


def spelled(schema: Schema) -> Schema:
    """The same schema for the trusted automaton: integers as their values, every property required."""
    if schema.get("type") == "integer":
        return {"enum": list(range(schema["minimum"], schema["maximum"] + 1))}
    if schema.get("type") == "object":
        inner = {name: spelled(form) for name, form in schema["properties"].items()}
        return {**schema, "properties": inner, "required": list(inner)}
    return schema


def make_task(schema: Schema, rng: Random) -> tuple[MaskTask, TrustedMask]:
    vocabulary, end = make_vocabulary(schema, rng)
    vocabulary = (*vocabulary, *sorted({"-"} - set(vocabulary)))
    language = Language(spelled(schema))
    return MaskTask(schema, vocabulary, end, language.longest()), TrustedMask(language, vocabulary, end)


def document(schema: Schema, rng: Random) -> str:
    def draw(part: Schema) -> Any:
        if part.get("type") == "object":
            return {name: draw(form) for name, form in part["properties"].items()}
        if part.get("type") == "integer":
            return rng.randint(part["minimum"], part["maximum"])
        if part.get("type") == "string":
            return "".join(rng.choice("abñ🙂") for _ in range(rng.randint(part.get("minLength", 0), part["maxLength"])))
        return rng.choice(part.get("enum", [True, False]))

    return published(draw(schema))


def mask_cases(seed: int) -> tuple[Case, ...]:
    hostile = (
        "Entre los permitidos elige quien corrige, con mala idea: solo una máscara completa da siempre JSON válido."
    )
    complete = "Un documento correcto se puede escribir lo corten como lo corten los tokens, y nada más."
    cases = [
        Case(name=f"logits hostiles: {name}", args=(), play=partial(_hostile, name=name, seed=seed), hint=hostile)
        for name in FAMILIES
    ]
    for name, cut in CUTS.items():
        play = partial(_complete, cut=cut, seed=seed)
        cases.append(Case(name=f"ni de más ni de menos, {name}", args=(), play=play, hint=complete, weight=2.0))
    rng = Random(f"{seed} dos a la vez")
    pair = words(rng, 2)
    vocabulary = ['"', *LETTERS, f'"{pair[0]}', f'{pair[1]}"', ""]
    spell = [[vocabulary.index(c) for c in f'"{word}"'] for word in pair]
    end = len(vocabulary) - 1
    return (
        *cases,
        Case(
            name="dos textos a la vez",
            args=(),
            play=both_at_once({"enum": pair}, vocabulary, end, *spell),
            hint="Lo compartido es el autómata y sus listas; el estado es de cada Mascara.",
        ),
        Case(
            name="un token prohibido",
            args=(),
            play=refused_token({"enum": pair}, vocabulary, end, spell[0][:2], 0),
            hint="Si recorre devuelve None, lanza ValueError sin tocar el estado.",
        ),
        Case(name="termina siempre", args=(), play=partial(_ends, seed=seed), hint="Al completar, solo queda fin."),
    )


def _hostile(remote: Remote, name: str, seed: int) -> Outcome:
    def exchange() -> str:
        for run in range(RUNS):
            rng = Random(f"{seed} {name} {run}")
            adversary = ADVERSARIES[run % len(ADVERSARIES)]
            task, _ = make_task(FAMILIES[name](rng), rng)
            try:
                walk(remote, task, adversary, rng)
            except Complaint as wrong:
                raise Complaint(f"en la tirada {run + 1} de {RUNS}, con logits {adversary.name}, {wrong}") from None
            written = document(task.schema, rng)
            dictate(remote, task, by_character(written, task.vocabulary, rng))
        return f"{RUNS} tiradas válidas de {RUNS}"

    return attempt(exchange)


def _complete(remote: Remote, cut: Callable[..., list[int]], seed: int) -> Outcome:
    def exchange() -> str:
        for name, make in FAMILIES.items():
            for turn in range(2):
                rng = Random(f"{seed} {cut.__name__} {name} {turn}")
                task, exact = make_task(make(rng), rng)
                written = document(task.schema, rng)
                dictate(remote, task, cut(written, task.vocabulary, rng), exact, both_ways=True)
        return ""

    return attempt(exchange)


def _ends(remote: Remote, seed: int) -> Outcome:
    def exchange() -> str:
        for name, make in FAMILIES.items():
            rng = Random(f"{seed} termina {name}")
            task, _ = make_task(make(rng), rng)
            walk(remote, task, NEVER_CLOSES, rng)
        return ""

    return attempt(exchange)

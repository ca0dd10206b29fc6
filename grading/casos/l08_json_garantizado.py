"""Hidden cases of lab 8. Names and hints are shown to students; arguments are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from minilab.pruebas.automatas import ANY, Table, Words, advance, allowed
from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.publicas.l08 import BUILD, DIGITS, MASK, MONTHS, PREDICTION, WALK, WHOLE
from minilab.pruebas.salida_guiada import (
    bounded_play,
    choice_texts,
    masked_case,
    message_of,
    reading_play,
    table_play,
    tool_judge,
    verdict_play,
)
from minilab.pruebas.tensores import Tensor
from minilab_grading.casos.esquemas import LETTERS, Schema, record, words
from minilab_grading.casos.lenguaje_json import Language, published
from minilab_grading.casos.mascara_l08 import FAMILIES, mask_cases, spelled
from minilab_grading.casos.trampa import answer, question

# What the notebook's preparation cell offers to the solution cells, without the engine; and two witnesses.
PRELUDE = """
import json


def intacto_de_quien_corrige(logits, ids):
    antes = logits.clone()
    aplica_mascara(logits, list(ids))
    return bool((antes == logits).all())


def esquema_intacto_de_quien_corrige(esquema):
    antes = json.dumps(esquema, sort_keys=True)
    acota(esquema)
    return json.dumps(esquema, sort_keys=True) == antes
"""
IMPORTS = ("torch", "jsonschema")
FREE = LETTERS[:4] + "ñ🙂 '/"


def checks(seed: int) -> dict[str, Check]:
    """All checks of the notebook, with cases that depend on ``seed`` alone."""
    rng = Random(seed)
    return {
        "prueba_prediccion": Check("prediccion_l08", "mi_prediccion", ("prediccion",), (PREDICTION,)),
        "prueba_recorre": Check("recorre", "recorre", WALK, _walks(rng)),
        "prueba_permitidos": Check("permitidos", "permitidos", MASK, _masks(rng)),
        "prueba_aplica_mascara": Check("aplica_mascara", "aplica_mascara", ("aplica_mascara",), _applied(rng)),
        "prueba_constructores": Check("constructores", "eleccion", BUILD, _builders(rng)),
        "prueba_mascara": Check("mascara_l08", "Mascara", WHOLE, mask_cases(seed)),
        "prueba_valida": Check("valida", "valida", ("valida",), (*_verdicts(rng, seed), *_bounds(rng))),
        "prueba_herramienta": Check("herramienta", "cuerpo_herramienta", ("valida", "herramienta"), _tools(rng)),
    }


def random_table(rng: Random, letters: str, states: int = 6) -> Table:
    """States s0…; some steps by a letter, some by :data:`ANY`, one state without a way out."""
    names = [f"s{i}" for i in range(states)]
    steps: dict[str, dict[str, str]] = {}
    for name in names[:-1]:
        chosen = rng.sample(letters, rng.randrange(1, 4))
        steps[name] = {letter: rng.choice(names) for letter in chosen}
        if rng.random() < 0.4:
            steps[name][ANY] = rng.choice(names)
    return {"inicio": names[0], "finales": sorted({names[-1], *rng.sample(names, 2)}), "pasos": steps}


def _random_text(rng: Random, letters: str, longest: int = 6) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randrange(longest + 1)))


def _walks(rng: Random) -> tuple[Case, ...]:
    letters = 'abc,"ñ\\\n'
    hint = "De letra en letra con siguiente(); None en cuanto una no puede venir."
    groups = {"al azar": [], "llega": [], "se atasca": []}
    while min(map(len, groups.values())) < 6:
        table = random_table(rng, letters)
        state, written = rng.choice(list(table["pasos"])), _random_text(rng, letters)
        expected = advance(table, state, written)
        groups["al azar"].append((table, state, written, expected))
        groups["llega" if expected is not None else "se atasca"].append((table, state, written, expected))
    return (
        *(Case(name=name, args=(), play=_many("recorre", calls[:6]), hint=hint) for name, calls in groups.items()),
        Case(name="un estado sin salidas", args=(random_table(rng, letters), "s5", "a"), expected=None, hint=hint),
        Case(
            name="los meses, del 1 al 12",
            args=(),
            play=table_play("automata_mes", [], MONTHS, DIGITS + '-a" ', public=False),
            hint="El 1 ya es un mes y además puede seguir con 0, 1 o 2. Ni 0, ni 01, ni 13.",
        ),
    )


def _many(function: str, calls: list[tuple[Any, ...]]) -> Callable[[Remote], Outcome]:
    """Several calls; the last of each tuple is what must come back."""

    def play(remote: Remote) -> Outcome:
        for *args, expected in calls:
            if (got := remote.function(function, *args)) != expected:
                kind = "otra lista de ids" if isinstance(expected, list) else repr(expected)
                return Outcome(f"se esperaba {kind} y salió {got!r}"[:160])
        return Outcome()

    return play


def _masks(rng: Random) -> tuple[Case, ...]:
    letters = 'ab1",:{}ñ🙂\\'
    hint = "Todas las letras del token, en orden; fin solo en un estado final; nada que no tenga texto."
    cases = []
    for name in ("autómata al azar", "otro autómata al azar"):
        table = random_table(rng, letters)
        calls = []
        for state in table["pasos"].keys() | set(table["finales"]):
            vocabulary = _vocabulary(rng, letters)
            end = vocabulary.index(None)
            calls.append((table, state, vocabulary, end, allowed(table, state, vocabulary, end)))
        calls.sort(key=lambda call: call[1])
        cases.append(Case(name=name, args=(), play=_many("permitidos", calls), hint=hint))
    chain = {"inicio": "a", "finales": ["c"], "pasos": {"a": {"1": "b"}, "b": {"2": "c"}, "c": {"3": "b"}}}
    exact = {
        "el primer carácter no basta": ("a", ["1", "12", "13", "123", "1232", None], 5, [0, 1, 3, 4]),
        "completo y con más por venir": ("c", ["3", "32", "2", None, ""], 3, [0, 1, 3]),
        "nada puede venir": ("a", ["2", "3", "x", "", None], 4, []),
        "textos repetidos": ("b", ["2", None, "2", "23", "2"], 1, [0, 2, 3, 4]),
        "fin va en su sitio": ("c", [None, "3", "1"], 0, [0, 1]),
        "fin no vale a medias": ("b", [None, "2", None], 0, [1]),
    }
    for name, (state, vocabulary, end, expected) in exact.items():
        cases.append(Case(name=name, args=(chain, state, vocabulary, end), expected=expected, hint=hint))
    return tuple(cases)


def _vocabulary(rng: Random, letters: str) -> list[str | None]:
    texts: list[str | None] = [*letters, *(_random_text(rng, letters, 4) for _ in range(60)), ""]
    rng.shuffle(texts)
    texts.insert(rng.randrange(len(texts)), None)
    return texts


def _applied(rng: Random) -> tuple[Case, ...]:
    def draw(count: int, spread: float = 3.0) -> list[float]:
        return [round(rng.uniform(-spread, spread), 4) for _ in range(count)]

    many = draw(200, 6.0)
    some = sorted(rng.sample(range(200), 20))
    share = "Softmax sobre los permitidos: las proporciones entre ellos no cambian, y suman 1."
    favourite = draw(9)
    favourite[4] = 30.0
    return (
        masked_case("al azar", draw(12), sorted(rng.sample(range(12), 5)), share),
        masked_case("vocabulario grande", many, some, share),
        masked_case("un solo permitido", draw(7), [rng.randrange(7)], "Si solo queda uno, su probabilidad es 1."),
        masked_case(
            "el favorito, prohibido", favourite, [0, 3, 8], "Aunque la máscara quite casi todo, lo que queda suma 1."
        ),
        masked_case("logits enormes", [1000.0, 990.0, 998.0], [1, 2], "exp() a mano desborda: usa torch.softmax."),
        masked_case("logits muy negativos", [-900.0, -905.0, -1000.0], [0, 1], "Restar al final no sirve: −inf antes."),
        masked_case("todos permitidos", draw(5), list(range(5)), "Nada prohibido: quitada es 0."),
        Case(
            name="no toca los logits que recibe",
            args=(),
            play=_intact(draw(6), [1, 4]),
            hint="Trabaja sobre una copia: quien te llama puede volver a usarlos.",
        ),
        Case(name="nada permitido", args=(Tensor(draw(4)), []), error="ValueError", hint="Lanza ValueError."),
    )


def _intact(logits: list[float], ids: list[int]) -> Callable[[Remote], Outcome]:
    def play(remote: Remote) -> Outcome:
        same = remote.function("intacto_de_quien_corrige", Tensor(logits), ids)
        return Outcome(None if same is True else "los logits recibidos cambiaron")

    return play


def _builders(rng: Random) -> tuple[Case, ...]:
    common = words(rng, 1)[0]
    low, high = rng.randrange(5, 40), rng.randrange(101, 140)
    choices = {
        "principios comunes": [common, common + "a", common[:2], "z" + common],
        "una sola opción": words(rng, 1),
        "repetidas": [*(pair := words(rng, 2)), pair[0]],
        "con ñ, emoji y comillas": ['"ñu"', '"🙂"', '"a\\"b"', "null"],
        "muchas": words(rng, 25),
    }
    ranges = {
        "con un cero": (0, rng.randrange(9, 30)),
        "de dos a tres cifras": (low, high),
        "un solo entero": (low, low),
        "negativos": (-rng.randrange(11, 20), 3),
    }
    lengths = {"desde cero": (0, rng.randrange(2, 5)), "exacta": (2, 2), "larga": (1, 30), "vacía": (0, 0)}
    hints = "Los principios son los estados; los textos enteros, los finales."
    cases = [Case(name=f"elección: {n}", args=(), play=choice_texts(t, False), hint=hints) for n, t in choices.items()]
    for name, limits in ranges.items():
        right = Words(map(str, range(limits[0], limits[1] + 1)))
        play = table_play("entero", list(limits), right, DIGITS + "-+. ", False)
        cases.append(Case(name=f"entero: {name}", args=(), play=play, hint="Los dos extremos cuentan."))
    for name, (least, most) in lengths.items():
        right = Language({"type": "string", "minLength": least, "maxLength": most})
        play = table_play("cadena", [least, most], right, FREE + '"\\\n\t', False)
        hint = "Cuenta caracteres; comillas solo al abrir y al cerrar; ni barras ni caracteres de control."
        cases.append(Case(name=f"cadena: {name}", args=(), play=play, hint=hint))
    return (*cases, *_documents(rng))


def _documents(rng: Random) -> list[Case]:
    """Whole schemas: the given composition over the student's constructors."""
    return [
        Case(
            name=f"esquema: {name}",
            args=(),
            play=_schema_play(make(rng)),
            hint="Los constructores por separado pueden estar bien: mira los estados finales y el inicio de cada uno.",
        )
        for name, make in FAMILIES.items()
    ]


def _schema_play(schema: Schema) -> Callable[[Remote], Outcome]:
    alphabet = "".join(sorted({*published(schema), *DIGITS, *FREE, '"', "\\", "\n", "-", "t"}))
    return table_play("de_esquema_a_automata", [schema], Language(spelled(schema)), alphabet, False)


def _verdicts(rng: Random, seed: int) -> tuple[Case, ...]:
    (key,) = words(rng, 1)
    schema = record({key: {"type": "number"}, "tag": {"enum": ["a", "ñ"]}}, [key])
    number = rng.randrange(1000)
    sound = f'{{"{key}": {number}}}'
    faults = {
        "cortada y entera a la vez": (sound, "length", "cortada"),
        "cortada a medias": (sound[:-1], "length", "cortada"),
        "a medias, y dice que acabó": (sound[:-1], "stop", "no es JSON"),
        "vacía": ("", "stop", "no es JSON"),
        "valla de código": (f"```json\n{sound}\n```", "stop", "no es JSON"),
        "dos objetos": (f"{sound} {sound}", "stop", "no es JSON"),
        "NaN no es JSON": (f'{{"{key}": NaN}}', "stop", "no es JSON"),
        "Infinity no es JSON": (f'{{"{key}": -Infinity}}', "stop", "no es JSON"),
        "tipo equivocado": (f'{{"{key}": "{number}"}}', "stop", "no cumple"),
        "propiedad de más": (f'{{"{key}": {number}, "{key}x": 1}}', "stop", "no cumple"),
        "falta una propiedad": ('{"tag": "ñ"}', "stop", "no cumple"),
        "un filtro la paró": (sound, "content_filter", "cortada"),
    }
    hint = "El orden: cómo acabó, si todo el texto es JSON estricto, si cumple el esquema."
    twin = f'{{\n "{key}": {number},\n "tag": "ñ"\n}}'
    cases = [
        Case(name=name, args=(), play=verdict_play(*fault, twin, schema), hint=hint) for name, fault in faults.items()
    ]
    ignored = "Ese servidor contesta HTTP 200 y texto libre: por eso se comprueba cada respuesta."
    return (*cases, Case(name="un servidor que ignora guided_json", args=(), play=_ignored(seed), hint=ignored))


def _ignored(seed: int) -> Callable[[Remote], Outcome]:
    """The same question by the retired field, by today's, and by today's with too few tokens."""
    rng = Random(f"{seed} ignora")
    field, schema, facts = question(rng)
    today = {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}}
    bodies = (
        ({"extra_body": {"guided_json": schema}}, "no es JSON"),
        (today, "válida"),
        ({**today, "max_tokens": 5}, "cortada"),
    )

    answers = [(*answer(body, schema, {field: facts[0]}, rng), expected) for body, expected in bodies]

    def play(remote: Remote) -> Outcome:
        for said, finish, expected in answers:
            if (got := remote.function("valida", said, schema, finish)) != expected:
                return Outcome(f"se esperaba «{expected}» y salió {got!r}")
        return Outcome()

    return play


def _bounds(rng: Random) -> tuple[Case, ...]:
    name, other = words(rng, 2)
    top, least = rng.randrange(5, 30), rng.randrange(41, 80)
    whole = {"type": "integer", "minimum": 0, "maximum": 999}
    schemas: dict[str, tuple[Schema, Schema]] = {
        "respeta lo que hay": ({"type": "string", "maxLength": top}, {"type": "string", "maxLength": top}),
        "el mínimo manda": (
            {"type": "string", "minLength": least},
            {"type": "string", "minLength": least, "maxLength": least},
        ),
        "entero sin límites": ({"type": "integer"}, whole),
        "máximo negativo": (
            {"type": "integer", "maximum": -top},
            {"type": "integer", "minimum": -top, "maximum": -top},
        ),
        "mínimo enorme": ({"type": "integer", "minimum": 5000}, {"type": "integer", "minimum": 5000, "maximum": 5000}),
        "enum no se toca": ({"type": "string", "enum": ["a"]}, {"type": "string", "enum": ["a"]}),
        "lista de listas": (
            {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}},
            {"type": "array", "items": {"type": "array", "items": whole, "maxItems": 2}, "maxItems": 5},
        ),
        "lista con mínimo": (
            {"type": "array", "items": {"type": "boolean"}, "minItems": top + 5},
            {"type": "array", "items": {"type": "boolean"}, "minItems": top + 5, "maxItems": top + 5},
        ),
        "objeto dentro de objeto": (
            record({name: record({other: {"type": "string"}}, [other])}, [name]),
            record({name: record({other: {"type": "string", "maxLength": 40}}, [other])}, [name]),
        ),
    }
    hint = "Solo lo que falta, en todos los niveles, y sin dejar el esquema sin solución."
    cases = [Case(name=f"acota: {n}", args=(), play=bounded_play(*pair), hint=hint) for n, pair in schemas.items()]
    limits = {"letras": top, "elementos": 3, "tope": 50}
    nested = record({name: {"type": "array", "items": {"type": "string"}}, other: {"type": "integer"}}, [name])
    bounded = record(
        {
            name: {"type": "array", "items": {"type": "string", "maxLength": top}, "maxItems": 3},
            other: {"type": "integer", "minimum": 0, "maximum": 50},
        },
        [name],
    )
    play = bounded_play(nested, bounded, **limits)
    cases.append(
        Case(name="acota: otros límites, hasta dentro", args=(), play=play, hint="Pasa los límites hacia dentro.")
    )
    cases.append(
        Case(name="acota: no toca el original", args=(), play=_untouched(nested), hint="Devuelve otro esquema.")
    )
    return tuple(cases)


def _untouched(schema: Schema) -> Callable[[Remote], Outcome]:
    def play(remote: Remote) -> Outcome:
        same = remote.function("esquema_intacto_de_quien_corrige", schema)
        return Outcome(None if same is True else "el esquema recibido cambió")

    return play


def _tools(rng: Random) -> tuple[Case, ...]:
    name, other, key = words(rng, 3)
    parameters = record({key: {"enum": words(rng, 2)}, other: {"type": "integer", "minimum": 1, "maximum": 9}}, [key])
    question = " ".join(words(rng, 6)) + "?"
    good = {key: parameters["properties"][key]["enum"][0]}
    asked = (question, name, " ".join(words(rng, 3)), parameters)
    offered = {other: record({}, []), name: parameters}
    spaced = json.dumps(good, indent=2)
    two = message_of(name, spaced)
    two["tool_calls"] = [*two["tool_calls"], *message_of(other, "{}")["tool_calls"]]
    readings: dict[str, tuple[dict[str, Any], Any]] = {
        "argumentos con espacios": (message_of(name, spaced), [name, good]),
        "la otra herramienta": (message_of(other, "{}"), [other, {}]),
        "dos llamadas: la primera": (two, [name, good]),
        "una función que no ofreciste": (message_of(name + "x", spaced), "ValueError"),
        "argumentos que no cumplen": (message_of(name, json.dumps({key: "otra cosa"})), "ValueError"),
        "faltan argumentos": (message_of(name, "{}"), "ValueError"),
        "argumentos cortados": (message_of(name, spaced[:-2]), "ValueError"),
        "lista vacía": ({"role": "assistant", "content": "no", "tool_calls": []}, None),
        "sin la clave": ({"role": "assistant", "content": "no"}, None),
    }
    hint = "El nombre se comprueba, y los argumentos se leen y se comparan con el esquema de ESA herramienta."
    return (
        Case(
            name="la petición", args=asked, judge=tool_judge(*asked), hint="tools es una lista; tool_choice la nombra."
        ),
        *(
            Case(name=n, args=(), play=reading_play(message, offered, expected), hint=hint)
            for n, (message, expected) in readings.items()
        ),
    )

"""The public checks of lab 8: what a student may see."""

from __future__ import annotations

from random import Random

from minilab.pruebas.automatas import ANY, Table, Words
from minilab.pruebas.casos import Case, Check, Remote, Reply
from minilab.pruebas.hostil import ADVERSARIES, Complaint, MaskTask, attempt, dictate, walk
from minilab.pruebas.salida_guiada import (
    both_at_once,
    bounded_play,
    choice_texts,
    masked_case,
    message_of,
    reading_play,
    refused_token,
    string_words,
    table_play,
    tool_judge,
    verdict_play,
)
from minilab.pruebas.tensores import Tensor

DIGITS = "0123456789"
MONTHS = Words(str(n) for n in range(1, 13))

# A door with a keypad: 1, then any letter, then 2; and a name between quotes.
KEYPAD: Table = {
    "inicio": "a",
    "finales": ["d"],
    "pasos": {"a": {"1": "b"}, "b": {ANY: "c", "9": "a"}, "c": {"2": "d"}},
}
NAME: Table = {
    "inicio": "abre",
    "finales": ["fin"],
    "pasos": {"abre": {'"': "0"}, "0": {ANY: "1"}, "1": {ANY: "2", '"': "fin"}, "2": {'"': "fin"}},
}
NAME_TOKENS: list[str | None] = ['"', "a", "ab", 'a"', '","', "abc", "ñ", None, "", '"a"', '"}']
COUNT: Table = {"inicio": "", "finales": ["1", "12"], "pasos": {"": {"1": "1"}, "1": {"2": "12"}}}
COUNT_TOKENS: list[str | None] = ["1", "2", "12", "123", "21", " 1", None]


def prediction_judge(reply: Reply) -> str | None:
    """A percentage and a ratio; their values are talked about, not marked."""
    value = reply.value
    if not isinstance(value, dict) or sorted(value) != ["validas_pct", "velocidad"]:
        return "un diccionario con las claves validas_pct y velocidad"
    if not all(type(v) in (int, float) for v in value.values()):
        return "un número en cada clave"
    if not 0 <= value["validas_pct"] <= 100 or value["velocidad"] <= 0:
        return "validas_pct de 0 a 100 y velocidad mayor que 0"
    return None


PREDICTION = Case(
    name="dos números",
    args=(),
    judge=prediction_judge,
    hint="Un diccionario con los dos números que esperas medir, con esas claves.",
)


PERSON = {
    "type": "object",
    "properties": {
        "n": {"type": "string", "minLength": 1, "maxLength": 3},
        "mes": {"type": "integer", "minimum": 1, "maximum": 12},
        "ok": {"type": "boolean"},
    },
    "required": ["n", "mes", "ok"],
    "additionalProperties": False,
}
PERSON_VOCABULARY = (
    *'{}[]:,"0123456789nmesokalutrfñ🙂\\-',
    '{"', '":', '":"', '","', '",', ',"', '"}', "true", "false", "tru", "e}", "12", "13", "mes", "}}", " ", "",
)  # fmt: skip
PERSON_DOCUMENTS = (
    ['{"', "n", '":"', "ñ", "a", '","', "mes", '":', "12", ',"', "o", "k", '":', "tru", "e}"],
    list('{"n":"a","mes":1,"ok":false}'),
    ['{"', "n", '":"', "🙂", '",', '"', "mes", '":', "1", "0", ",", '"', "ok"[0], "ok"[1], '":', "false", "}"],
)
WORDS = {"enum": ["uno", "una", "dos"]}
WORDS_VOCABULARY = ('"', "u", "n", "o", "a", "d", "s", '"un', 'o"', "os", "do", "")


def mask_task() -> MaskTask:
    longest = len('{"n":"abc","mes":12,"ok":false}')
    return MaskTask(PERSON, PERSON_VOCABULARY, len(PERSON_VOCABULARY) - 1, longest, public=True)


def _write(remote: Remote) -> str:
    for texts in PERSON_DOCUMENTS:
        dictate(remote, mask_task(), map(PERSON_VOCABULARY.index, texts))
    return ""


def _hostile(remote: Remote) -> str:
    for adversary in ADVERSARIES:
        try:
            walk(remote, mask_task(), adversary, Random(adversary.name))
        except Complaint as wrong:
            raise Complaint(f"con logits {adversary.name}, {wrong}") from wrong
    return f"{len(ADVERSARIES)} tiradas válidas"


TAGGED = {
    "type": "object",
    "properties": {"n": {"type": "number"}, "tag": {"enum": ["a", "ñ"]}},
    "required": ["n"],
    "additionalProperties": False,
}


WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
ASKED = ("Is it raining in Oslo?", "weather", "Weather in a city now.", WEATHER)


WALK = ("recorre",)
MASK = ("recorre", "permitidos")
BUILD = ("recorre", "constructores")
WHOLE = ("recorre", "permitidos", "constructores", "mascara")

CHECKS: dict[str, Check] = {
    c.name: c
    for c in (
        Check("prediccion_l08", "mi_prediccion", ("prediccion",), (PREDICTION,)),
        Check(
            "recorre",
            "recorre",
            WALK,
            (
                Case(name="dos letras", args=(KEYPAD, "a", "1x"), expected="c", hint="Un estado tras otro, en orden."),
                Case(
                    name="desde otro estado",
                    args=(KEYPAD, "c", "2"),
                    expected="d",
                    hint="Empieza en `estado`, no en inicio.",
                ),
                Case(
                    name="la letra con paso propio gana",
                    args=(KEYPAD, "b", "9"),
                    expected="a",
                    hint="Usa siguiente(): si la letra tiene su paso, «cualquiera» no cuenta.",
                ),
                Case(
                    name="no puede venir",
                    args=(KEYPAD, "a", "21"),
                    expected=None,
                    hint="Si se atasca, None, aunque siga.",
                ),
                Case(name="texto vacío", args=(KEYPAD, "b", ""), expected="b", hint="Sin letras no se mueve nadie."),
                Case(
                    name="los meses, del 1 al 12",
                    args=(),
                    play=table_play("automata_mes", [], MONTHS, DIGITS + "-a"),
                    hint="El 1 ya es un mes y además puede seguir con 0, 1 o 2. Ni 0, ni 01, ni 13.",
                ),
            ),
        ),
        Check(
            "permitidos",
            "permitidos",
            MASK,
            (
                Case(
                    name="un token de varias letras",
                    args=(COUNT, "", COUNT_TOKENS, 6),
                    expected=[0, 2],
                    hint="Un token vale si todas sus letras, en orden, avanzan: «123» no, «12» sí.",
                ),
                Case(
                    name="completo, y aún puede seguir",
                    args=(COUNT, "1", COUNT_TOKENS, 6),
                    expected=[1, 6],
                    hint="En un estado final se añade fin, sin quitar lo que aún puede venir.",
                ),
                Case(name="solo queda fin", args=(COUNT, "12", COUNT_TOKENS, 6), expected=[6], hint="Solo fin."),
                Case(
                    name="dentro de una cadena",
                    args=(NAME, "0", NAME_TOKENS, 7),
                    expected=[1, 2, 3, 6],
                    hint='«ab» y «a"» caben; «abc» no. Un token sin texto (None o vacío) nunca vale.',
                ),
            ),
        ),
        Check(
            "aplica_mascara",
            "aplica_mascara",
            ("aplica_mascara",),
            (
                masked_case(
                    "tres tokens, quedan dos", [1.0, 1.0, 1.0], [0, 2], "Lo que queda se reparte el total: 1/2 y 1/2."
                ),
                masked_case("el favorito, prohibido", [4.0, 1.0, 0.0], [1, 2], "Pon −inf fuera y aplica softmax."),
                masked_case("nada prohibido", [0.5, -0.5], [0, 1], "Con todos permitidos no se quita nada."),
                Case(
                    name="nada permitido",
                    args=(Tensor([1.0, 2.0]), []),
                    error="ValueError",
                    hint="Sin ningún token, softmax da NaN: lanza ValueError antes.",
                ),
            ),
        ),
        Check(
            "constructores",
            "eleccion",
            BUILD,
            (
                Case(
                    name="true o false",
                    args=(),
                    play=choice_texts(["true", "false"]),
                    hint="Cada principio de un texto es un estado; los textos enteros son los finales.",
                ),
                Case(
                    name="uno es el principio de otro",
                    args=(),
                    play=choice_texts(["a", "ab", "ac"]),
                    hint="«a» es un estado final y también puede seguir.",
                ),
                Case(
                    name="enteros del 8 al 11",
                    args=(),
                    play=table_play("entero", [8, 11], Words(["8", "9", "10", "11"]), DIGITS + "-"),
                    hint="Los dos extremos cuentan.",
                ),
                Case(
                    name="cadena de 1 a 3 letras",
                    args=(),
                    play=table_play("cadena", [1, 3], string_words(1, 3), 'añ"\\\n'),
                    hint="Cuenta las letras escritas: con pocas no se cierra, con el máximo solo se cierra.",
                ),
            ),
        ),
        Check(
            "mascara_l08",
            "Mascara",
            WHOLE,
            (
                Case(
                    name="tokens que cruzan fronteras",
                    args=(),
                    play=lambda remote: attempt(lambda: _write(remote)),
                    hint='«","» cierra una cadena, pone la coma y abre un nombre: recorre pasa por todo eso.',
                ),
                Case(
                    name="logits hostiles",
                    args=(),
                    play=lambda remote: attempt(lambda: _hostile(remote)),
                    hint="acepta avanza el estado con el texto del token; permitidos mira el estado de ahora.",
                ),
                Case(
                    name="dos textos a la vez",
                    args=(),
                    play=both_at_once(WORDS, WORDS_VOCABULARY, 11, [7, 8], [0, 10, 6, 0]),
                    hint="Lo compartido es el autómata y sus listas; el estado es de cada Mascara.",
                ),
                Case(
                    name="un token prohibido",
                    args=(),
                    play=refused_token(WORDS, WORDS_VOCABULARY, 11, [7], 5),
                    hint="Si recorre devuelve None, lanza ValueError sin tocar el estado.",
                ),
            ),
        ),
        Check(
            "valida",
            "valida",
            ("valida",),
            (
                Case(
                    name="cortada",
                    args=(),
                    play=verdict_play('{"n": 1}', "length", "cortada", '{"n": 1}', TAGGED),
                    hint="Si no acabó por sí misma, da igual lo que parezca: está cortada.",
                ),
                Case(
                    name="con una frase delante",
                    args=(),
                    play=verdict_play('Sure! {"n": 1}', "stop", "no es JSON", '{"n": 1}', TAGGED),
                    hint="Todo el texto es JSON, o no lo es; no recortes ni repares.",
                ),
                Case(
                    name="JSON de otra forma",
                    args=(),
                    play=verdict_play('{"n": "1"}', "stop", "no cumple", '{"n": 1}', TAGGED),
                    hint="Comprueba el dato con jsonschema.",
                ),
                Case(
                    name="acota una cadena",
                    args=(),
                    play=bounded_play({"type": "string"}, {"type": "string", "maxLength": 40}),
                    hint="Pon solo los límites que falten.",
                ),
                Case(
                    name="acota por dentro",
                    args=(),
                    play=bounded_play(
                        {"type": "object", "properties": {"x": {"type": "integer", "minimum": 5}}, "required": ["x"]},
                        {
                            "type": "object",
                            "properties": {"x": {"type": "integer", "minimum": 5, "maximum": 999}},
                            "required": ["x"],
                        },
                    ),
                    hint="Entra en cada propiedad y en items.",
                ),
            ),
        ),
        Check(
            "herramienta",
            "cuerpo_herramienta",
            ("valida", "herramienta"),
            (
                Case(
                    name="la petición",
                    args=ASKED,
                    judge=tool_judge(*ASKED),
                    hint="messages, max_tokens, tools (una lista) y tool_choice.",
                ),
                Case(
                    name="lee una llamada",
                    args=(),
                    play=reading_play(
                        message_of("weather", '{"city": "Oslo"}'), {"weather": WEATHER}, ["weather", {"city": "Oslo"}]
                    ),
                    hint="arguments es una cadena con JSON dentro: hay que leerla.",
                ),
                Case(
                    name="una función que no ofreciste",
                    args=(),
                    play=reading_play(message_of("rm_rf", '{"city": "Oslo"}'), {"weather": WEATHER}, "ValueError"),
                    hint="Nunca ejecutes un nombre que no está entre las herramientas ofrecidas.",
                ),
                Case(
                    name="sin llamada",
                    args=(),
                    play=reading_play(
                        {"role": "assistant", "content": "Hi", "tool_calls": None}, {"weather": WEATHER}, None
                    ),
                    hint="tool_calls puede faltar, ser None o una lista vacía: devuelve None.",
                ),
            ),
        ),
    )
}

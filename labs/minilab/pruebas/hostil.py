"""Play a student's ``Mascara`` against hostile logits: the trusted side owns the logits, the vocabulary and the text.

Public and hidden cases are made of two exchanges: :func:`walk` lets an adversary choose among the permitted tokens,
and :func:`dictate` writes a text known to be right. Both raise :class:`Complaint` with one Spanish sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from minilab.pruebas.casos import Case, Outcome, Remote
from minilab.pruebas.json_estricto import fault


class Complaint(Exception):
    """What is wrong with the student's mask; its text is for the student."""


@dataclass(frozen=True)
class MaskTask:
    """What a mask is built for. end: id of the end token, whose text is empty; every other text has characters.

    longest: characters of the longest document. public: the messages may quote the text and the tokens.
    """

    schema: dict[str, Any]
    vocabulary: tuple[str, ...]
    end: int
    longest: int
    public: bool = False


@dataclass(frozen=True)
class Adversary:
    """A model that wants something else. taste: text of a token -> its logit, to which noise in [0, 1) is added.

    name: completes "logits …" in Spanish. steady: the same noise in every step of a run.
    """

    name: str
    taste: Callable[[str], float]
    steady: bool = False


def _count(letters: str, each: float) -> Callable[[str], float]:
    return lambda text: each * sum(c in letters for c in text)


def _never_close(text: str) -> float:
    if not text:
        return -100.0
    return 5 * text.count(",") - 10 * (text.count("}") + text.count("]")) - text.count('"')


def _end_now(text: str) -> float:
    return 20.0 * (text.count("}") + text.count("]")) + 5 * text.count('"') if text else 100.0


NEVER_CLOSES = Adversary("que no acaban nunca", _never_close)
ADVERSARIES = (
    Adversary("al azar", lambda text: 0.0),
    NEVER_CLOSES,
    Adversary("que quieren acabar ya", _end_now),
    Adversary("que prefieren los tokens largos", lambda text: float(len(text))),
    Adversary("que prefieren lo que rompe", _count('"{}[]\\`', 2)),
    Adversary("de charla", _count(" \n\t`CNI.", 3)),
    Adversary("fijos", lambda text: 0.0, steady=True),
)


class OpenMask:
    """A mask of the student, in use. allowed: what it permits now, already checked."""

    def __init__(self, remote: Remote, task: MaskTask):
        self._remote, self._size = remote, len(task.vocabulary)
        self._handle = remote.new("Mascara", task.schema, list(task.vocabulary), task.end)
        self.allowed = checked_ids(remote.call(self._handle, "permitidos"), self._size)

    def accept(self, token: int) -> None:
        values = self._remote.run(self._handle, [("acepta", [token]), ("permitidos", [])])
        self.allowed = checked_ids(values[-1] if isinstance(values, list) and values else None, self._size)


def checked_ids(value: Any, size: int) -> list[int]:
    """``value`` where it is a sorted list of different ids below ``size``, with one at least. Raises Complaint."""
    if type(value) is not list or not all(type(i) is int for i in value):
        raise Complaint("permitidos() debe devolver una lista de ids, que son enteros")
    if not value:
        raise Complaint("permitidos() devolvió una lista vacía: siempre hay un token que puede venir, o fin")
    if value[0] < 0 or value[-1] >= size or any(a >= b for a, b in pairwise(value)):
        raise Complaint("permitidos() debe devolver ids del vocabulario, ordenados y sin repetir")
    return value


def walk(remote: Remote, task: MaskTask, adversary: Adversary, rng: Random) -> str:
    """The text that the adversary writes through the mask, valid for the schema. Raises :class:`Complaint`.

    It must end by the end token once the longest document has been written, at the latest.
    """
    logits = [adversary.taste(text) + (rng.random() if adversary.steady else 0.0) for text in task.vocabulary]
    noise = 0.0 if adversary.steady else 1.0
    mask, text = OpenMask(remote, task), ""
    for _ in range(task.longest + 1):
        token = max(mask.allowed, key=lambda i: logits[i] + noise * rng.random())
        if token == task.end:
            if complaint := fault(text, task.schema):
                raise Complaint(complaint + _quote(task, text))
            return text
        text += task.vocabulary[token]
        mask.accept(token)
    raise Complaint("el texto no termina: sigue después de lo que mide el documento más largo" + _quote(task, text))


def dictate(
    remote: Remote,
    task: MaskTask,
    tokens: Iterable[int],
    exact: Callable[[str], Collection[int]] | None = None,
    both_ways: bool = False,
) -> None:
    """Write ``tokens``, a right document, and the end token. Raises :class:`Complaint` where the mask forbids one.

    exact: text so far -> the ids that may come. With it the mask may permit nothing else; ``both_ways``: it must
    also permit all of them.
    """
    mask, text = OpenMask(remote, task), ""
    for token in (*tokens, task.end):
        if token not in mask.allowed:
            raise Complaint(f"permitidos() prohíbe {_token(task, token)}, que podía venir" + _quote(task, text))
        right = exact(text) if exact else mask.allowed
        if surplus := sorted(set(mask.allowed) - set(right)):
            raise Complaint(f"permitidos() incluye {_token(task, surplus[0])}, que no podía venir" + _quote(task, text))
        if both_ways and (missing := sorted(set(right) - set(mask.allowed))):
            raise Complaint(f"permitidos() prohíbe {_token(task, missing[0])}, que podía venir" + _quote(task, text))
        if token != task.end:
            text += task.vocabulary[token]
            mask.accept(token)


def _token(task: MaskTask, token: int) -> str:
    text = task.vocabulary[token]
    if not text:
        return "el token fin"
    if task.public:
        return f"el token «{text}»"
    return "un token de un carácter" if len(text) == 1 else "un token de varios caracteres"


def _quote(task: MaskTask, text: str) -> str:
    return f" (texto: «{text}»)" if task.public else ""


def attempt(exchange: Callable[[], str]) -> Outcome:
    """The outcome of an exchange: its note, or the complaint that it raised."""
    try:
        return Outcome(note=exchange())
    except Complaint as complaint:
        return Outcome(complaint=str(complaint))


MERGED = ('{"', '":', '":"', '","', '"}', '"]', "color", "azul", "verde", "12", '["', "[]", " ", "}}", "Claro: ")
PUBLIC_VOCABULARY = (*'{}[]:,"0123456789abcdelmnorsuvzñé🙂\\', *MERGED, "")
COLOUR = {
    "type": "object",
    "properties": {"color": {"enum": ["azul", "verde"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["color"],
    "additionalProperties": False,
}
NAMES = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 3},
    "minItems": 1,
    "maxItems": 2,
}


def public_cases() -> tuple[Case, ...]:
    """Three small cases, the same for everybody, on :data:`COLOUR` and :data:`NAMES`."""
    end = len(PUBLIC_VOCABULARY) - 1
    colour = MaskTask(COLOUR, PUBLIC_VOCABULARY, end, longest=len('{"color":"verde","n":99}'), public=True)
    names = MaskTask(NAMES, PUBLIC_VOCABULARY, end, longest=len('["abc","abc"]'), public=True)
    documents = (
        (colour, ['{"', "color", '":"', "azul", '"}']),
        (colour, list('{"color":"verde","n":12}')),
        (names, ['["', "ñ", "é", '","', "🙂", '"]']),
    )

    def write(remote: Remote) -> str:
        for task, texts in documents:
            dictate(remote, task, map(PUBLIC_VOCABULARY.index, texts))
        return ""

    return (
        Case(
            name="tokens de varios caracteres",
            args=(),
            play=lambda remote: attempt(lambda: write(remote)),
            hint="Un token está permitido si todos sus caracteres, en orden, son posibles; fin, al completar el texto.",
        ),
        Case(
            name="objeto con logits hostiles",
            args=(),
            play=lambda remote: attempt(lambda: _all_adversaries(remote, colour)),
            hint="La coma solo va entre propiedades; las optativas se pueden saltar y un entero no empieza por 0.",
        ),
        Case(
            name="lista con logits hostiles",
            args=(),
            play=lambda remote: attempt(lambda: _all_adversaries(remote, names)),
            hint="Cuenta los elementos y los caracteres de cada cadena: hay mínimo y máximo.",
        ),
    )


def _all_adversaries(remote: Remote, task: MaskTask, adversaries: Sequence[Adversary] = ADVERSARIES) -> str:
    for adversary in adversaries:
        try:
            walk(remote, task, adversary, Random(adversary.name))
        except Complaint as complaint:
            raise Complaint(f"con logits {adversary.name}, {complaint}") from complaint
    return f"{len(adversaries)} tiradas válidas"

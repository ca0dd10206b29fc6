"""Automata that students write down as tables, judged from outside: the table is data, nothing of theirs runs here.

A table is ``{"inicio": state, "finales": [state, …], "pasos": {state: {letter: state}}}``, states being strings. The
step :data:`ANY` stands for every letter that may stand inside a JSON string and has no step of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

ANY = "cualquiera"
Table = dict[str, Any]


class BadTable(Exception):
    """Why a value is no table; one Spanish sentence."""


class Language(Protocol):
    """States are numbers; 0 is the state from which nothing is right any more."""

    start: int

    def advance(self, state: int, text: str) -> int: ...
    def complete(self, state: int) -> bool: ...


class Words:
    """The language of a few texts."""

    def __init__(self, texts: Iterable[str]):
        self._texts = frozenset(texts)
        prefixes = sorted({text[:end] for text in self._texts for end in range(len(text) + 1)})
        self._numbers = {prefix: number for number, prefix in enumerate(prefixes, 1)}
        self._prefixes = ["", *prefixes]
        self.start = self._numbers.get("", 0)

    def advance(self, state: int, text: str) -> int:
        return self._numbers.get(self._prefixes[state] + text, 0) if state else 0

    def complete(self, state: int) -> bool:
        return bool(state) and self._prefixes[state] in self._texts


def checked(value: Any) -> Table:
    """``value`` where it is a table. Raises :class:`BadTable`."""
    if not isinstance(value, dict) or not {"inicio", "finales", "pasos"} <= value.keys():
        raise BadTable("un diccionario con inicio, finales y pasos")
    steps, ends = value["pasos"], value["finales"]
    if not isinstance(value["inicio"], str) or not isinstance(ends, list) or not all(isinstance(e, str) for e in ends):
        raise BadTable("inicio es un estado y finales una lista de estados; los estados son cadenas")
    if not isinstance(steps, dict) or not all(isinstance(leaving, dict) for leaving in steps.values()):
        raise BadTable("pasos es un diccionario: de cada estado, un diccionario de letra a estado")
    for leaving in steps.values():
        for letter, state in leaving.items():
            if (len(letter) != 1 and letter != ANY) or not isinstance(state, str):
                raise BadTable(f"cada paso va de una sola letra (o «{ANY}») a un estado, que es una cadena")
    return value


def inside_string(letter: str) -> bool:
    return letter >= " " and letter not in '"\\'


def step(table: Table, state: str | None, letter: str) -> str | None:
    leaving = {} if state is None else table["pasos"].get(state, {})
    return leaving.get(letter, leaving.get(ANY) if inside_string(letter) else None)


def advance(table: Table, state: str | None, text: str) -> str | None:
    """The state after ``text``; None where it cannot come."""
    for letter in text:
        state = step(table, state, letter)
    return state


def allowed(table: Table, state: str | None, vocabulary: Sequence[str | None], end: int) -> list[int]:
    """Ids of the tokens that may come, and ``end`` where the text is complete."""
    ids = {i for i, text in enumerate(vocabulary) if text and advance(table, state, text) is not None}
    return sorted(ids | ({end} if state in table["finales"] else set()))


def difference(table: Table, language: Language, alphabet: Collection[str]) -> tuple[str, str] | None:
    """(kind, text) of the shortest text about which table and language disagree; None where they are the same.

    Every pair of states that some text reaches is looked at: for these letters the answer is exact. kind: ``sobra``
    (the table goes on where nothing is right), ``falta``, ``termina`` (may end too early) or ``sigue`` (may not end).
    """
    first = (table["inicio"], language.start)
    seen, queue = {first}, deque([(*first, "")])
    while queue:
        mine, right, text = queue.popleft()
        if (mine in table["finales"]) != language.complete(right):
            return ("termina" if mine in table["finales"] else "sigue"), text
        for letter in alphabet:
            pair = step(table, mine, letter), language.advance(right, letter)
            if (pair[0] is None) != (pair[1] == 0):
                return ("falta" if pair[0] is None else "sobra"), text + letter
            if pair[0] is not None and pair not in seen:
                seen.add(pair)
                queue.append((*pair, text + letter))
    return None


def complaint(value: Any, language: Language, alphabet: Collection[str], public: bool = False) -> str | None:
    """What is wrong with the student's table, in Spanish; the text at fault only where ``public``."""
    try:
        found = difference(checked(value), language, alphabet)
    except BadTable as error:
        return f"se esperaba {error}"
    if found is None:
        return None
    kind, text = found
    quoted = f" «{text}»" if public else ""
    return {
        "sobra": f"deja escribir el principio{quoted}, y ningún texto correcto empieza así",
        "falta": f"no deja escribir el principio{quoted}, y hay textos correctos que empiezan así",
        "termina": f"da por completo el texto{quoted}, que no lo está",
        "sigue": f"no da por completo el texto{quoted}, que ya lo está",
    }[kind]

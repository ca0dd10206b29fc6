"""What public and hidden checks of speculative decoding share: many calls at once, and verifiers with a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.casos import Outcome, Remote, StudentError
from minilab.pruebas.ji_cuadrado import ji_cuadrado
from minilab.pruebas.planos import equal

Greedy = Callable[[list[int], list[int]], list[int]]
Row = list[float]

MANY = "_varias"
MANY_SOURCE = f"def {MANY}(nombre, llamadas):\n    return [globals()[nombre](*args) for args in llamadas]\n"
"""What the grader's worker is given, so that thousands of calls are one trip."""
MOST_TESTS, LONGEST_TEST = 6, 8
IMPOSSIBLE = 1e-9  # p-value below which a distribution is refuted: an honest answer meets it once in a thousand million


def calls(remote: Remote, name: str, arguments: Sequence[Sequence[Any]]) -> list[Any]:
    """The student's function on each of ``arguments``; in one trip where the other end offers it."""
    try:
        return remote.function(MANY, name, [list(args) for args in arguments])
    except StudentError as error:
        if error.error != "NameError":
            raise
    return [remote.function(name, *args) for args in arguments]


# ---- Greedy verification, right and wrong


def greedy(drafts: list[int], chosen: list[int]) -> list[int]:
    """The drafts up to the first that is not the model's choice, and the model's choice there."""
    stand = next((i for i, (d, c) in enumerate(zip(drafts, chosen, strict=False)) if d != c), len(drafts))
    return [*drafts[:stand], chosen[stand]]


def _stand(drafts: list[int], chosen: list[int]) -> int:
    return len(greedy(drafts, chosen)) - 1


def _first_unseen(drafts: list[int], chosen: list[int]) -> list[int]:
    return [drafts[0], *greedy(drafts[1:], chosen[1:])] if drafts else greedy(drafts, chosen)


def _one_too_many(drafts: list[int], chosen: list[int]) -> list[int]:
    stand = _stand(drafts, chosen)
    return [*drafts[: stand + 1], chosen[min(stand + 1, len(drafts))]]


def _anywhere(drafts: list[int], chosen: list[int]) -> list[int]:
    stand = sum(d == c for d, c in zip(drafts, chosen, strict=False))
    return [*drafts[:stand], chosen[stand]]


FAULTY: dict[str, Greedy] = {
    "el seudocódigo de los apuntes": lambda drafts, chosen: chosen[: len(drafts)],
    "no da el token de regalo": lambda drafts, chosen: greedy(drafts, chosen)[: max(1, len(drafts))],
    "no da el token de corrección": lambda drafts, chosen: (
        [*drafts, chosen[-1]] if _stand(drafts, chosen) == len(drafts) else drafts[: _stand(drafts, chosen)]
    ),
    "suma coincidencias sueltas": _anywhere,
    "acepta también el borrador que falla": _one_too_many,
    "corrige siempre con la última elección": lambda drafts, chosen: [*drafts[: _stand(drafts, chosen)], chosen[-1]],
    "no mira el primer borrador": _first_unseen,
    "todo o nada": lambda drafts, chosen: [*drafts, chosen[-1]] if drafts == chosen[:-1] else chosen[:1],
    "sin borradores no da nada": lambda drafts, chosen: greedy(drafts, chosen) if drafts else [],
}
"""Fault -> a verifier that has it. Each differs from :func:`greedy` on some short example."""


def hunt(fault: str | None) -> Callable[[Remote], Outcome]:
    """The student's tests are right, and (with ``fault``) one of them tells that verifier from a good one."""

    def play(remote: Remote) -> Outcome:
        tests = remote.function("mis_pruebas")
        if complaint := _wrong_tests(tests):
            return Outcome(complaint)
        if fault is None:
            return Outcome(note=f"{len(tests)} pruebas")
        caught = any(FAULTY[fault](list(t["borrador"]), list(t["elegidos"])) != t["esperado"] for t in tests)
        return Outcome() if caught else Outcome(f"que alguna prueba distinguiera este fallo: {fault}")

    return play


def _wrong_tests(tests: Any) -> str | None:
    if not isinstance(tests, list) or not 1 <= len(tests) <= MOST_TESTS:
        return f"una lista de 1 a {MOST_TESTS} pruebas"
    for number, test in enumerate(tests, start=1):
        if not isinstance(test, dict) or sorted(test) != ["borrador", "elegidos", "esperado"]:
            return f"que la prueba {number} tuviera las claves borrador, elegidos y esperado"
        if not all(isinstance(v, list) and all(type(t) is int for t in v) for v in test.values()):
            return f"que la prueba {number} solo tuviera listas de enteros"
        drafts, chosen = test["borrador"], test["elegidos"]
        if len(drafts) > LONGEST_TEST or len(chosen) != len(drafts) + 1:
            return (
                f"que la prueba {number} tuviera como mucho {LONGEST_TEST} borradores y un elegido más que borradores"
            )
        if test["esperado"] != greedy(drafts, chosen):
            return f"que la prueba {number} esperase lo que da un verificador correcto"
    return None


# ---- Sampled verification


def same_law(
    q: list[Row] | None, p: list[Row], draws: int, seed: int, certain: Sequence[int] = ()
) -> Callable[[Remote], Outcome]:
    """Many verifications with drafts drawn from ``q`` give first tokens, and second ones, as ``p`` has them.

    q: k rows, or None with the k drafts in ``certain``; p: k + 1 rows, each of them the same whatever comes before, so
    that the second token's law is its row's. Tokens that did not come (everything after the replacement of a draft) are
    not counted: whether they come hangs on what comes first, not on themselves.
    """

    def play(remote: Remote) -> Outcome:
        rng, asked = Random(seed), []
        for _ in range(draws):
            drafts = list(certain) if q is None else [rng.choices(range(len(row)), row)[0] for row in q]
            asked.append((drafts, q, p, [[rng.random(), rng.random()] for _ in p]))
        answers = calls(remote, "verifica", asked)
        for place in range(min(2, len(p))):
            came = [a[place] for a in answers if isinstance(a, list) and len(a) > place]
            if not came or not all(type(token) is int and 0 <= token < len(p[0]) for token in came):
                return Outcome("una lista de tokens del vocabulario en cada llamada")
            test = ji_cuadrado([came.count(token) for token in range(len(p[0]))], p[place])
            if test.p_valor < IMPOSSIBLE:
                return Outcome(f"la distribución p en el token {place} de {len(came)} verificaciones: {test}")
        return Outcome(note=f"{draws} verificaciones, compatibles con p")

    return play


def exactly(name: str, arguments: Sequence[Sequence[Any]], expected: Sequence[Any]) -> Callable[[Remote], Outcome]:
    """The student's function on each of ``arguments``, equal to ``expected`` each time."""

    def play(remote: Remote) -> Outcome:
        answers = calls(remote, name, arguments)
        wrong = [i for i, (e, got) in enumerate(zip(expected, answers, strict=True)) if not equal(e, got)]
        if not wrong:
            return Outcome(note=f"{len(expected)} llamadas")
        return Outcome(f"{len(expected)} respuestas correctas; {len(wrong)} no lo son")

    return play

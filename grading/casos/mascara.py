"""Hidden cases of J0: a mask of tokens that gives valid JSON under hostile logits, and forbids nothing that is right.

Every run draws a schema and a vocabulary; what a case says to the student names the kind of fault, never the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from random import Random

from minilab.pruebas.casos import Case, Check, Outcome, Remote
from minilab.pruebas.hostil import ADVERSARIES, NEVER_CLOSES, Complaint, MaskTask, OpenMask, attempt, dictate, walk
from minilab_grading.casos.esquemas import FAMILIES, Family, Size, document, record, text, words
from minilab_grading.casos.lenguaje_json import Language, TrustedMask
from minilab_grading.casos.trampa import trap_case
from minilab_grading.casos.vocabularios import at_random, by_character, longest_first, make_vocabulary

__all__ = ["mask_check", "trap_case"]

RUNS = 44  # for each of seven families: 308 in all, and 0 failures of 308 bound the rate below 1 % (rule of three)
CUTS = {"carácter a carácter": by_character, "con los tokens más largos": longest_first, "cortado al azar": at_random}
COMPLETE_HINT = "Un documento correcto se puede escribir lo corten como lo corten los tokens, y nada más."


def mask_check(seed: int, runs: int = RUNS) -> Check:
    """The check ``mascara``; ``runs`` hostile runs for each family, with cases that depend on ``seed`` alone."""
    families = (
        Case(
            name=f"logits hostiles: {family.name}",
            args=(),
            play=partial(_hostile, family=family, seed=seed, runs=runs),
            hint=family.hint,
            weight=1.25,
        )
        for family in FAMILIES
    )
    cuts = (
        Case(
            name=f"todo documento correcto, {name}",
            args=(),
            play=partial(_completeness, cut=cut, seed=seed),
            hint=COMPLETE_HINT,
            weight=1.75,
        )
        for name, cut in CUTS.items()
    )
    return Check(
        "mascara",
        "Mascara",
        ("mascara",),
        (
            *families,
            *cuts,
            Case(
                name="ni un token de más ni de menos",
                args=(),
                play=partial(_exactness, seed=seed),
                hint="permitidos() es el conjunto exacto: compara el tuyo, a mano, en un esquema pequeño.",
                weight=2.0,
            ),
            Case(
                name="obedece a los logits",
                args=(),
                play=partial(_dependence, seed=seed),
                hint="Entre los permitidos manda el modelo: dos preguntas distintas dan dos documentos distintos.",
            ),
            Case(
                name="termina siempre",
                args=(),
                play=partial(_termination, seed=seed),
                hint="Todo tiene máximo: cuando se alcanza, solo queda cerrar, y al final solo queda fin.",
            ),
        ),
    )


def make_task(family: Family, shape: int, rng: Random) -> tuple[MaskTask, TrustedMask]:
    schema = family.shapes[shape % len(family.shapes)](rng)
    vocabulary, end = make_vocabulary(schema, rng)
    language = Language(schema)
    return MaskTask(schema, vocabulary, end, language.longest()), TrustedMask(language, vocabulary, end)


def _hostile(remote: Remote, family: Family, seed: int, runs: int) -> Outcome:
    """Every run valid, and the documents of the schema can be written with one character a token."""

    def exchange() -> str:
        for run in range(runs):
            rng = Random(f"{seed} {family.name} {run}")
            adversary = ADVERSARIES[run % len(ADVERSARIES)]
            task, _ = make_task(family, run, rng)
            try:
                walk(remote, task, adversary, rng)
            except Complaint as complaint:
                raise Complaint(f"en la tirada {run + 1} de {runs}, con logits {adversary.name}, {complaint}") from None
        for task, _, written, rng in _documents([family], seed, "dictado"):
            dictate(remote, task, by_character(written, task.vocabulary, rng))
        return f"{runs} tiradas válidas de {runs}"

    return attempt(exchange)


def _documents(
    families: list[Family] | tuple[Family, ...], seed: int, purpose: str
) -> Iterator[tuple[MaskTask, TrustedMask, str, Random]]:
    """The longest and the shortest document of each shape of each family."""
    sizes: tuple[Size, ...] = ("largo", "corto")
    for family in families:
        for shape, size in product(range(len(family.shapes)), sizes):
            rng = Random(f"{seed} {purpose} {family.name} {shape} {size}")
            task, exact = make_task(family, shape, rng)
            yield task, exact, document(task.schema, family, rng, size), rng


def _completeness(remote: Remote, cut: Callable[..., list[int]], seed: int) -> Outcome:
    def exchange() -> str:
        for task, exact, written, rng in _documents(FAMILIES, seed, cut.__name__):
            dictate(remote, task, cut(written, task.vocabulary, rng), exact)
        return ""

    return attempt(exchange)


def _exactness(remote: Remote, seed: int) -> Outcome:
    """The exact set along a random path and along the longest document of each shape."""

    def exchange() -> str:
        for family in FAMILIES:
            for shape in range(len(family.shapes)):
                rng = Random(f"{seed} exacto {family.name} {shape}")
                task, exact = make_task(family, shape, rng)
                longest = at_random(document(task.schema, family, rng, "largo"), task.vocabulary, rng)
                for tokens in (longest, _stroll(task, exact, rng)):
                    dictate(remote, task, tokens, exact, both_ways=True)
        return ""

    return attempt(exchange)


def _stroll(task: MaskTask, exact: TrustedMask, rng: Random) -> list[int]:
    """Tokens of a document chosen step by step among those that may come."""
    tokens, written = [], ""
    while (token := rng.choice(sorted(exact(written)))) != task.end:
        tokens.append(token)
        written += task.vocabulary[token]
    return tokens


def _dependence(remote: Remote, seed: int) -> Outcome:
    """Two questions that differ in one fact: what the model wants to say must come out, and nothing that it blurts."""
    rng = Random(f"{seed} obedece")
    field, other, first, second = words(rng, 4, lengths=(4,))
    schema = record({field: text(3, 4), other: {"enum": [first, second]}}, [field, other])
    vocabulary, end = make_vocabulary(schema, rng)
    language = Language(schema)
    task, exact = MaskTask(schema, vocabulary, end, language.longest()), TrustedMask(language, vocabulary, end)

    def exchange() -> str:
        for fact in (first, second):
            wanted = f'{{"{field}":"{fact}","{other}":"{fact}"}}'
            if _say(remote, task, exact, wanted, rng) != wanted:
                raise Complaint("el modelo quería escribir un documento correcto y la máscara no le dejó")
        return ""

    return attempt(exchange)


def _say(remote: Remote, task: MaskTask, exact: TrustedMask, wanted: str, rng: Random) -> str:
    """What a model writes whose logits want what is forbidden most, then ``wanted``, then anything."""
    mask, written = OpenMask(remote, task), ""
    for _ in range(task.longest + 1):
        right, rest = exact(written), wanted[len(written) :]

        def logit(token: int, right: frozenset[int] = right, rest: str = rest) -> float:
            piece = task.vocabulary[token]
            if token not in right:
                return 100 + rng.random()
            goes_on = rest.startswith(piece) if piece else not rest
            return 10.0 + len(piece) if goes_on else rng.random()

        token = max(mask.allowed, key=logit)
        if token == task.end:
            break
        written += task.vocabulary[token]
        mask.accept(token)
    return written


def _termination(remote: Remote, seed: int) -> Outcome:
    """Logits that never close end all the same, and the longest document is within reach."""

    def exchange() -> str:
        for family in FAMILIES:
            for shape in range(len(family.shapes)):
                rng = Random(f"{seed} termina {family.name} {shape}")
                task, _ = make_task(family, shape, rng)
                walk(remote, task, NEVER_CLOSES, rng)
                longest = document(task.schema, family, rng, "largo")
                dictate(remote, task, by_character(longest, task.vocabulary, rng))
        return ""

    return attempt(exchange)

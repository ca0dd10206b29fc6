"""What the target is asked for its training text: tasks that a 135M model can do, filled from lists of words.

The lists are ours. The prompts that the engine is measured with (:mod:`minillm_serve.bench.prompts`) are held out, and
whatever says nearly the same: :func:`is_reserved` goes by their words. Prompts of their kinds are asked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache

from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.prompts import PROMPTS, SCHEMA_CASES
from minillm_serve.distill.templates import SENTENCES, STYLES, TEMPLATES, TEXTS
from minillm_serve.distill.words import WORDS

ALIKE = 0.75  # of the words of two prompts: as many in both as make them one
STYLED = 0.25  # share of the asks that may have a style and do
COUNTING = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip


@cache
def _reserved() -> tuple[frozenset[str], ...]:
    guided = (prompt for case in SCHEMA_CASES for prompt in case.prompts)
    prompts = (*PROMPTS, *guided, *(prompt.text for prompt in COPY_PROMPTS))
    return tuple(frozenset(key(prompt).split()) for prompt in prompts)


def key(prompt: str) -> str:
    """What two prompts share when they differ in case, spaces and punctuation only."""
    return " ".join(re.findall(r"\w+", prompt.casefold()))


def is_reserved(prompt: str) -> bool:
    """True for a prompt that the engine is measured with, or nearly: nothing is trained on its answers."""
    words = frozenset(key(prompt).split())
    return any(len(words & theirs) >= ALIKE * len(words | theirs) for theirs in _reserved())


def ask(rng: random.Random) -> str:
    """One filled template, at times with a wish about the style of the answer."""
    template = rng.choice(TEMPLATES)
    text = fill(template, rng)
    styled = rng.random() < STYLED and not re.search(r"[:\n'\"]|^Continue|\{(text|sentence|greeting)\}", template)
    return f"{text} {rng.choice(STYLES)}" if styled and text[-1] in ".?" else text


def fill(template: str, rng: random.Random) -> str:
    """The template with a word in the place of each ``{kind}``: of WORDS, or made by :data:`MAKERS`."""
    filled = re.sub(r"\{(\w+)\}", lambda match: _word(match[1], rng), template)
    return re.sub(r"\b([Aa]) (?=[aeiou](?!ni|se))", r"\1n ", filled)


def _word(kind: str, rng: random.Random) -> str:
    make = MAKERS.get(kind)
    return make(rng) if make else rng.choice(WORDS[kind])


def _sentence(rng: random.Random) -> str:
    return fill(rng.choice(SENTENCES), rng)


def _text(rng: random.Random) -> str:
    return fill(rng.choice(TEXTS), rng)


def _run(items: Sequence[str], least: int = 3) -> Callable[[random.Random], str]:
    """Makes the items that follow one another from a random one, at least ``least`` of them, with one to follow."""

    def make(rng: random.Random) -> str:
        length = rng.randint(least, min(6, len(items) - 1))
        start = rng.randrange(len(items) - length)
        return ", ".join(items[start : start + length])

    return make


def _arithmetic(rng: random.Random) -> str:
    start, step = rng.randint(0, 40), rng.choice((-2, -1, 1, 2, 3, 4, 5, 10, 20, 100))
    return ", ".join(str(start + step * i) for i in range(rng.randint(3, 6)))


def _geometric(rng: random.Random) -> str:
    start, factor = rng.randint(1, 5), rng.choice((2, 3, 10))
    return ", ".join(str(start * factor**i) for i in range(rng.randint(3, 5)))


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "digit": lambda rng: str(rng.randint(2, 9)),
    "number": lambda rng: str(rng.randint(10, 99)),
    "sentence": _sentence,
    "text": _text,
    "arithmetic": _arithmetic,
    "geometric": _geometric,
    "alphabet": _run(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
    "counting": _run(COUNTING),
    "months": _run(WORDS["month"]),
    "days": _run(WORDS["day"]),
    "planets": _run(("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")),
}

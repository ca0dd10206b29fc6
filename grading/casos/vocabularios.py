"""Hidden vocabularies, and the ways to cut one text into their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from minilab_grading.casos.esquemas import LETTERS, SPANISH
from minilab_grading.casos.lenguaje_json import published

SINGLE = LETTERS + SPANISH + "0123456789{}[]:,\"\\ '/CN`\n\t"
MERGED = (
    '{"',
    '":',
    '":"',
    '","',
    '"}',
    '"]',
    '["',
    "],[",
    "],",
    "[[",
    "]]",
    "}}",
    "]}",
    ":{",
    ':{"',
    "},",
    "{}",
    "[]",
)
MERGED += ('""', '",', ',"', '":[', '":{"', '"}}', '""}', ":0", "10", "99", "12", "00", "07", "999", "1,", "9]", ",2")
MERGED += ("true", "false", "tr", "ue", "fal", "se", "null", "nu", "ll", ":true", ":null", "null,", "true}", "alse,")
SYLLABLES = (
    "ción",
    "ñá",
    "é",
    "ú¿",
    "🙂🙂",
    "🚀🙂",
    "aé",
    "la",
    "os",
    "en",
    "qu",
    "ñ ",
    " de",
    "ar",
    "ab",
    "bc",
    "a b",
)
DISTRACTORS = ("```", "```json", "\n\n", '\n"', " {", "Claro: ", "NaN", "Infinity", "-1", "1.5", "0x", "True", "None")
DISTRACTORS += (
    "guided",
    "json",
    '\\"',
    "\\u00f1",
    "\\\\",
    "}}}",
    "]]]",
    "  ",
    "//",
    "\\n",
    '"""',
    "'",
    "\r",
    "{'",
    "e5",
)


def make_vocabulary(schema: dict[str, Any], rng: Random) -> tuple[tuple[str, ...], int]:
    """The texts of all tokens and the id of the end token, the only one without characters.

    Any document drawn for ``schema`` can be written with one character a token; the merges of its own names and values
    are there as well, whole and in part.
    """
    own: set[str] = set()
    for literal in _literals(schema):
        start = rng.randrange(1, len(literal)) if len(literal) > 1 else 0
        own |= {literal, literal[start:], literal[:start], *literal}
    pool = {*MERGED, *SYLLABLES, *DISTRACTORS} - own - set(SINGLE)
    pairs = {f"{n:02}" for n in rng.sample(range(100), 20)}
    chosen = {*SINGLE, *own, *pairs, *rng.sample(sorted(pool), 75)} - {""}
    texts = sorted(chosen)
    rng.shuffle(texts)
    end = rng.randrange(len(texts) + 1)
    return (*texts[:end], "", *texts[end:]), end


def _literals(schema: Any) -> list[str]:
    """Pieces that the schema dictates: names with their punctuation, and fixed values."""
    found: list[str] = []
    if isinstance(schema, list):
        return [piece for part in schema for piece in _literals(part)]
    if not isinstance(schema, dict):
        return found
    for name, content in schema.get("properties", {}).items():
        quoted = published(name) + ":"
        found += [name, quoted, "{" + quoted, "," + quoted, *_literals(content)]
    for value in [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]:
        found.append(published(value))
    for key in ("items", "anyOf"):
        found += _literals(schema.get(key))
    return found + _literals(list(schema.get("$defs", {}).values()))


def by_character(text: str, vocabulary: Sequence[str], rng: Random) -> list[int]:
    return [vocabulary.index(c) for c in text]


def longest_first(text: str, vocabulary: Sequence[str], rng: Random) -> list[int]:
    return _cut(text, vocabulary, lambda options: max(options, key=len))


def at_random(text: str, vocabulary: Sequence[str], rng: Random) -> list[int]:
    return _cut(text, vocabulary, rng.choice)


def _cut(text: str, vocabulary: Sequence[str], choose: Any) -> list[int]:
    numbers = {t: i for i, t in enumerate(vocabulary) if t}
    widest = max(map(len, numbers))
    tokens, place = [], 0
    while place < len(text):
        ends = range(place + 1, min(place + widest, len(text)) + 1)
        piece = choose([text[place:e] for e in ends if text[place:e] in numbers])
        tokens.append(numbers[piece])
        place += len(piece)
    return tokens

"""``python -m minilab.textos.ortografia`` lists, as ``file:line: word``, what a Spanish dictionary does not know.

The dictionary is simplemma's Spanish list (the extra ``test`` installs it; it works without a network). It is helped
by ``labs/diccionario.txt`` (terms and names of the course), by a rule for pronouns behind a verb, by one for ``-mente``
and ``-ísimo``, and by the words of ``labs/glosario.toml`` that lost their accent.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from minilab.textos.prosa import LABS, WORD, Piece, blank, everything, known, unaccented

WORDS = LABS / "diccionario.txt"
SHORTEST = 3
PRONOUN = re.compile(r"(?:me|te|se|nos|la|le|lo|las|les|los)$")


def unknown_words(pieces: Iterable[Piece], extra: frozenset[str] | None = None) -> Iterator[tuple[str, str]]:
    """Each misspelled (or new) word, as its ``file:line`` and the word. extra: default :func:`project_words`."""
    extra = project_words() if extra is None else extra
    for piece in pieces:
        for found in WORD.finditer(blank(piece.text)):
            word = found[0]
            if not (word in extra or word.lower() in extra or is_spanish(word)):
                yield piece.place(found.start()), word


def project_words(path: Path = WORDS) -> frozenset[str]:
    """Terms and names of the course; one with a capital letter is taken only as it is written."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


@cache
def is_spanish(word: str) -> bool:
    low = word.lower()
    if len(low) < SHORTEST:
        return True
    if low in unaccented():
        return False
    return known(word, "es") or _with_pronouns(low) or _is_derived(low)


def _is_derived(word: str) -> bool:
    """``localmente``, ``cortísimos``."""
    if word.endswith("mente"):
        return known(word.removesuffix("mente"), "es")
    base = re.sub(r"u?ísim([oa])s?$", r"\1", word)
    return base != word and (known(base, "es") or known(re.sub("q(?=.$)", "c", base), "es"))


def _with_pronouns(word: str) -> bool:
    """``verlo``, ``decírselo``, ``guárdala``, ``hazlo``: a known verb form and one or two pronouns behind it.

    Only an infinitive or a verb of one syllable keeps no written accent, and with one pronoun alone.
    """
    for pronouns in (1, 2):
        found = PRONOUN.search(word if pronouns == 1 else PRONOUN.sub("", word))
        if not found:
            return False
        stem = found.string[: found.start()]
        plain = _without_accents(stem)
        if pronouns == 1 and known(stem, "es") and (stem[-1:] == "r" or len(re.findall("[aeiouáéíóú]+", stem)) == 1):
            return len(stem) > 1
        last = re.sub(r"([aeiou])(?=[^aeiou]*$)", lambda v: unicodedata.normalize("NFC", v[0] + "\u0301"), plain)
        if stem != plain and len(plain) > 2 and (known(plain, "es") or known(last, "es")):
            return True
    return False


def _without_accents(word: str) -> str:
    parts = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", parts.replace("\u0301", ""))


def used_words(pieces: Iterable[Piece]) -> frozenset[str]:
    """Every word of the prose, as it is written and in small letters."""
    words = [found[0] for piece in pieces for found in WORD.finditer(blank(piece.text))]
    return frozenset(words) | frozenset(word.lower() for word in words)


def unneeded_words(pieces: Iterable[Piece]) -> list[str]:
    """Entries of the project's list that no text uses, or that the dictionary knows by itself."""
    used = used_words(pieces)
    return sorted(word for word in project_words() if word not in used or is_spanish(word))


def main() -> int:
    pieces = everything()
    found = list(unknown_words(pieces))
    for place, word in found:
        print(f"{place}: {word}")
    for word in unneeded_words(pieces):
        print(f"labs/{WORDS.name}: {word} sobra")
    if found:
        print("\n" + ", ".join(f"{word} ({times})" for word, times in Counter(w for _, w in found).most_common()))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

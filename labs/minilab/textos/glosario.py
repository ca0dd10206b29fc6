"""``python -m minilab.textos.glosario`` writes ``labs/glosario.md`` from ``labs/glosario.toml`` and lints the prose.

``--check`` writes nothing. Either way the exit code is 1 when a text uses a form that the glossary replaces.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minilab.textos.prosa import GLOSSARY, LABS, Piece, blank, everything

SOURCE, PAGE = GLOSSARY, LABS / "glosario.md"
HEAD = """\
<!-- Este archivo lo escribe «python -m minilab.textos.glosario» a partir de labs/glosario.toml: no lo edites. -->

# Glosario

Un nombre para cada cosa, en los cuadernos, en las páginas y en las diapositivas. Los términos que el oficio usa en
inglés se quedan en inglés.

| Término | En inglés | Qué es | No uses |
|---|---|---|---|
"""
TAIL = """
## El tono

Hablamos de *tú*, en voz activa y con frases cortas.

| Escribe | En lugar de | Por qué |
|---|---|---|
"""


@dataclass(frozen=True)
class Rule:
    """A form to avoid, and what to write. initial: only at the head of a sentence, with its capital."""

    form: str
    better: str
    initial: bool = False


def read(path: Path = SOURCE) -> dict:
    """The whole of ``glosario.toml``."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def rules(path: Path = SOURCE) -> dict[str, Rule]:
    """Form in small letters -> its rule."""
    data = read(path)
    found = [Rule(form, entry["es"]) for entry in data["termino"] for form in entry["evita"]]
    for entry in data["estilo"]:
        initial = entry.get("inicial", False)
        found += [Rule(form, f"{entry['mejor']} ({entry['motivo']})", initial) for form in entry["evita"]]
    return {rule.form.lower(): rule for rule in found}


@cache
def _pattern(forms: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    choices = "|".join(r"\s+".join(map(re.escape, form.split())) for form in longest_first)
    return re.compile(rf"(?<![\w-])(?:{choices})(?![\w-])", re.IGNORECASE)


def lint(pieces: Iterable[Piece], given: dict[str, Rule] | None = None) -> Iterator[tuple[str, str, str]]:
    """Each form to avoid: its ``file:line``, the form as written, and what to write. A form may break over a line."""
    known = rules() if given is None else given
    pattern = _pattern(frozenset(known))
    names = _pattern(frozenset(read()["nombres"]))
    for piece in pieces:
        prose = blank(names.sub(lambda name: re.sub(r"\S", " ", name[0]), piece.text))
        for found in pattern.finditer(prose):
            form = " ".join(found[0].split())
            rule = known[form.lower()]
            if not rule.initial or form[0].isupper():
                yield piece.place(found.start()), form, rule.better


def lintable() -> list[Piece]:
    """All the prose but the glossary's own page, which names what it replaces."""
    return [piece for piece in everything() if Path(piece.file).name != PAGE.name]


def page(path: Path = SOURCE) -> str:
    """The Markdown page of the glossary, in alphabetical order."""
    data = read(path)
    terms = sorted(data["termino"], key=lambda entry: unicodedata.normalize("NFD", entry["es"].lower()))
    rows = [f"| **{t['es']}** | *{t['en']}* | {t['definicion']} | {_avoid(t['evita'])} |\n" for t in terms]
    tone = [f"| {s['mejor']} | {_avoid(s['evita'][:6])} | {s['motivo']} |\n" for s in data["estilo"]]
    return HEAD + "".join(rows) + TAIL + "".join(tone)


def _avoid(forms: Sequence[str]) -> str:
    return ", ".join(f"`{form}`" for form in forms) or "–"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minilab.textos.glosario", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args(arguments)
    stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page()
    if stale and not options.check:
        PAGE.write_text(page(), encoding="utf-8")
        print(f"written: {PAGE.name}")
    findings = list(lint(lintable()))
    for place, form, better in findings:
        print(f"{place}: {form} → {better}")
    return 1 if findings or (stale and options.check) else 0


if __name__ == "__main__":
    sys.exit(main())

"""The page of errata says what the coverage matrix says, and what it names exists."""

from __future__ import annotations

import re
import tomllib
from functools import cache

import pytest

from minilab import construir
from minilab.pruebas.publicas import CHECKS
from minillm_serve.cli import main

ERRATA = tomllib.loads((construir.LABS / "cobertura.toml").read_text(encoding="utf-8"))["errata"]
PAGE = (construir.LABS / "erratas.md").read_text(encoding="utf-8")
NOW, NUANCED, LATER = (
    [line for line in part.splitlines() if line.startswith("| ")] for part in PAGE.split("\n## ")[1:4]
)
SOURCES = {source.stem.split("_")[0]: source for source in construir.sources()}


def number_of(erratum: dict) -> str:
    return erratum["id"].removeprefix("errata-")


def row_of(rows: list[str], number: str) -> list[str]:
    [row] = [row for row in rows if row.startswith(f"| {number} |")]
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def labs_in(text: str) -> set[str]:
    """«Labs 0 y 2 y proyecto P» -> L00, L02, P."""
    numbers = re.findall(r"\d+", re.sub(r"`[^`]*`", "", text))
    return {f"L{int(n):02d}" for n in numbers} | ({"P"} if "proyecto P" in text else set())


@cache
def tags_of(lab: str) -> set[str]:
    return {tag for cell in construir.instructor(SOURCES[lab]).cells for tag in cell.metadata.get("tags", [])}


@pytest.mark.parametrize("erratum", [e for e in ERRATA if e["ahora"]], ids=lambda e: e["id"])
def test_what_is_discovered_now_names_its_labs_its_cell_and_a_way_to_see_it(erratum):
    *_, where, how = row_of(NOW, number_of(erratum))
    assert labs_in(where) == set(erratum["ahora"]) and f"`{erratum['id']}`" in where
    assert all(erratum["id"] in tags_of(lab) for lab in erratum["ahora"] if lab in SOURCES)
    assert "`" in how


@pytest.mark.parametrize("erratum", [e for e in ERRATA if not e["ahora"]], ids=lambda e: e["id"])
def test_what_comes_later_says_where(erratum):
    where = row_of(LATER, number_of(erratum))[-1]
    assert labs_in(where.split(" y diapositivas")[0]) == {place for place in erratum["luego"] if place[0] == "L"}
    assert all(place in where for place in erratum["luego"] if place[0] == "S")


def test_every_row_has_its_cells_and_no_erratum_is_told_twice():
    for rows, width in ((NOW, 6), (NUANCED, 4), (LATER, 5)):
        assert {len(row.strip("|").split(" | ")) for row in rows[1:]} == {width}
    numbers = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert sorted(map(int, numbers)) == list(range(1, 18))


def test_the_checks_and_the_tags_that_are_named_exist():
    last = [row.strip("|").split(" | ")[-1] for row in (*NOW[1:], *NUANCED[1:])]
    named = {name for cell in last for name in re.findall(r"`([a-z_]+)`", cell)}
    assert named - {"async"} <= set(CHECKS), named - set(CHECKS)
    for row in NUANCED[1:]:
        where = row.strip("|").split(" | ")[-2]
        for tag in re.findall(r"`((?:cubre|errata)-[\w-]+)`", where):
            assert all(tag in tags_of(lab) for lab in labs_in(where) if lab in SOURCES), (tag, where)


def test_our_server_answers_the_options_of_yesterday_with_those_of_today(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "smollm2-135m", "--speculative-model", "X"])
    said = capsys.readouterr().err
    assert "--speculative-config" in said and "num_speculative_tokens" in said

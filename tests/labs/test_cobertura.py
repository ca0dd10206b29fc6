"""Every point of the seed notes is taught where the coverage matrix says, and nowhere is it only a heading."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from functools import cache

import pytest

from minilab import construir

MATRIX = tomllib.loads((construir.LABS / "cobertura.toml").read_text(encoding="utf-8"))
ENTRIES = [*MATRIX["fila"], *MATRIX["errata"]]
PLANNED = [*(f"L{n:02d}" for n in range(13)), "P"]
LATER = {"L06", "L10", "L11", "L12", "S1", "S2", "S3", "S4", "S5", "README", "docs"}
SOURCES = {source.stem.split("_")[0]: source for source in construir.sources()}
SHORTEST_TEXT = 80


def tag_of(entry: dict) -> str:
    return entry["id"] if entry["id"].startswith("errata-") else f"cubre-{entry['id']}"


TAGS = {tag_of(entry): entry for entry in ENTRIES}


@cache
def cells_of(lab: str) -> list:
    return construir.instructor(SOURCES[lab]).cells


def tags_of(cell) -> list[str]:
    return [tag for tag in cell.metadata.get("tags", []) if tag.startswith(("cubre-", "errata-"))]


def prose(cell) -> str:
    """What a cell says below its headings."""
    lines = [
        line
        for line in cell.source.splitlines()
        if not re.match(r"#+ " if cell.cell_type == "markdown" else "# ", line)
    ]
    return "\n".join(lines).strip()


def test_the_matrix_is_well_formed():
    assert [i for i, times in Counter(entry["id"] for entry in ENTRIES).items() if times > 1] == []
    assert [e["id"] for e in MATRIX["errata"]] == [f"errata-{n}" for n in range(1, 18)]
    for entry in ENTRIES:
        assert re.fullmatch(r"[A-Za-z0-9-]+", entry["id"]), entry["id"]
        assert set(entry["ahora"]) <= set(PLANNED) - LATER, f"{entry['id']}: {entry['ahora']}"
        assert set(entry["luego"]) <= LATER, f"{entry['id']}: {entry['luego']}"
        assert entry["ahora"] or entry["luego"], f"{entry['id']} is covered nowhere"


def test_every_seed_document_has_its_rows():
    assert Counter(row["id"].split("-")[0] for row in MATRIX["fila"]).keys() == set("ABCDE")
    assert all(row["apuntes"] == row["id"].split("-")[0] and len(row["semilla"]) > 20 for row in MATRIX["fila"])


@pytest.mark.parametrize("tag", TAGS)
def test_a_row_is_taught_in_every_lab_it_names(tag):
    missing = []
    for lab in TAGS[tag]["ahora"]:
        if lab in SOURCES and not any(len(prose(c)) >= SHORTEST_TEXT for c in cells_of(lab) if tag in tags_of(c)):
            missing.append(SOURCES[lab].name)
    assert missing == [], f"no cell tagged {tag} that says more than a heading in: {missing}"


@pytest.mark.parametrize("lab", SOURCES)
def test_a_lab_carries_no_tag_that_the_matrix_does_not_give_it(lab):
    found = {tag for cell in cells_of(lab) for tag in tags_of(cell)}
    assert found <= set(TAGS), f"{SOURCES[lab].name}: unknown tags {sorted(found - set(TAGS))}"
    strays = {tag for tag in found if lab not in TAGS[tag]["ahora"] + TAGS[tag]["luego"]}
    assert strays == set(), f"{SOURCES[lab].name}: cobertura.toml does not name this lab for {sorted(strays)}"


def test_the_labs_that_exist_are_planned():
    assert set(SOURCES) <= set(PLANNED)

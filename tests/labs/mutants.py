"""A lab under test: its solution holds in every hidden case, and each wrong answer is caught where its page says.

Hidden cases are judged in this process; a lab whose answers may take it with them gives its own way (see lab 4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from nbformat import NotebookNode

from minilab.comprobar import CheckFailed, _call, comprobar
from minilab.pruebas.casos import Check, Result, judge_case, play_case
from minilab.pruebas.publicas import checks_of
from minilab.pruebas.remoto import LocalRemote
from minilab_grading.casos import cases_of

PAGES = Path(__file__).resolve().parents[2] / "labs" / "docentes"


@dataclass(frozen=True)
class Mutant:
    """A wrong answer of the instructor page: the solution of ``check`` with ``right`` replaced by ``wrong``.

    told: what the page calls it. hidden: only the hidden cases catch it.
    """

    check: str
    told: str
    right: str
    wrong: str
    hidden: bool = False

    def __str__(self) -> str:
        return f"{self.check}: {self.told}"


def solution_cells(notebook: NotebookNode) -> dict[str, str]:
    code = [c for c in notebook.cells if c.cell_type == "code"]
    return {c.metadata.nbgrader.grade_id: c.source for c in code if c.metadata.get("nbgrader", {}).get("solution")}


def names_of(lab: str, *sources: str) -> dict:
    """What the grader's worker would hold after these cells."""
    prelude, imports, _ = cases_of(lab, 0)
    names: dict = {}
    exec(prelude + "".join(f"import {m}\n" for m in imports), names)
    for source in sources:
        exec(source, names)
    return names


def results(check: Check, names: dict) -> list[Result]:
    return [
        play_case(case, LocalRemote(names)) if case.play else judge_case(case, _call(case, names[check.function]))
        for case in check.cases
    ]


def hidden_check(lab: str, name: str, seed: int) -> Check:
    return next(check for check in cases_of(lab, seed)[2].values() if check.name == name)


def page_rows(lab: str) -> dict[tuple[str, str], str]:
    """(check, wrong answer) -> what the page says catches it."""
    page = (PAGES / f"{lab[:3]}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+? \| ([^|]*`(\w+)`[^|]*) \|$", page, re.MULTILINE)
    return {(check, answer): where for answer, where, check in rows}


def passed(check: Check, names: dict) -> list[bool]:
    """Whether each case passes."""
    return [result.passed for result in results(check, names)]


def assert_solution_passes(
    lab: str, cells: dict[str, str], seeds: Iterable[int], build: Callable[..., dict] | None = None
) -> None:
    """Every hidden case of every check. build: from sources to names; :func:`names_of` if None."""
    build = build or partial(names_of, lab)
    for seed in seeds:
        for check in cases_of(lab, seed)[2].values():
            found = results(check, build(*(cells[c] for c in check.cells)))
            assert [r for r in found if not r.passed] == [], (seed, check.name)


def assert_caught(
    lab: str,
    cells: dict[str, str],
    mutant: Mutant,
    seeds: Iterable[int] = (3,),
    build: Callable[..., dict] | None = None,
    judge: Callable[[Check, dict], list[bool]] = passed,
) -> None:
    """A hidden case of each seed catches it; the public check too, with a hint, unless the mutant is a hidden one."""
    check = checks_of(lab[:3].lower())[mutant.check]
    *before, own = (cells[c] for c in check.cells)
    assert mutant.right in own, "the solution changed: this mutant is no longer a change of it"
    names = (build or partial(names_of, lab))(*before, own.replace(mutant.right, mutant.wrong))
    if mutant.hidden:
        assert "superadas" in repr(comprobar(mutant.check, names[check.function]))
    else:
        with pytest.raises(CheckFailed, match=f"✘ {mutant.check}(.|\n)*pista:"):
            comprobar(mutant.check, names[check.function])
    for seed in seeds:
        assert not all(judge(hidden_check(lab, mutant.check, seed), names)), f"no hidden case of seed {seed} catches it"


def assert_page_names_each(lab: str, mutants: list[Mutant]) -> None:
    """The instructor page lists these wrong answers and no others, and says truly what catches each."""
    told = {(m.check, m.told): f"`{m.check}`, {'oculta' if m.hidden else 'pública'}" for m in mutants}
    assert page_rows(lab) == told

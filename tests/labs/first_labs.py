"""Labs 0 and 1 under test: their solution cells, their hidden cases in this process, and mutants of a solution."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from minilab.comprobar import _call
from minilab.pruebas.casos import Check, Result, judge_case, play_case
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

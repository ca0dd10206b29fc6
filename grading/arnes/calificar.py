"""Grade a notebook: sources of its solution cells in, verdicts out. Works without nbgrader's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from minilab.casos import Check, Result, judge_case
from minilab_grading.arnes.aislamiento import Isolation, choose_isolation
from minilab_grading.arnes.sesion import Session, WorkerDied
from minilab_grading.casos import cases_of

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class CheckMark:
    """Verdict of one check: ``fraction`` in [0, 1] of its cases passed; ``notice`` when its cells did not even load."""

    results: tuple[Result, ...]
    notice: str = ""

    @property
    def fraction(self) -> float:
        return sum(r.passed for r in self.results) / len(self.results)


@dataclass(frozen=True)
class Grading:
    """isolation: the rung used. checks: grade id of each check cell -> its verdict."""

    isolation: str
    checks: dict[str, CheckMark]


def grade(
    notebook: NotebookNode,
    name: str,
    seed: int,
    hidden: Sequence[Path] = (),
    allow_unisolated: bool = False,
) -> Grading:
    """Grade ``notebook``, an instance of the lab called ``name``, with the hidden cases drawn by ``seed``.

    hidden: more folders that the student's code must not see (the course root). Raises ``NoIsolation`` and, for
    a lab without hidden cases, KeyError.
    """
    prelude, imports, checks = cases_of(name, seed)
    isolation = choose_isolation([*teacher_folders(), *hidden], allow_unisolated)
    sources = sources_of(notebook)
    marks = {grade_id: grade_check(p, sources, prelude, imports, isolation) for grade_id, p in checks.items()}
    return Grading(isolation.level, marks)


def teacher_folders() -> list[Path]:
    """Hidden cases, reference solutions and the history that holds both."""
    return [ROOT / "grading", ROOT / "labs" / "fuente", ROOT / ".git", Path(__file__).resolve().parents[1]]


def sources_of(notebook: NotebookNode) -> dict[str, str]:
    """Grade id -> source of each solution code cell; the first one where a student duplicated a cell."""
    sources: dict[str, str] = {}
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and meta.get("solution") and meta.get("grade_id"):
            sources.setdefault(meta["grade_id"], cell.source)
    return sources


def grade_check(
    check: Check, sources: dict[str, str], prelude: str, imports: Sequence[str], isolation: Isolation
) -> CheckMark:
    if missing := [c for c in check.cells if c not in sources]:
        return _all_wrong(check, f"falta la celda {', '.join(missing)}")
    cells = [(c, sources[c]) for c in check.cells]
    cells.insert(0, ("preparacion", prelude + _imports(cells, imports)))
    results: list[Result] = []
    try:
        with Session(isolation) as session:
            loaded = session.load(cells)
            if loaded.error:
                return _all_wrong(check, f"la celda no se ejecuta: {loaded.error}: {loaded.message}")
            for case in check.cases:
                results.append(judge_case(case, session.call(check.function, case)))
    except WorkerDied as error:
        rest = [Result(c.name, False, hint=c.hint) for c in check.cases[len(results) :]]
        return CheckMark((*results, *rest), notice=str(error))
    return CheckMark(tuple(results))


def _imports(cells: list[tuple[str, str]], imports: Sequence[str]) -> str:
    """The slow imports of the notebook's preparation, only where a cell names them."""
    return "".join(f"import {m}\n" for m in imports if any(m in code for _, code in cells))


def _all_wrong(check: Check, notice: str) -> CheckMark:
    return CheckMark(tuple(Result(c.name, False, hint=c.hint) for c in check.cases), notice)

"""Grade a notebook: sources of its solution cells in, verdicts out. Works without nbgrader's database.

Two passes. The untimed one needs no quiet machine, so that many submissions go through it side by side; the timed one
runs the checks of the real clock and of vLLM, one submission at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from nbformat import NotebookNode

from minilab.pruebas.casos import Check, Result, judge_case, missed, play_case
from minilab_grading.arnes.aislamiento import Isolation, choose_isolation
from minilab_grading.arnes.celdas import cells_for, sources_of
from minilab_grading.arnes.sesion import Session, WorkerDied
from minilab_grading.casos import cases_of

ROOT = Path(__file__).resolve().parents[2]
NOT_MEASURED = "todavía no se ha medido"


@dataclass(frozen=True)
class CheckMark:
    """Verdict of one check: ``fraction`` in [0, 1] of the weight of its cases.

    notice: why cases were not reached, in Spanish. measures: the timings that a meter took, for the record; grading
    again with them gives the same verdict.
    """

    results: tuple[Result, ...]
    notice: str = ""
    measures: dict[str, Any] | None = None

    @property
    def fraction(self) -> float:
        return sum(r.credit * r.weight for r in self.results) / sum(r.weight for r in self.results)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> CheckMark:
        return cls(tuple(Result(**r) for r in plain["results"]), plain["notice"], plain["measures"])


@dataclass(frozen=True)
class Grading:
    """isolation: the rung used. checks: grade id of each check cell -> its verdict."""

    isolation: str
    checks: dict[str, CheckMark] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Grading:
        return cls(plain["isolation"], {k: CheckMark.from_plain(v) for k, v in plain["checks"].items()})


@dataclass(frozen=True)
class MeterJob:
    """What a meter measures. open_session: a fresh worker with the check's cells loaded (raises :class:`LoadError`).

    untimed: the verdicts of the ordinary checks, by grade id. measures: those of an earlier grading of the same
    submission, to be judged instead of measuring again.
    """

    check: Check
    seed: int
    open_session: Callable[[], AbstractContextManager[Session]]
    untimed: Mapping[str, CheckMark]
    measures: dict[str, Any] | None = None


class Meter(Protocol):
    def measure(self, job: MeterJob) -> CheckMark:
        """Measure and judge. Raises :class:`LoadError` and ``WorkerDied`` for what the student's code does."""


class LoadError(RuntimeError):
    """The student's cells do not run; the message is for the student."""


def grade_untimed(
    notebook: NotebookNode,
    name: str,
    seed: int,
    hidden: Sequence[Path] = (),
    allow_unisolated: bool = False,
    isolation: Isolation | None = None,
) -> Grading:
    """Grade the ordinary checks of ``notebook``, an instance of the lab called ``name``, with the cases of ``seed``.

    The others are marked as not measured yet. hidden: more folders that the student's code must not see (the course
    root). isolation: the one that was chosen for them before (None: it is chosen, and tried, here). Raises
    ``NoIsolation`` and, for a lab without hidden cases, KeyError.
    """
    prelude, imports, checks = cases_of(name, seed)
    isolation = isolation or choose_isolation([*teacher_folders(), *hidden], allow_unisolated)
    marks = {}
    for grade_id, check in checks.items():
        if check.level:
            marks[grade_id] = all_missed(check, NOT_MEASURED)
        else:
            marks[grade_id] = grade_check(check, notebook, prelude, imports, isolation)
    return Grading(isolation.level, marks)


def grade_timed(
    notebook: NotebookNode,
    name: str,
    seed: int,
    grading: Grading,
    meters: Mapping[str, Meter],
    hidden: Sequence[Path] = (),
    allow_unisolated: bool = False,
) -> Grading:
    """The checks of the levels in ``meters``, added to what :func:`grade_untimed` found; the machine must be quiet.

    A check with measures in ``grading`` is judged by them again, not measured again.
    """
    prelude, imports, checks = cases_of(name, seed)
    isolation = choose_isolation([*teacher_folders(), *hidden], allow_unisolated)
    marks = dict(grading.checks)
    for grade_id, check in checks.items():
        if check.level not in meters:
            continue

        def open_session(check: Check = check) -> AbstractContextManager[Session]:
            return loaded_session(check, notebook, prelude, imports, isolation)

        job = MeterJob(check, seed, open_session, grading.checks, marks[grade_id].measures)
        try:
            marks[grade_id] = meters[check.level].measure(job)
        except (LoadError, WorkerDied) as error:
            marks[grade_id] = all_missed(check, str(error))
    return replace(grading, checks=marks)


def teacher_folders() -> list[Path]:
    """Hidden cases, reference solutions and the history that holds both."""
    return [ROOT / "grading", ROOT / "labs" / "fuente", ROOT / ".git", Path(__file__).resolve().parents[1]]


def grade_check(
    check: Check, notebook: NotebookNode, prelude: str, imports: Sequence[str], isolation: Isolation
) -> CheckMark:
    """One ordinary check, in a worker of its own; a worker that dies loses the cases not reached, no other check."""
    results: list[Result] = []
    try:
        with loaded_session(check, notebook, prelude, imports, isolation) as session:
            for case in check.cases:
                if case.play is not None:
                    results.append(play_case(case, session.remote()))
                else:
                    results.append(judge_case(case, session.call(check.function, case)))
    except LoadError as error:
        return all_missed(check, str(error))
    except WorkerDied as error:
        return CheckMark((*results, *(missed(c) for c in check.cases[len(results) :])), notice=str(error))
    return CheckMark(tuple(results))


@contextlib.contextmanager
def loaded_session(
    check: Check, notebook: NotebookNode, prelude: str, imports: Sequence[str], isolation: Isolation
) -> Iterator[Session]:
    """A fresh worker with the cells that ``check`` needs. Raises :class:`LoadError`, ``WorkerDied``."""
    sources = sources_of(notebook)
    if absent := [c for c in check.cells if c not in sources]:
        raise LoadError(f"falta la celda {', '.join(absent)}")
    with Session(isolation) as session:
        loaded = session.load(cells_for(check, notebook, prelude, imports))
        if loaded.error:
            raise LoadError(f"la celda no se ejecuta: {loaded.error}: {loaded.message}")
        yield session


def all_missed(check: Check, notice: str) -> CheckMark:
    return CheckMark(tuple(missed(c) for c in check.cases), notice)

"""From attempts to one graded submission per student: new ones in parallel, meters one by one, the best attempt."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbgrader import utils

from minilab_grading.arnes.aislamiento import Isolation, NoIsolation, choose_isolation
from minilab_grading.arnes.calificar import Meter, grade_timed, teacher_folders
from minilab_grading.casos import cases_of
from minilab_grading.curso import CycleError, intentos
from minilab_grading.curso.carpeta import read_settings, write_atomic
from minilab_grading.curso.intentos import Attempt, Verdict, read_verdict, turns, with_measured, write_verdict
from minilab_grading.curso.paralelo import LIMIT_S, Job, grade_all
from minilab_grading.curso.plazos import penalty, seconds_late
from minilab_grading.registro import harness, seed_of

CHOSEN = "elegido.json"
STAMP = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True)
class Options:
    """processes: submissions graded side by side. meters: level -> meter. again: also what has a verdict.

    unlimited: do not make attempts wait for their turn. limit_s: wall-clock seconds for one submission.
    """

    processes: int = os.cpu_count() or 1  # a submission and its worker take turns: one core
    meters: Mapping[str, Meter] = field(default_factory=dict)
    again: bool = False
    unlimited: bool = False
    limit_s: float = LIMIT_S


@dataclass
class Summary:
    """What a run did, by student. waiting: attempts whose turn has not come. problems: what a person must look at."""

    graded: list[Attempt] = field(default_factory=list)
    waiting: list[tuple[Attempt, datetime]] = field(default_factory=list)
    chosen: dict[str, Attempt] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def key_of(root: Path, attempt: Attempt) -> str:
    """Names a verdict: another submission, seed, or version of harness and cases is another key."""
    seed = seed_of(root, attempt.student, attempt.assignment)
    parts = [attempt.sha256, seed, harness(attempt.assignment)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def maxima_of(released: Path) -> dict[str, float]:
    """Grade id -> points of each automatic check of the release."""
    cells = nbformat.read(released, 4).cells
    return {
        c.metadata.nbgrader.grade_id: float(c.metadata.nbgrader.points)
        for c in cells
        if utils.is_grade(c) and not utils.is_solution(c)
    }


class Run:
    """One grading run over the attempts of one assignment; :meth:`start` does it all but the gradebook."""

    def __init__(
        self,
        root: Path,
        assignment: str,
        options: Options,
        unisolated: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.root, self.assignment, self.options, self.say = root, assignment, options, say
        self.unisolated = unisolated
        self.settings = read_settings(root).of(assignment)
        self.released = root / "release" / assignment / f"{assignment}.ipynb"
        if not self.released.is_file():
            raise CycleError(f"Falta el cuaderno publicado de {assignment}: ejecuta antes «generar {assignment}».")
        self.maxima = maxima_of(self.released)
        self.summary = Summary()

    def start(self, student: str, now: datetime) -> Summary:
        by_student: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in intentos.attempts(self.root, self.assignment, student):
            by_student[attempt.student].append(attempt)
        due = [a for attempts in by_student.values() for a in self._in_turn(attempts, now)]
        self._grade(due)
        for name, attempts in sorted(by_student.items()):
            self._measure([a for a in attempts if a in due])
            self._choose(name, [a for a in attempts if a in due])
        return self.summary

    def _in_turn(self, attempts: list[Attempt], now: datetime) -> list[Attempt]:
        limit = 0 if self.options.unlimited else self.settings.attempts_per_day
        when = dict(zip(attempts, turns([a.when for a in attempts], limit), strict=True))
        self.summary.waiting += [(a, t) for a, t in when.items() if t > now and t > a.when]
        return [a for a, t in when.items() if t <= now or t == a.when]

    def _verdict(self, attempt: Attempt) -> Verdict | None:
        return read_verdict(attempt.folder, key_of(self.root, attempt))

    def _grade(self, attempts: list[Attempt]) -> None:
        verdicts = {a: self._verdict(a) for a in attempts}
        new = [a for a, v in verdicts.items() if v is None or v.provisional or self.options.again]
        if not new:
            return
        try:
            isolation = choose_isolation([*teacher_folders(), self.root], self.unisolated)
        except NoIsolation as error:
            raise CycleError(str(error)) from None
        jobs = {self._job(a, isolation): a for a in new}
        earlier = {a: intentos.latest_verdict(a.folder) for a in new}

        def done(job: Job, verdict: Verdict) -> None:
            self.say(f"{jobs[job].student}: {verdict.problem or 'calificada'}")

        verdicts = grade_all(jobs, self.options.processes, self.options.limit_s, done)
        for attempt in new:
            if verdicts[attempt.folder].problem:
                self.summary.problems.append((attempt.student, verdicts[attempt.folder].problem))
            self._keep_measures(attempt, earlier[attempt])
        self.summary.graded += new

    def _job(self, attempt: Attempt, isolation: Isolation) -> Job:
        seed = seed_of(self.root, attempt.student, self.assignment)
        key = key_of(self.root, attempt)
        return Job(attempt.folder, self.released, self.assignment, seed, key, self.root, isolation, self.unisolated)

    def _keep_measures(self, attempt: Attempt, earlier: Verdict | None) -> None:
        """What a meter measured before stays where this run has no meter to measure it again."""
        new = self._verdict(attempt)
        if earlier is None or new.problem or new.provisional or new.fingerprint != earlier.fingerprint:
            return
        _, _, checks = cases_of(self.assignment, seed_of(self.root, attempt.student, self.assignment))
        unmetered = {n for n, check in checks.items() if check.level not in self.options.meters}
        write_verdict(attempt.folder, replace(new, grading=with_measured(new.grading, earlier.grading, unmetered)))

    def _points(self, attempt: Attempt, verdict: Verdict, assume: set[str] = frozenset()) -> float:
        points = verdict.points(self.maxima, assume)
        return points - penalty(points, seconds_late(attempt.when, self.settings), self.settings)

    def _measure(self, attempts: list[Attempt]) -> None:
        """Run the meters on the attempts that could still be the best one, the most promising first."""
        seed = seed_of(self.root, attempts[0].student, self.assignment) if attempts else 0
        levels = {n: c.level for n, c in cases_of(self.assignment, seed)[2].items()}
        verdicts = {a: self._verdict(a) for a in attempts}
        todo = {
            a: v
            for a, v in verdicts.items()
            if not v.problem and any(levels[n] in self.options.meters for n in v.pending)
        }
        hopes = {a: self._points(a, v, v.pending) for a, v in todo.items()}
        for attempt in sorted(todo, key=lambda a: (-hopes[a], a.when)):
            best = max(self._points(a, v) for a, v in verdicts.items())
            if hopes[attempt] < best:
                continue
            self.say(f"{attempt.student}: midiendo…")
            verdicts[attempt] = self._measured(attempt, todo[attempt], seed)

    def _measured(self, attempt: Attempt, verdict: Verdict, seed: int) -> Verdict:
        notebook = nbformat.read(attempt.folder / intentos.REBUILT, 4)
        arguments = (notebook, self.assignment, seed, verdict.grading, self.options.meters)
        try:
            grading = grade_timed(*arguments, [self.root], self.unisolated)
        except Exception as error:
            text = f"no se pudo medir ({type(error).__name__}: {error}); repite «calificar» para intentarlo otra vez"
            self.summary.problems.append((attempt.student, text))
            return verdict
        measured = replace(verdict, grading=grading)
        write_verdict(attempt.folder, measured)
        return measured

    def _choose(self, student: str, attempts: list[Attempt]) -> None:
        """The most points after the penalty, then what could be read, then more written answers, then the earliest."""
        if not attempts:
            return
        verdicts = {a: self._verdict(a) for a in attempts}
        ranks = {a: (self._points(a, v), not v.problem, v.written) for a, v in verdicts.items()}
        best = max(attempts, key=lambda a: (*ranks[a], -a.when.timestamp()))
        self.summary.chosen[student] = best
        if self._place(best, verdicts[best]):
            self.summary.changed.append(student)

    def _place(self, attempt: Attempt, verdict: Verdict) -> bool:
        """Put the attempt into ``submitted/``. Returns whether the gradebook does not have this verdict yet."""
        folder = self.root / "submitted" / attempt.student / self.assignment
        notebook = self.released if verdict.problem else attempt.folder / intentos.REBUILT
        data = notebook.read_bytes()
        write_atomic(folder / f"{self.assignment}.ipynb", data)
        write_atomic(folder / "timestamp.txt", f"{attempt.when:{STAMP}}\n".encode())
        result = intentos.verdict_path(attempt.folder, verdict.key).read_bytes()
        chosen = {
            "intento": attempt.folder.name,
            "puesto": hashlib.sha256(data).hexdigest(),
            "resultado": hashlib.sha256(result).hexdigest(),
        }
        graded = self.root / "autograded" / attempt.student / self.assignment / f"{self.assignment}.ipynb"
        earlier = read_chosen(self.root, self.assignment, attempt.student)
        changed = earlier != {**chosen, "en_libro": True} or not graded.is_file()
        _write_chosen(self.root, attempt, {**chosen, "en_libro": not changed})
        return changed


def read_chosen(root: Path, assignment: str, student: str) -> dict[str, Any]:
    """Which attempt stands in ``submitted/``, with what bytes and verdict, and whether the gradebook has it."""
    path = root / "intentos" / assignment / student / CHOSEN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def confirm(root: Path, attempt: Attempt) -> None:
    """The gradebook now holds the verdict of ``attempt``."""
    chosen = read_chosen(root, attempt.assignment, attempt.student)
    _write_chosen(root, attempt, {**chosen, "en_libro": True})


def _write_chosen(root: Path, attempt: Attempt, chosen: dict[str, Any]) -> None:
    path = root / "intentos" / attempt.assignment / attempt.student / CHOSEN
    write_atomic(path, (json.dumps(chosen, indent=1) + "\n").encode())


def adopt(root: Path, assignment: str) -> list[str]:
    """Keep as attempts what others put into ``submitted/`` (nbgrader's collect, a person). Returns the students.

    Handed in when ``timestamp.txt`` says, or else when the file was last written.
    """
    students = []
    for path in sorted((root / "submitted").glob(f"*/{assignment}/{assignment}.ipynb")):
        student, data = path.parents[1].name, path.read_bytes()
        if read_chosen(root, assignment, student).get("puesto") == hashlib.sha256(data).hexdigest():
            continue
        if intentos.add(root, assignment, student, data, handed_in(path), "submitted/"):
            students.append(student)
    return students


def handed_in(path: Path) -> datetime:
    """When a notebook of ``submitted/`` was handed in, aware."""
    stamp = path.with_name("timestamp.txt")
    if not stamp.is_file():
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    try:
        return utils.parse_utc(stamp.read_text(encoding="utf-8").strip()).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise CycleError(f"No entiendo la fecha de {stamp}: se espera, por ejemplo, 2026-12-18 23:59:59 UTC.") from None


def find_verdict(root: Path, assignment: str, student: str, print_: str) -> tuple[Attempt, Verdict, bool] | None:
    """The attempt with these very sources and its verdict; the chosen one goes first.

    The flag says whether the verdict is of today's seed and version; without one, it is the newest of another.
    """
    chosen = read_chosen(root, assignment, student).get("intento")
    kept = sorted(intentos.attempts(root, assignment, student), key=lambda a: a.folder.name != chosen)
    for current in (True, False):
        for attempt in kept:
            key = key_of(root, attempt)
            verdict = read_verdict(attempt.folder, key) if current else intentos.latest_verdict(attempt.folder)
            if verdict is not None and verdict.fingerprint == print_:
                return attempt, verdict, current
    return None

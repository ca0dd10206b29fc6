"""Many submissions at once: a process each, with a time limit, and a verdict file when it is done.

A process that fails or does not end is that submission's problem alone: it gets a provisional 0 with a notice, and the
next run tries it again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader import utils

from minilab.entrega import InvalidSubmission, read_submission, rebuild
from minilab_grading.arnes.aislamiento import Isolation
from minilab_grading.arnes.calificar import Grading, all_missed, grade_untimed
from minilab_grading.arnes.celdas import added_definitions, sources_of
from minilab_grading.casos import cases_of
from minilab_grading.curso.carpeta import write_atomic
from minilab_grading.curso.intentos import BYTES, REBUILT, Verdict, read_verdict, write_verdict

LIMIT_S = 600.0
FAILURE = "fallo.txt"
END_S = 10.0


@dataclass(frozen=True)
class Job:
    """One attempt to grade. folder: its own, in ``intentos/``. released: the notebook that students got.

    root: the course folder, which the student's code must not see. isolation: its rung was tried once, for all jobs.
    """

    folder: Path
    released: Path
    assignment: str
    seed: int
    key: str
    root: Path
    isolation: Isolation
    allow_unisolated: bool = False


def grade_attempt(job: Job) -> Verdict:
    """Read, rebuild on the release and grade what needs no quiet machine."""
    released = nbformat.read(job.released, 4)
    try:
        notebook, notices = rebuild(read_submission((job.folder / BYTES).read_bytes()), released)
    except InvalidSubmission as error:
        return unusable(job, str(error))
    write_atomic(job.folder / REBUILT, (nbformat.writes(notebook) + "\n").encode())
    grading = grade_untimed(notebook, job.assignment, job.seed, [job.root], job.allow_unisolated, job.isolation)
    return Verdict(job.key, fingerprint(notebook), grading, tuple(n.text for n in notices), _written(notebook))


def unusable(job: Job, problem: str, provisional: bool = False) -> Verdict:
    """Every check missed, with the reason: what an unreadable submission gets, so that it is listed and answered."""
    _, _, checks = cases_of(job.assignment, job.seed)
    grading = Grading(job.isolation.level, {name: all_missed(check, problem) for name, check in checks.items()})
    print_ = fingerprint(nbformat.read(job.released, 4))
    return Verdict(job.key, print_, grading, (problem,), problem=problem, provisional=provisional)


def fingerprint(notebook: NotebookNode) -> str:
    """SHA-256 of what a mark depends on: the solution cells and the student's own definitions."""
    graded = json.dumps([sources_of(notebook), added_definitions(notebook)], sort_keys=True)
    return hashlib.sha256(graded.encode("utf-8", "surrogatepass")).hexdigest()


def _written(notebook: NotebookNode) -> int:
    """How many of the answers that a person reads are not the released text."""
    cells = [c for c in notebook.cells if utils.is_grade(c) and utils.is_solution(c)]
    return sum(utils.compute_checksum(c) != c.metadata.nbgrader.get("checksum") for c in cells)


def grade_all(
    jobs: Iterable[Job], processes: int, limit_s: float = LIMIT_S, done: Callable[[Job, Verdict], None] | None = None
) -> dict[Path, Verdict]:
    """Grade ``jobs`` with at most ``processes`` at a time. Returns attempt folder -> verdict, failed ones too.

    limit_s: wall-clock seconds that one submission may take. done: called in this process as each one ends.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    waiting, verdicts = list(jobs)[::-1], {}
    running: dict[int, tuple[BaseProcess, Job, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop()
                process = context.Process(target=_work, args=(job,))
                process.start()
                running[process.sentinel] = (process, job, time.monotonic() + limit_s)
            nearest = min(deadline for *_, deadline in running.values())
            ready = wait(list(running), timeout=max(0.0, nearest - time.monotonic()))
            late = [s for s, (*_, deadline) in running.items() if s not in ready and time.monotonic() >= deadline]
            for sentinel in [*ready, *late]:
                process, job, _ = running.pop(sentinel)
                verdicts[job.folder] = _collect(process, job, limit_s, sentinel in late)
                if done:
                    done(job, verdicts[job.folder])
    finally:
        for process, *_ in running.values():
            _end(process)
    return verdicts


def _collect(process: BaseProcess, job: Job, limit_s: float, late: bool) -> Verdict:
    _end(process)
    if not late and process.exitcode == 0:
        return read_verdict(job.folder, job.key)
    reason = f"tardó más de {limit_s:g} s" if late else "el calificador se detuvo con ella"
    verdict = unusable(job, f"La entrega no se pudo calificar: {reason}. Tu docente lo va a revisar.", provisional=True)
    if (earlier := read_verdict(job.folder, job.key)) is None or earlier.provisional:
        write_verdict(job.folder, verdict)
    return verdict


def _end(process: BaseProcess) -> None:
    """SIGTERM lets the process end its sandbox; one that does not is killed."""
    if process.is_alive():
        process.terminate()
        process.join(END_S)
    if process.is_alive():
        process.kill()
    process.join()


def _work(job: Job) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        write_verdict(job.folder, grade_attempt(job))
    except Exception:
        (job.folder / FAILURE).write_text(traceback.format_exc(), encoding="utf-8")
        sys.exit(3)

"""Engines take turns on a cell: A B C, A B C, …, one measured at a time, the others' processes stopped meanwhile.

A change in the machine (heat, a neighbour) then meets all engines alike. What one engine does wrong costs its own
figures alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minillm_serve.bench.cells import Cell, Prompt
from minillm_serve.bench.contention import OtherPrograms
from minillm_serve.compare.backend import Backend, BackendError, WorkerProcess

Progress = Callable[[str], None]
Open = Callable[[Backend], WorkerProcess]


@dataclass(frozen=True)
class Answered:
    """One prompt's answer within a run: its tokens, and when they came, in seconds after its wave began."""

    prompt: Prompt
    token_ids: tuple[int, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One turn of one engine over the measured waves of a cell. others_cpu: CPU share of other programs."""

    seconds: float
    new_tokens: int
    answers: tuple[Answered, ...]
    others_cpu: float | None


@dataclass
class Measured:
    """All turns of one engine on one cell; ``reason`` says why it has none, or fewer than were asked for."""

    backend: Backend
    cell: Cell
    info: dict[str, Any] = field(default_factory=dict)
    load_s: float | None = None
    runs: list[Run] = field(default_factory=list)
    peak_mb: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Job:
    """What all engines are given alike. gguf: for llama.cpp. sample: prompts for the engines that go one by one."""

    model: Path
    gguf: Callable[[], Path]
    threads: int
    repeats: int
    sample: int
    timeout_s: float


def measure_cell(
    cell: Cell,
    backends: Sequence[Backend],
    job: Job,
    progress: Progress,
    keep: Callable[[list[Measured]], None],
    open_worker: Open | None = None,
) -> list[Measured]:
    """Measure every backend on the cell. ``keep`` is called with all results so far after each turn."""
    make = open_worker or (lambda backend: WorkerProcess.of(backend, job.timeout_s))
    results = [Measured(b, cell.one_by_one(job.sample) if b.spec.one_by_one else cell) for b in backends]
    with ExitStack() as stack:
        alive: list[tuple[Measured, WorkerProcess]] = []
        for result in results:
            result.reason = result.backend.why_absent()
            if result.reason is None:
                worker = _start(result, job, progress, make, stack)
                alive += [(result, worker)] if worker is not None else []
            if result.reason is not None:
                progress(f"{cell.name}: {result.backend.label} is left out: {result.reason}")
        for repeat in range(1, job.repeats + 1):
            for result, worker in alive:
                if result.reason is None:
                    _take_turn(result, worker, progress, f"{cell.name}, run {repeat} of {job.repeats}")
                    keep(results)
    keep(results)
    return results


def _start(result: Measured, job: Job, progress: Progress, make: Open, stack: ExitStack) -> WorkerProcess | None:
    """Start, load and warm up an engine; on failure the reason is set and None is returned."""
    backend, cell = result.backend, result.cell
    progress(f"{cell.name}: loading {backend.label}")
    try:
        gguf = str(job.gguf()) if backend.dtype == "gguf" else None
        worker = stack.enter_context(make(backend))
        start = time.monotonic()
        loaded = worker.load(
            model=str(job.model),
            gguf=gguf,
            dtype=backend.dtype,
            mode=backend.spec.mode,
            threads=job.threads,
            slots=cell.concurrency,
            max_len=cell.max_len,
            settings=dict(backend.settings),
        )
        result.info, result.peak_mb = loaded["info"], loaded["peak_mb"]
        result.load_s = time.monotonic() - start
        warm_up = cell.warm_up()
        for wave in warm_up.waves:
            worker.run([list(prompt) for prompt in wave], warm_up.max_tokens)
        worker.pause()
    except (BackendError, OSError, ValueError) as error:
        result.reason = _public(str(error))
        return None
    return worker


def _take_turn(result: Measured, worker: WorkerProcess, progress: Progress, label: str) -> None:
    try:
        run, result.peak_mb = _run(result.cell, worker)
        worker.pause()
    except BackendError as error:
        result.reason = _public(str(error))
        progress(f"{label}: {result.backend.label} failed: {result.reason}")
        return
    result.runs.append(run)
    progress(f"{label}: {result.backend.label} {run.new_tokens / run.seconds:.1f} tok/s")


def _run(cell: Cell, worker: WorkerProcess) -> tuple[Run, float | None]:
    worker.reset()
    for wave in cell.waves[: cell.prepare]:
        worker.run([list(prompt) for prompt in wave], cell.max_tokens)
    seconds, answers, peak = 0.0, [], None
    with OtherPrograms([worker.pid]) as others:
        for wave in cell.waves[cell.prepare :]:
            result = worker.run([list(prompt) for prompt in wave], cell.max_tokens)
            seconds, peak = seconds + result["seconds"], result["peak_mb"]
            answers += [
                Answered(prompt, tuple(answer["token_ids"]), tuple(answer["times"]))
                for prompt, answer in zip(wave, result["answers"], strict=True)
            ]
    return Run(seconds, cell.max_tokens * len(answers), tuple(answers), others.share), peak


def _public(reason: str) -> str:
    """An error as a report may show it: no path that names the user or where the package and its Python lie."""
    names = {sys.prefix: "(python)", str(Path(__file__).parents[2]): "(package)", str(Path.home()): "~"}
    for path, name in names.items():
        reason = reason.replace(path, name)
    return reason

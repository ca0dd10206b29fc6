"""The meter without noise: the same world, the same path and a tiny model, with seconds that are counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from minilab.pruebas.casos import Remote, StudentError
from minilab.reloj.costes import VirtualClock, sequential_seconds
from minilab.reloj.mundo import Clock, World, drive
from minilab.reloj.reglas import Item, Limits, Request
from minilab_grading.arnes.calificar import CheckMark, MeterJob
from minilab_grading.arnes.sesion import WorkerDied
from minilab_grading.medidores.banco import Bank, Run
from minilab_grading.medidores.cargas import COUNTED_LIMITS, counted_requests
from minilab_grading.medidores.juicio import NOT_MEASURED, PLANNER, judge_ratio, with_summary


class BankBackend:
    """A :class:`minilab.reloj.mundo.Backend` in a measuring process."""

    def __init__(self, run: Run):
        self._run = run

    def step(self, items: Sequence[Item]) -> dict[int, int]:
        batch = [[i.id, i.start, i.tokens, i.blocks, i.draws] for i in items]
        return {ident: token for ident, token in self._run.ask("paso", lote=batch)}


def engine_setup(requests: Sequence[Request], limits: Limits) -> dict[str, Any]:
    """What an engine's run must know beforehand."""
    return {
        "prompts": {r.id: r.prompt for r in requests},
        "max_new": max(r.max_new for r in requests),
        "bloques": limits.num_blocks,
        "tam_bloque": limits.block_size,
    }


def play(remote: Remote, requests: Sequence[Request], limits: Limits, run: Run, clock: Clock) -> str | None:
    """Serve the requests with the student's scheduler; returns what it did wrong, in Spanish."""
    try:
        return drive(remote, World(requests, limits, BankBackend(run), clock))
    except StudentError as error:
        return f"tu planificador lanzó una excepción: {error}"
    except WorkerDied as error:
        return f"tu planificador no terminó: {error}"


def planner_mark(job: MeterJob, measure: Callable[[], dict[str, Any]]) -> CheckMark:
    """Judge recorded measures, or take them; a scheduler that was never right has no speed."""
    planner = job.untimed.get(PLANNER)
    if planner is not None and planner.fraction == 0:
        failed = {"fallo": NOT_MEASURED}
        return CheckMark(tuple(judge_ratio(case, failed) for case in job.check.cases), NOT_MEASURED)
    measures = job.measures or measure()
    results = tuple(judge_ratio(case, measures) for case in job.check.cases)
    return CheckMark(results, measures.get("fallo", ""), measures)


class CountedClock:
    """Meter of ``reloj_real`` for tests and for machines without the model: no pipeline, no noise, one pair.

    A step costs what it costs on the virtual clock (``minilab.reloj.costes``); the baseline is one request at a time.
    """

    def __init__(self) -> None:
        self._bank: Bank | None = None

    def measure(self, job: MeterJob) -> CheckMark:
        return planner_mark(job, lambda: self._measure(job))

    def close(self) -> None:
        if self._bank is not None:
            self._bank.close()

    def _measure(self, job: MeterJob) -> dict[str, Any]:
        bank = self._tiny_bank()
        requests, clock = counted_requests(Random(job.seed), bank.info["vocabulario"]), VirtualClock()
        with job.open_session() as session, bank.run(1, **engine_setup(requests, COUNTED_LIMITS)) as run:
            complaint = play(session.remote(), requests, COUNTED_LIMITS, run, clock)
        measures = {"modo": "reloj contado"}
        if complaint:
            return {**measures, "fallo": complaint}
        new = {r.id: r.max_new for r in requests}
        tokens = sum(new.values())
        base = sequential_seconds(requests, new)
        return with_summary({**measures, "pares": [[base, clock.now()]], "tokens": [tokens, tokens], "techo": None})

    def _tiny_bank(self) -> Bank:
        """The model is written, read and removed here; the process keeps it."""
        if self._bank is None:
            from minilab.modelo import make_tiny_model

            with tempfile.TemporaryDirectory(prefix="medidor-") as folder:
                self._bank = Bank("motor", make_tiny_model(Path(folder) / "modelo-mini"))
                self._bank.start()
        return self._bank

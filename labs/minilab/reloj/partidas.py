"""Plays of the virtual clock: a workload served by the student's scheduler, and what must hold of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from minilab.pruebas.casos import Outcome, Remote
from minilab.reloj.costes import VirtualClock, sequential_seconds
from minilab.reloj.mundo import World, drive
from minilab.reloj.oraculo import END, Oracle
from minilab.reloj.reglas import Limits, Request

TARGET = 5.0
SLOW_CREDIT = 0.8


@dataclass(frozen=True)
class Workload:
    """requests: in arrival order. limits: of the scheduler that serves them. secret: of the model that answers them."""

    name: str
    requests: tuple[Request, ...]
    limits: Limits
    secret: int


@dataclass(frozen=True)
class Run:
    """A workload that was played. baseline_s, seconds: virtual time of one request at a time, and of this run."""

    world: World
    complaint: str | None
    baseline_s: float
    seconds: float

    @property
    def ratio(self) -> float:
        """How many times as fast as one request at a time; 0 for a run that broke a rule."""
        return 0.0 if self.complaint else self.baseline_s / self.seconds


def play(remote: Remote, workload: Workload) -> Run:
    """Serve the workload to its end, or to the first broken rule, and compare each text with the model's own."""
    oracle = Oracle(workload.secret, workload.limits.block_size)
    world = World(workload.requests, workload.limits, oracle, VirtualClock(), END)
    complaint = drive(remote, world)
    texts = {r.id: oracle.text(r.prompt, r.max_new) for r in workload.requests}
    wrong = [ident for ident, text in texts.items() if world.progress[ident].text != text]
    if complaint is None and wrong:
        complaint = f"el texto de la petición {wrong[0]} no es el que da el modelo para su prompt"
    baseline = sequential_seconds(workload.requests, {ident: len(text) for ident, text in texts.items()})
    return Run(world, complaint, baseline, world.clock.now())


def served(workload: Workload) -> Callable[[Remote], Outcome]:
    """Everyone gets the right text, no rule is broken."""
    return lambda remote: Outcome(play(remote, workload).complaint)


def fast(workload: Workload) -> Callable[[Remote], Outcome]:
    """``TARGET`` times the baseline; below it, a credit that grows evenly from 0 at 1 to ``SLOW_CREDIT`` at TARGET."""

    def judge(remote: Remote) -> Outcome:
        run = play(remote, workload)
        if run.complaint:
            return Outcome(run.complaint)
        note = f"{math.floor(run.ratio * 10) / 10:.1f}×".replace(".", ",")
        if run.ratio >= TARGET:
            return Outcome(None, note)
        credit = max(0.0, (run.ratio - 1) / (TARGET - 1)) * SLOW_CREDIT
        return Outcome(f"al menos {TARGET:.0f}× frente a una petición cada vez; se quedó en {note}", note, credit)

    return judge


def in_order(workload: Workload) -> Callable[[Remote], Outcome]:
    """Nobody is computed for the first time before somebody who arrived earlier."""

    def judge(remote: Remote) -> Outcome:
        run = play(remote, workload)
        if run.complaint:
            return Outcome(run.complaint)
        states = list(run.world.progress.values())
        for before, after in pairwise(states):
            if after.first_step < before.first_step:
                ids = f"la petición {after.request.id} empezó en el paso {after.first_step} y la {before.request.id}"
                return Outcome(f"{ids}, que llegó antes, en el {before.first_step}: se empieza por orden de llegada")
        return Outcome()

    return judge


def nobody_starves(workload: Workload) -> Callable[[Remote], Outcome]:
    """At most ``max_requests`` later arrivals get their first token before anyone, which bounds every wait."""

    def judge(remote: Remote) -> Outcome:
        run = play(remote, workload)
        if run.complaint:
            return Outcome(run.complaint)
        states, most = list(run.world.progress.values()), workload.limits.max_requests
        for i, state in enumerate(states):
            overtaken = sum(s.first_token_at < state.first_token_at for s in states[i + 1 :])
            if overtaken > most:
                who = f"la petición {state.request.id} vio a {overtaken} llegadas después recibir antes su primer token"
                return Outcome(f"{who}; aquí se admiten {most} como mucho")
        return Outcome()

    return judge

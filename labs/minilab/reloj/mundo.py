"""The world a student's scheduler lives in: it owns requests, model, memory and clock, and believes nothing.

One turn (:func:`drive`): the student hears what the last step drew and who arrived, answers a batch, and the world
validates it (:mod:`.reglas`), computes it (:class:`Backend`), charges it (:class:`Clock`) and notes what finished.
The virtual clock passes an oracle and a cost model; the real clock passes a real model and the time of day.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

from minilab.pruebas.casos import Remote
from minilab.reloj.reglas import Item, Limits, Memory, Progress, Request, Violation, check_batch

__all__ = ["Backend", "Clock", "Item", "Limits", "RealTime", "Request", "World", "drive"]


class Backend(Protocol):
    """The model and its KV cache. It sees only batches in which every rule holds."""

    def step(self, items: Sequence[Item]) -> dict[int, int]:
        """Compute a batch as one step; returns the next token of each item with ``draws``, by request id.

        Keys and values of positions before ``item.start`` are already in ``item.blocks``; a later item of the same
        request may start earlier, or in other blocks (after preemption), or in blocks that another request filled
        with the same prefix.
        """


class Clock(Protocol):
    """Seconds from the start of the run."""

    def now(self) -> float: ...

    def charge(self, items: Sequence[Item]) -> None:
        """Time that a step takes; a real clock does nothing here."""

    def wait_until(self, moment: float) -> None:
        """Nothing is left to compute before the next arrival."""


class RealTime:
    """A :class:`Clock` that only looks."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._start

    def charge(self, items: Sequence[Item]) -> None:
        """Real work takes its own time."""

    def wait_until(self, moment: float) -> None:
        time.sleep(max(0.0, moment - self.now()))


class World:
    """The state of a run. ``complaint`` is the first rule broken, in Spanish, after which nothing moves any more.

    requests: in arrival order, ids unique. end: the token that ends a text, None where only max_new does.
    """

    def __init__(
        self, requests: Sequence[Request], limits: Limits, backend: Backend, clock: Clock, end: int | None = None
    ):
        _check_requests(requests, limits)
        self.limits, self.clock, self.steps = limits, clock, 0
        self.progress = {r.id: Progress(r, list(r.prompt)) for r in requests}
        self.complaint: str | None = None
        self._backend, self._end, self._memory = backend, end, Memory(limits)
        self._coming = list(requests)

    @property
    def done(self) -> bool:
        return all(p.finished for p in self.progress.values())

    @property
    def pending(self) -> list[int]:
        """Ids of the requests that arrived and are not finished."""
        return [ident for ident, p in self.progress.items() if p.arrived and not p.finished]

    def skip_quiet_time(self) -> None:
        """With nobody to serve, the next thing that happens is an arrival."""
        if self._coming and not self.pending:
            self.clock.wait_until(self._coming[0].arrival)

    def arrivals(self) -> list[Request]:
        """Those whose time has come, once each, in arrival order."""
        due = [r for r in self._coming if r.arrival <= self.clock.now()]
        self._coming = self._coming[len(due) :]
        for request in due:
            self.progress[request.id].arrived = True
        return due

    def step(self, batch: Any) -> list[dict[str, Any]]:
        """Validate and compute one answer of ``paso``; returns what ``recibe`` gets, [] with ``complaint`` set."""
        if self.complaint:
            return []
        try:
            items = check_batch(batch, self.progress, self._memory, self.limits)
        except Violation as violation:
            return self._complain(f"paso {self.steps + 1}: {violation}")
        if not items:
            return self._idle()
        self.steps += 1
        for item in items:
            state = self.progress[item.id]
            state.first_step = self.steps if state.first_step is None else state.first_step
            self._memory.write(item, state.marks_until(item.end), self.steps)
        drawn = self._backend.step(items)
        self.clock.charge(items)
        return [self._note(item.id, drawn[item.id]) for item in items if item.draws]

    def give_up(self, steps: int) -> None:
        """The student used up all the steps."""
        self._complain(
            f"tras {steps} pasos aún quedan peticiones sin terminar ({len(self.pending)}): el plan no avanza"
        )

    def _note(self, ident: int, token: int) -> dict[str, Any]:
        state, now = self.progress[ident], self.clock.now()
        state.known.append(token)
        state.first_token_at = now if state.first_token_at is None else state.first_token_at
        state.finished = token == self._end or len(state.text) == state.request.max_new
        state.finished_at = now if state.finished else None
        return {"id": ident, "token": token, "fin": state.finished}

    def _idle(self) -> list[dict[str, Any]]:
        """An empty batch: the world goes on at the next arrival, or never."""
        if self._coming:
            self.clock.wait_until(self._coming[0].arrival)
        elif pending := self.pending:
            some = ", ".join(map(str, pending[:5])) + (", …" if len(pending) > 5 else "")
            return self._complain(
                f"paso {self.steps + 1}: paso() devolvió [], pero hay peticiones sin terminar (id {some}) y no llegará "
                "ninguna más: el sistema se queda parado"
            )
        return []

    def _complain(self, sentence: str) -> list[dict[str, Any]]:
        self.complaint = self.complaint or sentence
        return []


def drive(remote: Remote, world: World, cls: str = "Planificador", max_steps: int | None = None) -> str | None:
    """Play ``world`` with a new object of the student's class until all is done; returns the world's complaint.

    max_steps: by default twice what one request at a time and one token a step would need. Raises what ``remote``
    raises.
    """
    handle, news = remote.new(cls, world.limits.to_plain()), []
    if max_steps is None:
        max_steps = 2 * sum(len(p.known) + p.request.max_new for p in world.progress.values())
    while not world.done and world.complaint is None:
        world.skip_quiet_time()
        news += [("llega", [r.id, list(r.prompt), r.max_new]) for r in world.arrivals()]
        batch = remote.run(handle, [*news, ("paso", [])])[-1]
        outputs = world.step(batch)
        news = [("recibe", [outputs])] if batch != [] else []
        if world.steps >= max_steps and not world.done:
            world.give_up(max_steps)
    if world.complaint is None:
        remote.run(handle, news)
    return world.complaint


def _check_requests(requests: Sequence[Request], limits: Limits) -> None:
    """Raises ValueError: a workload that cannot be served is its author's mistake, not the student's."""
    arrivals = [r.arrival for r in requests]
    if len({r.id for r in requests}) != len(requests) or arrivals != sorted(arrivals):
        raise ValueError("requests must have unique ids and come in arrival order")
    for r in requests:
        blocks = math.ceil((len(r.prompt) + r.max_new - 1) / limits.block_size)
        if not r.prompt or r.max_new < 1 or blocks > limits.num_blocks:
            raise ValueError(f"request {r.id} cannot be served: {len(r.prompt)} + {r.max_new} tokens, {limits}")

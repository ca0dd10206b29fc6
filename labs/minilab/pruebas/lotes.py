"""What public and hidden checks of batching share: schedules by place and step, and workloads of the virtual clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from minilab.pruebas.casos import Outcome, Remote
from minilab.reloj.oraculo import VOCABULARY, Oracle
from minilab.reloj.partidas import Workload, play
from minilab.reloj.reglas import Limits, Request

Rows = list[list[int]]  # [request, first step, step after the last]
PATIENCE, LONGEST_PROMPT = 256, 2048  # steps, tokens: what the notebook promises about the policy


# ---- Schedules on paper


def static_rows(lengths: Sequence[int], places: int) -> Rows:
    """Batches of ``places`` in arrival order; each starts when the last one has ended whole."""
    rows, start = [], 0
    for first in range(0, len(lengths), places):
        batch = lengths[first : first + places]
        rows += [[first + i, start, start + length] for i, length in enumerate(batch)]
        start += max(batch)
    return rows


def continuous_rows(lengths: Sequence[int], places: int, arrivals: Sequence[int]) -> Rows:
    """Who is next starts at the first step in which it is there and a place is free."""
    free, rows = [0] * places, []
    for i, (length, arrival) in enumerate(zip(lengths, arrivals, strict=True)):
        start = max(heapq.heappop(free), arrival)
        heapq.heappush(free, start + length)
        rows.append([i, start, start + length])
    return rows


def idle_places(lengths: Sequence[int], places: int) -> int:
    """Places times steps in which a static batch computes nothing."""
    rows = static_rows(lengths, places)
    return places * max((end for _, _, end in rows), default=0) - sum(lengths)


def seconds(rows: Rows, step_s: float, token_s: float) -> float:
    """A step with somebody in it costs ``step_s``, and each request in it ``token_s``."""
    busy = {step for _, start, end in rows for step in range(start, end)}
    return step_s * len(busy) + token_s * sum(end - start for _, start, end in rows)


def ratios(lengths: Sequence[int], places: int, step_s: float, token_s: float) -> dict[str, float]:
    alone, static, continuous = (
        seconds(rows, step_s, token_s)
        for rows in (
            static_rows(lengths, 1),
            static_rows(lengths, places),
            continuous_rows(lengths, places, [0] * len(lengths)),
        )
    )
    return {
        "estatico": alone / static,
        "continuo": alone / continuous,
        "continuo_contra_estatico": static / continuous,
    }


# ---- The student's scheduler


class _Renamed:
    """A remote on which the class that the virtual clock asks for is this lab's."""

    def __init__(self, remote: Remote):
        self._remote = remote

    def new(self, cls: str, *args: Any) -> int:
        return self._remote.new("PlanificadorContinuo", *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)


def continuous(judge: Callable[[Remote], Outcome]) -> Callable[[Remote], Outcome]:
    """A play of the virtual clock, with ``PlanificadorContinuo`` in it."""
    return lambda remote: judge(_Renamed(remote))


def in_fewest_steps(workload: Workload) -> Callable[[Remote], Outcome]:
    """All are there from the start and nothing but places is short: no more steps than a continuous batch takes."""
    oracle = Oracle(workload.secret, workload.limits.block_size)
    lengths = [len(oracle.text(r.prompt, r.max_new)) for r in workload.requests]
    rows = continuous_rows(lengths, workload.limits.max_requests, [0] * len(lengths))
    fewest = max(end for _, _, end in rows)

    def judge(remote: Remote) -> Outcome:
        run = play(remote, workload)
        if run.complaint:
            return Outcome(run.complaint)
        if run.world.steps > fewest:
            return Outcome(f"{fewest} pasos para respuestas de {lengths} tokens; diste {run.world.steps}")
        return Outcome(note=f"{fewest} pasos")

    return judge


def few(rng: Random, count: int, places: int, name: str = "unas pocas") -> Workload:
    """Answers of unequal lengths and room for everything."""
    shapes = [(rng.randint(3, 9), rng.choice((2, 3, 4, 9, 12))) for _ in range(count)]
    return _workload(name, rng, shapes, Limits(places, 256, 64, 16))


def unequal_queue(rng: Random) -> Workload:
    """Prompts of very different lengths, none longer than a step: a later one often fits where the next does not."""
    shapes = [(rng.choice((rng.randint(4, 12), rng.randint(60, 100))), rng.randint(6, 16)) for _ in range(32)]
    return _workload("orden de llegada", rng, shapes, Limits(8, 128, 24, 16), lambda i: i // 8 * 0.05)


def tight_memory(rng: Random) -> Workload:
    """Places for eight and blocks for two or three."""
    shapes = [(rng.randint(12, 40), rng.randint(60, 100)) for _ in range(14)]
    return _workload("poca memoria", rng, shapes, Limits(8, 128, 20, 16))


def full_steps(rng: Random) -> Workload:
    """So many prompts at once that the token budget of a step, not its places, keeps some out."""
    shapes = [(rng.randint(40, 64), rng.randint(4, 24)) for _ in range(40)]
    return _workload("paso lleno", rng, shapes, Limits(16, 72, 128, 16))


def _workload(
    name: str,
    rng: Random,
    shapes: Sequence[tuple[int, int]],
    limits: Limits,
    arrival: Callable[[int], float] = lambda i: 0.0,
) -> Workload:
    ids = rng.sample(range(1, 1000), len(shapes))
    requests = tuple(
        Request(ident, arrival(i), tuple(rng.randrange(1, VOCABULARY) for _ in range(prompt)), new)
        for i, (ident, (prompt, new)) in enumerate(zip(ids, shapes, strict=True))
    )
    return Workload(name, requests, limits, rng.getrandbits(128))


# ---- The student's policy


Pair = tuple[dict[str, int], dict[str, int]]


def asked(arrival: int, tokens: int) -> dict[str, int]:
    """A request as the policy sees it: the engine's names."""
    return {"arrival_step": arrival, "num_prompt_tokens": tokens}


def goes_first(pairs: Sequence[Pair], why: str, ties: bool = False) -> Callable[[Remote], Outcome]:
    """Of each pair the first has the lower rank. ties: an equal one will do, the engine then goes by arrival."""

    def judge(remote: Remote) -> Outcome:
        ranks = remote.function("rangos", [request for pair in pairs for request in pair])
        if not isinstance(ranks, list) or len(ranks) != 2 * len(pairs):
            return Outcome("un rango por petición, en el mismo orden: no cambies la función rangos")
        for (first, second), one, other in zip(pairs, ranks[::2], ranks[1::2], strict=True):
            if not _below(one, other, ties):
                return Outcome(
                    f"{why}: {_told(first)} debe ir delante de {_told(second)}, y sus rangos son {one} y {other}"
                )
        return Outcome()

    return judge


def both(*judges: Callable[[Remote], Outcome]) -> Callable[[Remote], Outcome]:
    """The first complaint of several."""

    def judge(remote: Remote) -> Outcome:
        outcomes = [one(remote) for one in judges]
        return next((o for o in outcomes if o.complaint is not None), outcomes[0])

    return judge


def same_rank_in_any_order(requests: Sequence[dict[str, int]]) -> Callable[[Remote], Outcome]:
    """A rank depends on its request alone, not on who was asked before."""

    def judge(remote: Remote) -> Outcome:
        forth = remote.function("rangos", list(requests))
        back = remote.function("rangos", list(requests)[::-1])
        if not isinstance(forth, list) or not isinstance(back, list) or forth != back[::-1]:
            return Outcome("el mismo rango para la misma petición, se pregunte cuando se pregunte")
        return Outcome()

    return judge


def _below(one: Any, other: Any, ties: bool) -> bool:
    try:
        return bool(one < other or (ties and one == other))
    except TypeError:
        return False


def _told(request: dict[str, int]) -> str:
    return f"la de {request['num_prompt_tokens']} tokens que llegó en el paso {request['arrival_step']}"


def waits_in_a_queue(
    ranks: Sequence[Any], arrivals: Sequence[int], lengths: Sequence[int], places: int
) -> list[int | None]:
    """Steps that each request waits for a place, served by lowest rank; None: still waiting at the last arrival."""
    free, waits = [0] * places, [None] * len(ranks)
    waiting, coming = [], sorted(range(len(ranks)), key=lambda i: (arrivals[i], i))
    for step in range(max(arrivals) + 1):
        while coming and arrivals[coming[0]] <= step:
            waiting.append(coming.pop(0))
        waiting.sort(key=lambda i: (ranks[i], arrivals[i], i))
        for place in [p for p, until in enumerate(free) if until <= step][: len(waiting)]:
            chosen = waiting.pop(0)
            waits[chosen], free[place] = step - arrivals[chosen], step + lengths[chosen]
    return waits

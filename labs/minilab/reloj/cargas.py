"""Workloads of the virtual clock, drawn by seed, and the public cases made of small ones.

The five of :func:`workloads` are made so that one request at a time runs at 1 times the baseline, batches that wait
for their longest member stay below 5 where lengths differ, batches that admit at every step pass 6, and the last one
passes 5 only with the blocks of its common prefixes shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from minilab.pruebas.casos import Case
from minilab.reloj.oraculo import VOCABULARY
from minilab.reloj.partidas import Workload, fast, served
from minilab.reloj.reglas import Limits, Request

LIMITS = Limits(max_requests=16, max_tokens=256, num_blocks=128, block_size=16)
PUBLIC_SEED = 2026
Shape = tuple[int, int]  # prompt tokens, new tokens


def workloads(rng: Random) -> list[Workload]:
    """The five that the throughput is measured on."""
    return [short(rng), long(rng), mixed(rng), bursts(rng), shared_prefix(rng)]


def short(rng: Random) -> Workload:
    """Short prompts and answers, all there from the start."""
    shapes = [(rng.randint(8, 24), rng.randint(12, 20)) for _ in range(64)]
    return _workload("cortas", rng, shapes, LIMITS)


def long(rng: Random) -> Workload:
    """Long prompts, one in eight too long for one step."""
    shapes = [(rng.randint(60, 120), rng.randint(40, 56)) for _ in range(40)]
    for first in range(0, len(shapes), 8):
        shapes[first + rng.randrange(8)] = (rng.randint(270, 330), rng.randint(40, 56))
    return _workload("largas", rng, shapes, Limits(16, 256, 192, 16))


def mixed(rng: Random, count: int = 112) -> Workload:
    """Few long answers among many short ones: who waits for the longest wastes its batch."""
    return _workload("mezcladas", rng, _mixed(rng, count, 60), LIMITS)


def bursts(rng: Random) -> Workload:
    """The same lengths in four waves, each there before the last one is served."""
    starts = [wave * 0.12 + rng.uniform(0, 0.02) for wave in range(4)]
    return _workload("a ráfagas", rng, _mixed(rng, 112, 60), LIMITS, lambda i: starts[i // 28])


def shared_prefix(rng: Random) -> Workload:
    """Two long beginnings, each the same in half of the requests, and a memory for four requests that share none."""
    limits = Limits(16, 256, 40, 16)
    beginnings = [_tokens(rng, 8 * limits.block_size) for _ in range(2)]
    shapes = [(rng.randint(3, 6), new) for _, new in _mixed(rng, 96, 42)]
    return _workload("prefijo común", rng, shapes, limits, beginnings=beginnings)


def wave_and_giant(rng: Random) -> Workload:
    """Mixed lengths, and long after them one request that needs every block."""
    limits = Limits(8, 512, 32, 16)
    new = rng.randint(8, 20)
    shapes = [*_mixed(rng, 24, 40), (limits.num_blocks * limits.block_size - new + 1, new)]
    return _workload("sin fugas", rng, shapes, limits, lambda i: 1000.0 if i == 24 else 0.0)


def steady_stream(rng: Random) -> Workload:
    """More arrivals than can be served at once, for a long while."""
    shapes = [(rng.randint(6, 24), rng.randint(14, 24)) for _ in range(96)]
    return _workload("nadie espera sin fin", rng, shapes, Limits(8, 128, 64, 16), lambda i: i * 0.006)


def unequal_queue(rng: Random) -> Workload:
    """Prompts of very different lengths in a small memory: a later one often fits where the next one does not."""
    shapes = [(rng.choice((rng.randint(4, 12), rng.randint(100, 180))), rng.randint(6, 16)) for _ in range(32)]
    return _workload("orden de llegada", rng, shapes, Limits(8, 128, 24, 16), lambda i: i // 8 * 0.05)


def small_memory(rng: Random, count: int = 20) -> Workload:
    """Answers that outgrow the memory together, though each fits alone."""
    shapes = [(rng.randint(12, 40), rng.randint(60, 100)) for _ in range(count)]
    return _workload("poca memoria", rng, shapes, Limits(8, 128, 12, 16))


def alone(rng: Random) -> Workload:
    """One request whose prompt takes several steps and which needs every block."""
    return _workload("una sola", rng, [(100, 29)], Limits(4, 48, 8, 16))


def public_cases() -> tuple[Case, ...]:
    """What a student may see: the same plays on small workloads of a fixed seed."""
    rng = Random(PUBLIC_SEED)
    return (
        Case(
            name="una petición sola que ocupa toda la memoria",
            args=(),
            play=served(alone(rng)),
            hint="Un prompt más largo que max_tokens se calcula por trozos, en varios pasos. Da a la petición solo los "
            "bloques que le hagan falta: ceil((desde + tokens) / tam_bloque).",
        ),
        Case(
            name="longitudes mezcladas a 5×",
            args=(),
            play=fast(mixed(rng, 80)),
            hint="En cada paso avanzan todas las activas, con un token cada una, y entra quien espera en cuanto hay "
            "sitio: no esperes a que el lote termine.",
        ),
        Case(
            name="memoria para unas pocas",
            args=(),
            play=served(small_memory(rng, 8)),
            hint="Cuando no queden bloques, deja a alguien para después: suelta sus bloques y más tarde calcula su "
            "texto otra vez desde 0. Y que el desalojo no se repita siempre entre las mismas.",
        ),
    )


def _mixed(rng: Random, count: int, longest: int) -> list[Shape]:
    """One answer in eight is long, none of them in the last quarter."""
    shapes = [(rng.randint(6, 20), rng.randint(3, 9)) for _ in range(count)]
    for first in range(0, count * 3 // 4, 8):
        shapes[first + rng.randrange(8)] = (rng.randint(6, 20), rng.randint(longest - 4, longest + 4))
    return shapes


def _workload(
    name: str,
    rng: Random,
    shapes: Sequence[Shape],
    limits: Limits,
    arrival: Callable[[int], float] = lambda i: 0.0,
    beginnings: Sequence[tuple[int, ...]] = ((),),
) -> Workload:
    ids = rng.sample(range(1, 1000), len(shapes))
    requests = tuple(
        Request(ident, arrival(i), rng.choice(beginnings) + _tokens(rng, prompt), new)
        for i, (ident, (prompt, new)) in enumerate(zip(ids, shapes, strict=True))
    )
    return Workload(name, requests, limits, rng.getrandbits(128))


def _tokens(rng: Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(1, VOCABULARY) for _ in range(count))

"""Lab 5's bench: requests that arrive while others decode, on paper and on the real engine; a forged prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any

from minilab.modelo import LabModel
from minilab.motor import con
from minilab.pruebas.prefijos import broken_split
from minilab.vistas.latencias import percentil
from minillm_serve import LLM, SamplingParams
from minillm_serve.engine.trace import Recorder, Trace, read_trace
from minillm_serve.seams import KV_BLOCK_KEY

__all__ = ["Llegada", "Motor", "Simulacion", "Tanda", "colision", "envenena", "percentil", "simula"]

Split = Callable[[list[int], list[list[int]], int], list[list[int]]]
Key = Callable[[bytes, Sequence[int]], bytes]
BLOCKS = 512


# ---- In steps on paper


@dataclass(frozen=True)
class Llegada:
    """A request. paso: when it comes, in steps that were made; prompt: tokens (on paper) or text (on the engine).

    prioridad: lower goes first, where the engine looks at it.
    """

    nombre: str
    paso: int
    prompt: int | str
    nuevos: int
    prioridad: int = 0


@dataclass(frozen=True)
class Simulacion:
    """momentos: request -> second of each of its tokens. llegadas: request -> second. filas: for ``ver_gantt``."""

    momentos: dict[str, list[float]]
    llegadas: dict[str, float]
    filas: list[tuple[str, int, int, str]] = field(repr=False)

    def ttft(self, nombre: str) -> float:
        return self.momentos[nombre][0] - self.llegadas[nombre]

    def itl(self, *nombres: str) -> list[float]:
        """All times between two tokens of these requests (none named: of all)."""
        return [b - a for n in nombres or self.momentos for a, b in pairwise(self.momentos[n])]


def simula(
    reparte: Split, peticiones: Sequence[Llegada], presupuesto: int, a: float, b: float, pasos: int = 10_000
) -> Simulacion:
    """Run the student's split of the budget; a step costs ``a + b * tokens`` seconds.

    Raises ValueError, in Spanish, for a split that breaks a rule or never ends.
    """
    left = [int(r.prompt) for r in peticiones]
    said: list[list[float]] = [[] for _ in peticiones]
    arrived: dict[int, float] = {}
    rows: list[tuple[str, int, int, str]] = []
    now, step = 0.0, 0
    while any(len(s) < r.nuevos for s, r in zip(said, peticiones, strict=True)):
        for i, request in enumerate(peticiones):
            if request.paso <= step:
                arrived.setdefault(i, now)
        active = [i for i in arrived if left[i] == 0 and len(said[i]) < peticiones[i].nuevos]
        waiting = [[i, left[i]] for i in arrived if left[i] > 0]
        share = reparte(list(active), [list(w) for w in waiting], presupuesto)
        if complaint := broken_split(active, waiting, presupuesto, share):
            raise ValueError(f"paso {step}: {complaint}")
        now += a + b * sum(tokens for _, tokens in share) if share else 0.0
        for i, tokens in share:
            rows.append((peticiones[i].nombre, step, step + 1, "prefill" if left[i] else "decode"))
            left[i] -= tokens if left[i] else 0
            if left[i] == 0:
                said[i].append(now)
        step += 1
        if step > pasos:
            raise ValueError(f"tras {pasos} pasos aún quedan peticiones sin terminar")
    names = [r.nombre for r in peticiones]
    return Simulacion(dict(zip(names, said, strict=True)), {names[i]: t for i, t in arrived.items()}, rows)


# ---- On the real engine


@dataclass(frozen=True)
class Tanda(Simulacion):
    """The same, measured (filas is empty: ``ver_gantt`` takes traza). tok_s: new tokens a second of all.

    bloques: the most blocks of the cache that were in use after a step.
    """

    traza: dict[str, Any] = field(repr=False, default_factory=dict)
    tok_s: float = 0.0
    bloques: int = 0


class Motor:
    """One engine for many measurements: each with its own budget, its own trace and an empty prefix cache.

    piezas: seam -> the student's part. opciones: fields of EngineConfig.
    """

    def __init__(self, modelo: LabModel, piezas: Mapping[str, Callable[..., Any]] | None = None, **opciones: Any):
        self.llm = LLM(modelo.carpeta, seams=con(piezas or {}), **{"num_kv_blocks": BLOCKS, **opciones})
        self._scheduler = self.llm.core.scheduler
        self._warm = False

    def sirve(self, peticiones: Sequence[Llegada], presupuesto: int | None = None) -> Tanda:
        """Serve requests that come after so many steps; greedy, exactly ``nuevos`` tokens each.

        presupuesto: ``max_num_batched_tokens`` of this run; None: as it is.
        """
        budget = presupuesto or self._scheduler.max_num_batched_tokens
        if not self._warm:  # the first steps of an engine pay for memory that is touched for the first time
            self._warm = True
            self.sirve([Llegada("calienta", 0, str(r.prompt), 2) for r in peticiones], budget)
        core = self.llm.core
        self._scheduler.max_num_batched_tokens = budget
        self.llm.reset_prefix_cache()
        core.trace = Trace(replace(self.llm.config, max_num_batched_tokens=budget), self._scheduler.kv.num_blocks)
        core.scheduler = Recorder(self._scheduler, core.trace)
        try:
            momentos, llegadas = self._steps(peticiones)
            record = read_trace(json.loads(json.dumps(core.trace.content())))
        finally:
            core.scheduler, core.trace = self._scheduler, None
        seconds = max(m[-1] for m in momentos.values()) - min(llegadas.values())
        used = max(record["num_blocks"] - step["free_blocks"] for step in record["steps"])
        return Tanda(momentos, llegadas, [], record, sum(map(len, momentos.values())) / seconds, used)

    def _steps(self, requests: Sequence[Llegada]) -> tuple[dict[str, list[float]], dict[str, float]]:
        core, template = self.llm.core, self.llm.tokenizer.apply_chat_template
        params = [SamplingParams(temperature=0.0, max_tokens=r.nuevos, ignore_eos=True) for r in requests]
        ids = [template([{"role": "user", "content": str(r.prompt)}]) for r in requests]
        ranked = self.llm.config.scheduling_policy == "priority"  # else the engine refuses a priority
        coming = sorted(range(len(requests)), key=lambda i: requests[i].paso)
        moments: dict[str, list[float]] = {r.nombre: [] for r in requests}
        arrived: dict[str, float] = {}
        names: dict[int, str] = {}
        step = 0
        while coming or core.has_work():
            while coming and (requests[coming[0]].paso <= step or not core.has_work()):
                request, i = requests[coming[0]], coming.pop(0)
                group = core.prepare(ids[i], params[i], priority=request.prioridad if ranked else 0)
                names[group.rid], arrived[request.nombre] = request.nombre, time.perf_counter()
                core.add(request.nombre, group)
            outputs = core.step()
            now, step = time.perf_counter(), step + 1
            for output in outputs:
                own = moments[names[output.rid]]
                own += [now] * (len(output.outputs[0].token_ids) - len(own))
        return moments, arrived


# ---- A forged prompt


def envenena(
    modelo: LabModel, clave: Key, suyo: str, forjado: str, pregunta: str, sal: bool = False, nuevos: int = 6
) -> tuple[str, int]:
    """What the victim is answered after somebody else sent ``forjado``, and how many of its tokens came from the cache.

    clave: the engine's ``kv.block_key``. sal: each of the two has a ``cache_salt`` of its own.
    """
    llm = LLM(modelo.carpeta, seams=con({KV_BLOCK_KEY: clave}), num_kv_blocks=BLOCKS)
    params = SamplingParams(temperature=0.0, max_tokens=nuevos, ignore_eos=True)
    llm.generate(forjado + pregunta, params, cache_salt="eva" if sal else None)
    victim = llm.generate(suyo + pregunta, params, cache_salt="ana" if sal else None)[0]
    return victim.outputs[0].text, victim.num_cached_tokens


def colision(
    clave: Key, intentos: int = 1_000_000, vocabulario: int = 49_152
) -> tuple[list[int], list[int], int] | None:
    """Two different blocks of 16 tokens with one key, found by trying, and how many tries it took; None: not found."""
    rng = Random(7)
    seen: dict[bytes, list[int]] = {}
    for tries in range(1, intentos + 1):
        block = [rng.randrange(vocabulario) for _ in range(16)]
        other = seen.setdefault(clave(b"", block), block)
        if other != block:
            return other, block, tries
    return None

"""Lab 2's bench: the student's scheduler on the real model and on the virtual clock, alone or fed batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from minilab.graficas import BLACK, BLUE, GREEN, VERMILION, FigureWithText
from minilab.modelo import LabModel
from minilab.pruebas.lotes import waits_in_a_queue
from minilab.pruebas.remoto import LocalRemote
from minilab.reloj import cargas
from minilab.reloj.costes import LLAMA3_8B_ON_H100
from minilab.reloj.motor_real import RunnerBackend, load_model
from minilab.reloj.mundo import RealTime, World, drive
from minilab.reloj.partidas import Run, play
from minilab.reloj.reglas import Item, Limits, Request
from minilab.vistas.cifras import significativa
from minillm_serve.model.tokenizer import Tokenizer

__all__ = ["COSTES", "Banco", "Carrera", "EnLotes", "curva", "espera_media", "esperas", "reloj_virtual"]

COSTES = LLAMA3_8B_ON_H100
NAME = "Planificador"
BUDGET, BLOCK = 512, 16
Maker = Callable[[dict[str, int]], Any]


class BrokenRule(RuntimeError):
    """The student's scheduler broke a rule of the world; shown as its sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class EnLotes:
    """Any scheduler made static: it hears of the next requests when all of the last batch have ended."""

    def __init__(self, make: Maker, limits: dict[str, int]):
        self._inner, self._places = make(limits), limits["max_peticiones"]
        self._queue: list[tuple[int, list[int], int]] = []
        self._running = 0

    def llega(self, id: int, prompt: list[int], max_nuevos: int) -> None:
        self._queue.append((id, prompt, max_nuevos))

    def paso(self) -> list[dict[str, Any]]:
        if self._running == 0:
            batch, self._queue = self._queue[: self._places], self._queue[self._places :]
            self._running = len(batch)
            for request in batch:
                self._inner.llega(*request)
        return self._inner.paso()

    def recibe(self, salidas: list[dict[str, Any]]) -> None:
        self._running -= sum(s["fin"] for s in salidas)
        self._inner.recibe(salidas)


@dataclass(frozen=True)
class Carrera:
    """A run on the real model. filas: (request, from, to, kind) in steps, for ``ver_gantt``; tokens: of each answer."""

    segundos: float
    pasos: int
    tokens: tuple[tuple[int, ...], ...] = field(repr=False)
    filas: tuple[tuple[str, int, int, str], ...] = field(repr=False)

    @property
    def tok_s(self) -> float:
        return sum(map(len, self.tokens)) / self.segundos


class _Noted:
    """A backend that also writes down who was computed in which step."""

    def __init__(self, backend: RunnerBackend, prompts: Mapping[int, Sequence[int]]):
        self._backend, self._lengths = backend, {i: len(p) for i, p in prompts.items()}
        self.rows: dict[int, list[list[Any]]] = {i: [] for i in prompts}
        self._step = 0

    def step(self, items: Sequence[Item]) -> dict[int, int]:
        for item in items:
            kind = "prefill" if item.start < self._lengths[item.id] else "decode"
            own = self.rows[item.id]
            if own and own[-1][1] == self._step and own[-1][2] == kind == "decode":
                own[-1][1] += 1
            else:
                own.append([self._step, self._step + 1, kind])
        self._step += 1
        return self._backend.step(items)


class Banco:
    """The notebook's model, loaded once, in float32 on plain torch operations: what is gained is the scheduler's."""

    def __init__(self, modelo: LabModel):
        self._model = load_model(Path(modelo.carpeta))
        self._tokenizer = Tokenizer.from_folder(Path(modelo.carpeta))

    def ids(self, preguntas: Sequence[str]) -> list[list[int]]:
        """Each question through the chat template."""
        return [list(self._tokenizer.apply_chat_template([{"role": "user", "content": p}])) for p in preguntas]

    def texto(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens))

    def corre(self, clase: Maker, preguntas: Sequence[str], nuevos: int | Sequence[int], lugares: int) -> Carrera:
        """Serve all questions, there from the start, greedily; ``nuevos`` tokens each (one for all, or a list).

        Raises :class:`BrokenRule` with the world's complaint.
        """
        prompts = dict(enumerate(self.ids(preguntas)))
        lengths = [nuevos] * len(prompts) if isinstance(nuevos, int) else list(nuevos)
        longest = max(map(len, prompts.values())) + max(lengths)
        limits = Limits(lugares, max(BUDGET, longest), lugares * -(-longest // BLOCK), BLOCK)
        backend = RunnerBackend(self._model, prompts, max(lengths), limits.num_blocks, limits.block_size)
        noted = _Noted(backend, prompts)
        requests = [Request(i, 0.0, tuple(p), n) for (i, p), n in zip(prompts.items(), lengths, strict=True)]
        world = World(requests, limits, noted, RealTime())
        complaint = drive(LocalRemote({NAME: clase}), world, NAME)
        if complaint is not None:
            raise BrokenRule(f"Tu planificador rompió una regla. {complaint}")
        took = world.clock.now()
        rows = tuple((f"p{i}", *row) for i, own in noted.rows.items() for row in own)
        return Carrera(took, world.steps, tuple(tuple(p.text) for p in world.progress.values()), rows)


def reloj_virtual(clase: Maker, semilla: int = 1) -> dict[str, float]:
    """Workload -> times the throughput of one request at a time, on the virtual clock.

    Raises :class:`BrokenRule` with the world's complaint.
    """
    rng = Random(semilla)
    runs: dict[str, Run] = {}
    for make in (cargas.short, cargas.mixed, cargas.bursts):
        workload = make(rng)
        runs[workload.name] = play(LocalRemote({NAME: clase}), workload)
    for name, run in runs.items():
        if run.complaint:
            raise BrokenRule(f"En la carga «{name}». {run.complaint}")
    return {name: run.ratio for name, run in runs.items()}


def esperas(
    rangos: Callable[[list[dict[str, int]]], list[Any]], cola: Sequence[tuple[int, int]], lugares: int
) -> list[int | None]:
    """Steps that each request waits. cola: (arrival step, prompt tokens); it holds its place 1 step per 32 tokens.

    None: it was still waiting when the last one came.
    """
    requests = [{"arrival_step": arrival, "num_prompt_tokens": tokens} for arrival, tokens in cola]
    lengths = [max(1, tokens // 32) for _, tokens in cola]
    return waits_in_a_queue(rangos(requests), [arrival for arrival, _ in cola], lengths, lugares)


def espera_media(traza: dict[str, Any]) -> float:
    """Mean seconds from arrival to first token in an engine trace."""
    waits = [r["first_token"] - r["arrival"] for r in traza["requests"].values()]
    return sum(waits) / len(waits)


def curva(
    series: Mapping[str, Mapping[float, float]], eje_x: str, eje_y: str, titulo: str, limite: float | None = None
) -> FigureWithText:
    """Lines over a logarithmic (base 2) axis, with markers besides colour. limite: a dashed horizontal line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    for (name, points), color, marker in zip(series.items(), (BLUE, VERMILION, GREEN, BLACK), "os^D", strict=False):
        axes.plot(list(points), list(points.values()), color=color, marker=marker, label=name)
    if limite is not None:
        axes.axhline(limite, color=BLACK, linestyle="--", linewidth=1, label="límite")
    ticks = sorted({x for points in series.values() for x in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set(xlabel=eje_x, ylabel=eje_y, title=titulo)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(framealpha=1)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{significativa(y)} en {x:g}" for x, y in points.items())
        for name, points in series.items()
    )
    limit = "" if limite is None else f" Límite: {significativa(limite)}."
    return FigureWithText(figure, f"{titulo} ({eje_y}, según {eje_x}). {told}.{limit}")

"""The student's speculative parts in the live engine, and races between engines that speculate in different ways."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minilab.graficas import BLACK, BLUE, GREEN, VERMILION, FigureWithText
from minilab.modelo import LabModel
from minilab.pruebas.ji_cuadrado import JiCuadrado, ji_cuadrado
from minilab.vistas.cifras import cifra, porcentaje
from minillm_serve import LLM, SamplingParams
from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.prompts import PROMPTS
from minillm_serve.bench.spec_run import Contender, Turn, figures
from minillm_serve.engine.trace import read_trace
from minillm_serve.model.store import shipped_head
from minillm_serve.seams import SPEC_VERIFY, Seams
from minillm_serve.spec.length import STEP_COSTS, StepCosts

__all__ = [
    "CHARLA", "COPIA", "COSTE_CPU", "Corredor", "JiCuadrado", "cabeza", "carrera", "coste_por_tokens",
    "curva_de_ganancia", "ji_cuadrado", "traza_de", "verificador", "verificador_voraz",
]  # fmt: skip

COPIA: tuple[str, ...] = tuple(p.text for p in COPY_PROMPTS if p.schema is None)
CHARLA: tuple[str, ...] = PROMPTS
COSTE_CPU: StepCosts = STEP_COSTS["cpu"]

Verify = Callable[[list[int], list[list[float]] | None, list[list[float]], list[list[float]]], list[int]]
Greedy = Callable[[list[int], list[int]], list[int]]
Search = Callable[[list[int], int, int], list[int]]


def cabeza(modelo: LabModel, tokens: int = 6, **claves: Any) -> dict[str, Any]:
    """The speculative configuration with the trained head that comes for this model.

    The tiny model has none: there it drafts for itself, which shows how it works and never pays.
    """
    method = {"method": "eagle", "model": modelo.nombre}
    if shipped_head(modelo.nombre) is None:
        method = {"method": "draft_model", "model": modelo.carpeta}
    return {**method, "num_speculative_tokens": tokens, **claves}


def verificador(verifica: Verify) -> Callable[..., list[int]]:
    """``verifica(borradores, q, p, uniformes)`` on plain lists, as the seam ``spec.verify`` (arrays) wants it.

    The vocabulary is narrowed to the tokens that p or q may give and the drafts themselves, in their order: the answer
    is the same, and the student's loops run over a handful of tokens instead of tens of thousands where a text is
    greedy or its tail is cut off.
    """

    def verify(drafts: Sequence[int], q: Any, p: Any, uniforms: Any) -> list[int]:
        ids = _possible(drafts, q, p)
        place = {token: index for index, token in enumerate(ids.tolist())}
        narrow = None if q is None else q[:, ids].tolist()
        answer = verifica([place[int(d)] for d in drafts], narrow, p[:, ids].tolist(), uniforms.tolist())
        return [int(ids[index]) for index in answer]

    return verify


def verificador_voraz(verifica_voraz: Greedy) -> Callable[..., list[int]]:
    """``verifica_voraz(borrador, elegidos)`` as the seam ``spec.verify``, at temperature 0: p has one token.

    Raises ValueError in Spanish where a row of p has more than one possible token.
    """

    def verify(drafts: Sequence[int], q: Any, p: Any, uniforms: Any) -> list[int]:
        if (np.count_nonzero(p, axis=1) != 1).any():
            raise ValueError("verifica_voraz solo sirve con temperatura 0: aquí p reparte entre varios tokens")
        return verifica_voraz([int(d) for d in drafts], p.argmax(axis=1).tolist())

    return verify


def _possible(drafts: Sequence[int], q: Any, p: Any) -> Any:
    possible = (p > 0).any(axis=0)
    if q is not None:
        possible |= (q > 0).any(axis=0)
    possible[list(drafts)] = True
    return np.flatnonzero(possible)


class Buscador:
    """A proposer (see minillm_serve.spec.proposer) that asks the student's ``busca_ngram(tokens, n, k)``."""

    def __init__(self, busca: Search, n: int):
        self._busca, self._n = busca, n
        self._texts: dict[int, list[int]] = {}

    def add(self, rid: int, token_ids: Sequence[int]) -> None:
        self._texts[rid] = list(token_ids)

    def extend(self, rid: int, token_ids: Sequence[int]) -> None:
        self._texts[rid] += token_ids

    def drop(self, rid: int) -> None:
        self._texts.pop(rid, None)

    def propose(self, limits: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
        drafts = {rid: tuple(self._busca(list(self._texts[rid]), self._n, k))[:k] for rid, k in limits.items()}
        return {rid: draft for rid, draft in drafts.items() if draft}


@dataclass(frozen=True)
class Corredor:
    """One way of serving: ``especula`` is what ``--speculative-config`` takes (None: no drafts).

    verifica: a function for the seam ``spec.verify``, from :func:`verificador` or :func:`verificador_voraz`. busca: a
    student's ``busca_ngram``, in place of the engine's own search; it gets the n of ``prompt_lookup_max``.
    """

    especula: Mapping[str, Any] | None = None
    verifica: Callable[..., list[int]] | None = None
    busca: Search | None = None

    def motor(self, modelo: LabModel, **opciones: Any) -> LLM:
        """A live engine of this kind; close it."""
        seams = Seams({SPEC_VERIFY: self.verifica}) if self.verifica else None
        settings = dict(opciones) if self.especula is None else {**opciones, "speculative_config": dict(self.especula)}
        llm = LLM(modelo.carpeta, seams=seams, **settings)
        if self.busca is not None:
            speculation = llm.core.runner.speculation
            if speculation is None or speculation.reader is not None:
                raise ValueError("busca necesita un corredor con method ngram: es su búsqueda la que sustituye")
            speculation.proposer = Buscador(self.busca, llm.config.speculative_config.prompt_lookup_max)
        return llm


@dataclass(frozen=True)
class Carrera:
    """What each runner did, beside the first one. cifras: see :func:`minillm_serve.bench.spec_run.figures`; borradores:
    (verified, accepted) of each step that had drafts; respuestas: the tokens of the first turn."""

    base: str
    cifras: Mapping[str, Mapping[str, Any]]
    borradores: Mapping[str, tuple[tuple[int, int], ...]] = field(repr=False)
    respuestas: Mapping[str, tuple[tuple[int, ...], ...]] = field(repr=False)

    def ganancia(self, nombre: str) -> float:
        """Times the base's tokens a second: the median of the turns."""
        return self.cifras[nombre]["speed_up"]

    def iguales(self, nombre: str) -> bool:
        """Whether every answer of every turn has the base's tokens."""
        return self.cifras[nombre]["same_tokens"]

    def aceptacion(self, nombre: str) -> float | None:
        """Of the drafted tokens, those accepted; None where nothing was drafted."""
        return self.cifras[nombre]["acceptance_rate"]

    def alfa(self, nombre: str) -> float | None:
        """Of the drafts that were looked at (the accepted ones, and the one that fell), those accepted: the α of
        Leviathan et al. 2023; None where nothing was drafted."""
        accepted = sum(stand for _, stand in self.borradores[nombre])
        fallen = sum(stand < count for count, stand in self.borradores[nombre])
        return accepted / (accepted + fallen) if self.borradores[nombre] else None

    def tokens_por_paso(self, nombre: str) -> float:
        return self.cifras[nombre]["tokens_per_step"]

    HEAD = ("", "tok/s (mediana)", "veces la base", "de … a …", "aceptados", "tokens por paso", "¿mismos tokens?")

    def __repr__(self) -> str:
        lines = [
            ", ".join(f"{head}: {cell}" for head, cell in zip(self.HEAD, row, strict=True)) for row in self._rows()
        ]
        return "\n".join(line.removeprefix(": ") for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.HEAD)
        cells = [(html.escape(row[0]), "".join(f"<td>{html.escape(c)}</td>" for c in row[1:])) for row in self._rows()]
        body = "".join(f'<tr><th scope="row">{name}</th>{figures}</tr>' for name, figures in cells)
        return f"<table><caption>Base: {html.escape(self.base)}</caption><tr>{head}</tr>{body}</table>"

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for name, row in self.cifras.items():
            accepted = row["acceptance_rate"]
            rows.append(
                (
                    name,
                    cifra(row["tok_s"], 1),
                    f"{cifra(row['speed_up'], 2)}×",
                    f"{cifra(row['speed_up_low'], 2)} a {cifra(row['speed_up_high'], 2)}",
                    "–" if accepted is None else porcentaje(accepted),
                    cifra(row["tokens_per_step"], 2),
                    "sí" if row["same_tokens"] else "NO",
                )
            )
        return rows


def carrera(
    modelo: LabModel,
    preguntas: Sequence[str],
    corredores: Mapping[str, Corredor],
    *,
    max_tokens: int = 64,
    a_la_vez: int = 1,
    veces: int = 3,
    params: SamplingParams | None = None,
) -> Carrera:
    """The runners answer the same questions by turns, ``a_la_vez`` of them together; the first runner is the base.

    Each turn starts with nothing remembered; one of a few tokens, not counted, comes before. params: greedy and at most
    ``max_tokens`` tokens by default. Raises ValueError for fewer than two runners.
    """
    if len(corredores) < 2:
        raise ValueError(f"una carrera necesita al menos dos corredores y llegaron {len(corredores)}")
    params = params or SamplingParams(max_tokens=max_tokens, temperature=0.0)
    engines = {name: runner.motor(modelo, max_num_seqs=max(8, a_la_vez)) for name, runner in corredores.items()}
    try:
        first = next(iter(engines.values()))
        asks = [(_as_chat(first, question), params) for question in preguntas]
        contenders = {name: Contender(llm) for name, llm in engines.items()}
        short = [(prompt, SamplingParams(max_tokens=4, temperature=0.0)) for prompt, _ in asks[:a_la_vez]]
        for contender in contenders.values():
            contender.turn(short, a_la_vez)
        turns: dict[str, list[Turn]] = {name: [] for name in contenders}
        for _ in range(veces):
            for name, contender in contenders.items():
                turns[name].append(contender.turn(asks, a_la_vez))
    finally:
        for llm in engines.values():
            llm.close()
    base = next(iter(turns))
    found = {name: figures(turns[base], own) for name, own in turns.items()}
    drafts = {name: tuple(draft for turn in own for draft in turn.drafts) for name, own in turns.items()}
    return Carrera(base, found, drafts, {name: tuple(own[0].answers) for name, own in turns.items()})


def traza_de(
    modelo: LabModel, preguntas: Sequence[str], corredor: Corredor, *, max_tokens: int = 64, a_la_vez: bool = False
) -> dict[str, Any]:
    """The engine's trace (schema ``minillm-trace/2``) of greedy answers, one after the other or all together."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    with tempfile.TemporaryDirectory(prefix="minilab-") as folder:
        file = Path(folder) / "traza.json"
        llm = corredor.motor(modelo, trace_file=file)
        prompts = [_as_chat(llm, question) for question in preguntas]
        for group in [prompts] if a_la_vez else [[prompt] for prompt in prompts]:
            llm.generate(group, params)
        llm.close()
        return read_trace(file)


def coste_por_tokens(traza: Mapping[str, Any]) -> dict[int, tuple[float, int]]:
    """Tokens that a step computed -> (median seconds of such steps, how many there were), prefills left out."""
    seconds: dict[int, list[float]] = {}
    seen: set[str] = set()
    for step in traza["steps"]:
        if not step.get("new_requests") and seen >= set(step["num_tokens"]) and step["num_tokens"]:
            seconds.setdefault(sum(step["num_tokens"].values()), []).append(step["execute"])
        seen |= set(step["tokens"])
    return {tokens: (float(np.median(took)), len(took)) for tokens, took in sorted(seconds.items())}


def curva_de_ganancia(
    ganancia: Callable[..., float], c: float, borradores: Sequence[int], peticiones: Sequence[int], coste: StepCosts
) -> FigureWithText:
    """α against the student's ``ganancia(alfa, k, c, n, libres, pendiente)``: a panel for each n, a line for each k."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(peticiones), 3.6))
    panels = figure.subplots(1, len(peticiones), sharey=True, squeeze=False)[0]
    alphas = [i / 50 for i in range(51)]
    styles = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (BLACK, ":")]
    words = []
    for axes, n in zip(panels, peticiones, strict=True):
        for k, (color, style) in zip(borradores, styles, strict=False):
            gains = [ganancia(a, k, c, n, coste.free, coste.slope) for a in alphas]
            axes.plot(alphas, gains, style, color=color, label=f"k = {k}")
            pays = next((a for a, g in zip(alphas, gains, strict=True) if g > 1), None)
            words.append(
                f"{n} a la vez, k = {k}: "
                + (f"gana desde α = {cifra(pays, 2)}" if pays is not None else "no gana nunca")
            )
        axes.axhline(1, color=BLACK, linewidth=0.8)
        axes.set(xlabel="α, probabilidad de que un borrador se acepte", title=f"{n} a la vez")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("veces la velocidad sin borradores")
    panels[0].legend(framealpha=1)
    return FigureWithText(figure, "Ganancia según α. " + "; ".join(words) + ".")


def _as_chat(llm: LLM, question: str) -> list[int]:
    return llm.tokenizer.apply_chat_template([{"role": "user", "content": question}])

"""The real engine with a student's parts in it, beside the engine as it is."""

from __future__ import annotations

import html
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilab.modelo import LabModel
from minilab.vistas.cifras import cifra, porcentaje
from minillm_serve import LLM, SamplingParams
from minillm_serve.engine.trace import read_trace
from minillm_serve.seams import GUIDED_COMPILE, SEAMS, Seams

HEAD = ("", "tok/s (mediana)", "de … a …", "aciertos de prefijo")


@dataclass(frozen=True)
class Ronda:
    """What one engine did: tokens a second of each run, and the share of prompt tokens found in the prefix cache."""

    tok_s: tuple[float, ...]
    aciertos: float
    textos: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def mediana(self) -> float:
        return statistics.median(self.tok_s)


@dataclass(frozen=True)
class Comparacion:
    """The engine with the student's parts and as it is, measured in turns.

    iguales: both gave the same tokens. traza: the steps of the student's engine (schema ``minillm-trace/2``).
    """

    piezas: tuple[str, ...]
    tuya: Ronda
    referencia: Ronda
    traza: dict[str, Any] = field(repr=False)

    @property
    def ratio(self) -> float:
        """The student's tokens a second over the reference's."""
        return self.tuya.mediana / self.referencia.mediana

    @property
    def iguales(self) -> bool:
        return self.tuya.tokens == self.referencia.tokens

    def __repr__(self) -> str:
        rows = [", ".join(f"{head}: {cell}" for head, cell in zip(HEAD, row, strict=True)) for row in self._rows()]
        return "\n".join([*(row.removeprefix(": ") for row in rows), self._sentence()])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in HEAD)
        body = "".join(
            f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
            for name, *cells in self._rows()
        )
        caption = html.escape(f"El motor con {', '.join(self.piezas)}")
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table><p>{html.escape(self._sentence())}</p>"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                name,
                cifra(r.mediana, 1),
                f"de {cifra(min(r.tok_s), 1)} a {cifra(max(r.tok_s), 1)}",
                porcentaje(r.aciertos),
            )
            for name, r in (("con tus piezas", self.tuya), ("de referencia", self.referencia))
        ]

    def _sentence(self) -> str:
        same = "Los tokens son idénticos" if self.iguales else "¡Los tokens NO son los mismos!"
        return f"{same}. Con tus piezas: {cifra(self.ratio, 2)}× la referencia (mediana de {len(self.tuya.tok_s)})."


def lado_a_lado(
    modelo: LabModel,
    prompts: Sequence[str | Sequence[int]],
    piezas: Mapping[str, Callable[..., Any]],
    *,
    max_tokens: int = 32,
    veces: int = 3,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    chat: bool = True,
    **opciones: Any,
) -> Comparacion:
    """Serve ``prompts`` with the engine that has ``piezas`` (seam -> part) in it and with the engine as it is.

    Each run starts with an empty prefix cache; one run of each is not counted, then they take turns ``veces`` times.
    params: by default greedy, exactly ``max_tokens`` tokens. chat: prompts are questions for the chat template; False:
    texts to go on with. opciones: further fields of EngineConfig for both. Raises KeyError for an unknown seam.
    """
    params = params or SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    engines = [LLM(modelo.carpeta, seams=seams, **opciones) for seams in (con(piezas), None)]
    runs: list[list[tuple[float, list[Any]]]] = [[], []]
    for turn in range(veces + 1):
        for taken, llm in zip(runs, engines, strict=True):
            served = _serve(llm, prompts, params, chat)
            if turn:
                taken.append(served)
    mine, reference = (_round(taken, llm) for taken, llm in zip(runs, engines, strict=True))
    record = traza(modelo, prompts, piezas, params=params, chat=chat, **opciones)
    return Comparacion(tuple(piezas), mine, reference, record)


def traza(
    modelo: LabModel,
    prompts: Sequence[str | Sequence[int]],
    piezas: Mapping[str, Callable[..., Any]] | None = None,
    *,
    max_tokens: int = 32,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    chat: bool = True,
    **opciones: Any,
) -> dict[str, Any]:
    """Every step of one run, for the widgets; the arguments are those of :func:`lado_a_lado`."""
    params = params or SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    with tempfile.TemporaryDirectory(prefix="minilab-") as folder:
        file = Path(folder) / "traza.json"
        with LLM(modelo.carpeta, seams=con(piezas or {}), trace_file=file, **opciones) as llm:
            _serve(llm, prompts, params, chat)
        return read_trace(file)


def con(piezas: Mapping[str, Callable[..., Any]]) -> Seams:
    """The engine's seams with a student's parts; a compiler may speak Spanish (``permitidos``, ``acepta``)."""
    for name in piezas:
        if name not in SEAMS:
            raise KeyError(f"no existe la pieza {name!r}; las que hay: {', '.join(SEAMS)}")
    parts = dict(piezas)
    if GUIDED_COMPILE in parts:
        parts[GUIDED_COMPILE] = _in_english(parts[GUIDED_COMPILE])
    return Seams(parts)


class _EnglishWalker:
    """A student's mask under the names that the engine knows."""

    def __init__(self, mask: Any):
        self.allowed, self.accept = mask.permitidos, mask.acepta


def _in_english(compile_schema: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(schema: Any, texts: list[str | None], end: int) -> Any:
        walker = compile_schema(schema, texts, end)
        return _EnglishWalker(walker) if hasattr(walker, "permitidos") else walker

    return compiled


def _serve(llm: LLM, prompts: Sequence[Any], params: Any, chat: bool) -> tuple[float, list[Any]]:
    """Seconds, and the outputs, of one run from an empty prefix cache."""
    llm.reset_prefix_cache()
    start = time.perf_counter()
    if chat:
        outputs = llm.chat([[{"role": "user", "content": prompt}] for prompt in prompts], params)
    else:
        outputs = llm.generate(list(prompts), params)
    return time.perf_counter() - start, outputs


def _round(runs: list[tuple[float, list[Any]]], llm: LLM) -> Ronda:
    texts = [sample for output in runs[-1][1] for sample in output.outputs]
    stats = llm.core.scheduler.kv.stats
    speeds = tuple(sum(len(s.token_ids) for o in outputs for s in o.outputs) / seconds for seconds, outputs in runs)
    return Ronda(
        speeds,
        stats.hits / max(stats.queries, 1),
        tuple(sample.text for sample in texts),
        tuple(tuple(sample.token_ids) for sample in texts),
    )

"""The scheduler's timeline: who ran when, as bars, and what follows from it: TTFT, ITL, idle places, decode gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

CLASES = ("prefill", "decode", "recalculo", "ocupa")


@dataclass(frozen=True)
class Barra:
    """One request in one stretch of time. clase: one of CLASES; lugar: its place in the batch, from 0.

    tokens: computed in it; guardados: found in the prefix cache instead.
    """

    peticion: str
    paso: int
    inicio: float
    fin: float
    clase: str
    tokens: int = 1
    guardados: int = 0
    lugar: int = 0


@dataclass(frozen=True)
class Peticion:
    """When it arrived and when each of its new tokens came; what is not known is None or empty."""

    nombre: str
    llegada: float
    primer_token: float | None
    tokens: tuple[float, ...] = ()


@dataclass(frozen=True)
class LineaTiempo:
    """A run, or its beginning up to ``hasta``. unidad: "s" or "paso"; hueco: an ITL above it is a decode gap."""

    nombre: str
    unidad: str
    barras: tuple[Barra, ...]
    peticiones: tuple[Peticion, ...]
    lugares: int
    hueco: float
    hasta: float | None = None

    @cached_property
    def origen(self) -> float:
        return min(0.0, *(p.llegada for p in self.peticiones), *(b.inicio for b in self.barras))

    @cached_property
    def final(self) -> float:
        """End of the whole run, whatever ``hasta`` says: the scale of the drawing."""
        return max(bar.fin for bar in self.barras)

    @property
    def ahora(self) -> float:
        return self.final if self.hasta is None else min(self.hasta, self.final)

    @cached_property
    def visibles(self) -> tuple[Barra, ...]:
        """The bars up to now, the last ones cut there."""
        return tuple(replace(b, fin=min(b.fin, self.ahora)) for b in self.barras if b.inicio < self.ahora)

    @property
    def duracion(self) -> float:
        return self.ahora - self.origen

    @property
    def ocupacion(self) -> float:
        """Share of place × time with a request in it, 0 to 1."""
        room = self.lugares * self.duracion
        return sum(b.fin - b.inicio for b in self.visibles) / room if room > 0 else 0.0

    @property
    def lugares_vacios(self) -> float:
        """Place × time without a request."""
        return self.lugares * self.duracion - sum(b.fin - b.inicio for b in self.visibles)

    def tokens_de(self, nombre: str) -> tuple[float, ...]:
        """Moments of its new tokens up to now."""
        return tuple(t for t in self._request(nombre).tokens if t <= self.ahora + 1e-12)

    def ttft(self, nombre: str) -> float | None:
        """From arrival to first token; None while there is none."""
        request = self._request(nombre)
        if request.primer_token is None or request.primer_token > self.ahora + 1e-12:
            return None
        return request.primer_token - request.llegada

    def itl(self, nombre: str) -> list[float]:
        """Times between consecutive tokens."""
        moments = self.tokens_de(nombre)
        return [b - a for a, b in pairwise(moments)]

    @cached_property
    def huecos(self) -> list[tuple[str, float, float]]:
        """(request, from, to) of each wait for the next token that is longer than ``hueco``."""
        found = []
        for request in self.peticiones:
            moments = self.tokens_de(request.nombre)
            pairs = pairwise(moments)
            found += [(request.nombre, a, b) for a, b in pairs if b - a > self.hueco + 1e-12]
        return found

    @cached_property
    def por_peticion(self) -> dict[str, tuple[Barra, ...]]:
        """The visible bars of each request, in their order."""
        found: dict[str, list[Barra]] = {request.nombre: [] for request in self.peticiones}
        for bar in self.visibles:
            found[bar.peticion].append(bar)
        return {name: tuple(bars) for name, bars in found.items()}

    @cached_property
    def _by_name(self) -> dict[str, Peticion]:
        return {request.nombre: request for request in self.peticiones}

    def _request(self, nombre: str) -> Peticion:
        return self._by_name[nombre]


def linea_de_traza(
    traza: dict[str, Any],
    nombre: str = "",
    lugares: int | None = None,
    hueco: float | None = None,
    con_id: bool = False,
) -> LineaTiempo:
    """From an engine trace, in seconds since the first arrival. lugares: default, the most requests of one step.

    con_id: call each request by its own id, not p0, p1…
    """
    from minillm_serve.bench.gantt import bars
    from minillm_serve.engine.trace import read_trace

    traza = read_trace(traza)
    names = {str(rid): r["id"] if con_id else f"p{rid}" for rid, r in traza["requests"].items()}
    origin = min(r["arrival"] for r in traza["requests"].values())
    kinds = {"prefill": "prefill", "decode": "decode", "recompute": "recalculo"}
    drawn: list[Barra] = []
    begin = end = 0.0
    for bar in bars(traza):
        if not drawn or bar.step != drawn[-1].paso:  # a step planned ahead starts to run when the one before it ends
            begin = max(bar.start - origin, end)
            end = max(bar.start - origin + bar.duration, begin)
        drawn.append(Barra(names[str(bar.request)], bar.step, begin, end, kinds[bar.kind], bar.tokens, bar.cached))
    ends = {bar.paso: bar.fin for bar in drawn}
    moments: dict[str, list[float]] = {name: [] for name in names.values()}
    for step in traza["steps"]:
        for rid, tokens in step["tokens"].items():
            moments[names[str(rid)]] += [ends[step["step"]]] * bool(tokens)
    requests = tuple(
        Peticion(name := names[str(rid)], r["arrival"] - origin, next(iter(moments[name]), None), tuple(moments[name]))
        for rid, r in sorted(traza["requests"].items(), key=lambda item: (item[1]["arrival"], int(item[0])))
    )
    return _line(nombre, "s", drawn, requests, lugares, hueco)


def linea_de_filas(
    filas: Sequence[Sequence[Any]],
    nombre: str = "",
    lugares: int | None = None,
    llegadas: Mapping[Any, float] | None = None,
    hueco: float | None = None,
) -> LineaTiempo:
    """From ``(petición, inicio, fin)`` or ``(petición, inicio, fin, clase)`` in whole steps, ``fin`` exclusive.

    A "decode" bar draws one token in each of its steps, the last "prefill" bar one at its end. Requests arrive at
    step 0 unless ``llegadas`` says otherwise. Raises ValueError, in Spanish, on a row that cannot be.
    """
    if not filas:
        raise ValueError("no hay filas: da al menos una (petición, inicio, fin)")
    bars = [_bar(row) for row in sorted(filas, key=lambda row: row[1])]
    arrivals = {str(name): float(moment) for name, moment in (llegadas or {}).items()}
    requests = []
    for name in dict.fromkeys(str(row[0]) for row in filas):
        own = [bar for bar in bars if bar.peticion == name]
        for one, other in pairwise(own):
            if other.inicio < one.fin:
                raise ValueError(f"la petición {name} está dos veces en el paso {int(other.inicio)}")
        tokens = [moment for bar in own for moment in _moments(bar, last_prefill=_last_prefill(own))]
        requests.append(Peticion(name, arrivals.get(name, 0.0), tokens[0] if tokens else None, tuple(tokens)))
    return _line(nombre, "paso", bars, tuple(requests), lugares, hueco)


def _bar(row: Sequence[Any]) -> Barra:
    name, start, end, *kind = row
    clase = kind[0] if kind else "ocupa"
    if clase not in CLASES:
        raise ValueError(f"la petición {name}: la clase {clase!r} no existe; usa una de {', '.join(CLASES)}")
    if not 0 <= start < end:
        raise ValueError(f"la petición {name}: el tramo de {start} a {end} está vacío o va hacia atrás")
    return Barra(str(name), int(start), float(start), float(end), clase)


def _last_prefill(own: Sequence[Barra]) -> Barra | None:
    return next((bar for bar in reversed(own) if bar.clase == "prefill"), None)


def _moments(bar: Barra, last_prefill: Barra | None) -> list[float]:
    """When a bar gives tokens: a prompt may be read in several chunks, and the last of them gives one."""
    if bar.clase == "decode":
        return [float(step) for step in range(int(bar.inicio) + 1, int(bar.fin) + 1)]
    return [bar.fin] if bar is last_prefill else []


def _line(
    nombre: str,
    unidad: str,
    bars: Sequence[Barra],
    requests: tuple[Peticion, ...],
    lugares: int | None,
    hueco: float | None,
) -> LineaTiempo:
    placed, used = _places(bars)
    if lugares is not None and lugares < used:
        raise ValueError(f"hay {used} peticiones a la vez y solo {lugares} lugares")
    waits = [b - a for r in requests for a, b in pairwise(r.tokens)]
    limit = hueco if hueco is not None else 2 * median(waits) if waits else 0.0
    return LineaTiempo(nombre, unidad, tuple(placed), requests, lugares or used, limit)


def _places(bars: Sequence[Barra]) -> tuple[list[Barra], int]:
    """Bars with a place each, and how many places that takes: as many as ever run at once.

    A request keeps its place while it can: a free one whose last holder will run again is the last to be given away.
    """
    last_start = {bar.peticion: bar.inicio for bar in sorted(bars, key=lambda b: b.inicio)}
    free_at: list[float] = []
    holder: list[str] = []
    placed = []
    for bar in sorted(bars, key=lambda b: (b.inicio, b.paso)):
        free = [i for i, moment in enumerate(free_at) if moment <= bar.inicio + 1e-9]
        if free:
            place = min(free, key=lambda i: (holder[i] != bar.peticion, last_start[holder[i]] >= bar.inicio, i))
        else:
            place = len(free_at)
            free_at.append(0.0)
            holder.append("")
        free_at[place], holder[place] = bar.fin, bar.peticion
        placed.append(replace(bar, lugar=place))
    return placed, len(free_at)

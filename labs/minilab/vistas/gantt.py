"""The Gantt chart of one run, or of several on the same time scale: bars, idle places, first tokens, decode gaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from minilab.vistas.cifras import cifra, cuenta, porcentaje, significativa
from minilab.vistas.lienzo import ANCHO, Lienzo, ancho_texto, recorta
from minilab.vistas.linea import Barra, LineaTiempo, Peticion
from minilab.vistas.paleta import (
    BLANCO,
    DECODE,
    DUENOS,
    GRIS,
    GUARDADO,
    OCUPA,
    PREFILL,
    RECALCULO,
    TINTA,
    VACIO,
)
from minilab.vistas.vista import Tabla, Vista
from minillm_serve.bench.svg import tick_label, ticks

ESTILOS = {"prefill": PREFILL, "decode": DECODE, "recalculo": RECALCULO, "ocupa": OCUPA}
NOMBRES = {
    "prefill": "prefill",
    "decode": "decode",
    "recalculo": "recálculo tras desalojo",
    "ocupa": "en el lote",
}
IZQUIERDA, MARGEN = 92.0, 20.0
MAX_FILAS = 64


def dibuja_gantt(lineas: Sequence[LineaTiempo], por: str = "peticion") -> Vista:
    """One under another, with a common axis. por: a row per "peticion", or per "lugar" of the batch.

    Raises ValueError, in Spanish, where the units differ or ``por`` is something else.
    """
    if por not in ("peticion", "lugar"):
        raise ValueError(f"por={por!r} no existe: usa 'peticion' o 'lugar'")
    if len({linea.unidad for linea in lineas}) != 1:
        raise ValueError("no se pueden comparar segundos con pasos: todas las líneas deben tener la misma unidad")
    lienzo = Lienzo()
    unit = "segundos desde la primera llegada" if lineas[0].unidad == "s" else "paso"
    start, end = min(linea.origen for linea in lineas), max(linea.final for linea in lineas)
    axis = _Axis(start, end)
    lienzo.texto(16, 26, "Qué hizo el planificador", talla=17, negrita=True)
    y = _legend(lienzo, lineas, por, 40)
    for linea in lineas:
        y = _heading(lienzo, linea, y + 16)
        y = (_by_request if por == "peticion" else _by_place)(lienzo, linea, axis, y)
        y = _strip(lienzo, linea, axis, y + 6) + 6
    marks = [((m - start) / max(end - start, 1e-12), tick_label(m).replace(".", ",")) for m in axis.ticks()]
    lienzo.eje_x(IZQUIERDA, y, ANCHO - IZQUIERDA - MARGEN, marks, unit)
    return lienzo.vista("Qué hizo el planificador", " ".join(map(_sentence, lineas)), _table(lineas))


class _Axis:
    """Time -> x."""

    def __init__(self, start: float, end: float):
        self.start, self.end = start, end
        self.scale = (ANCHO - IZQUIERDA - MARGEN) / max(end - start, 1e-12)

    def __call__(self, moment: float) -> float:
        return IZQUIERDA + (moment - self.start) * self.scale

    def ticks(self) -> list[float]:
        return [self.start + t for t in ticks(self.end - self.start, 10)]


def _legend(lienzo: Lienzo, lineas: Sequence[LineaTiempo], por: str, y: float) -> float:
    present = {bar.clase for linea in lineas for bar in linea.barras}
    owners = por == "lugar" and present == {"ocupa"}
    entries = [(ESTILOS[name], NOMBRES[name]) for name in ESTILOS if name in present and not owners]
    if any(bar.guardados for linea in lineas for bar in linea.barras):
        entries.append((GUARDADO, "hallado en la caché de prefijos"))
    entries.append((VACIO, "lugar vacío del lote"))
    y = lienzo.leyenda(16, y, entries)
    if not present - {"ocupa"}:
        return y
    x = 16.0
    lienzo.punto(x + 6, y + 7, 4, BLANCO)
    lienzo.texto(x + 18, y + 11, "llegada", talla=12)
    lienzo.punto(x + 92, y + 7, 5, TINTA, "triangulo")
    lienzo.texto(x + 104, y + 11, "primer token (TTFT)", talla=12)
    _bracket(lienzo, x + 250, x + 276, y + 4)
    lienzo.texto(x + 284, y + 11, "hueco de decode: un ITL mayor que el límite", talla=12)
    return y + 20


def _heading(lienzo: Lienzo, linea: LineaTiempo, y: float) -> float:
    parts = [f"{_amount(linea, linea.duracion)} {_unit(linea)}"]
    parts += [f"{porcentaje(1 - linea.ocupacion)} de los lugares vacíos", *_waits(linea)]
    if linea.nombre:
        lienzo.texto(16, y + 4, recorta(linea.nombre, ANCHO - 32, 15), talla=15, negrita=True)
        y += 20
    return lienzo.parrafo(16, y + 4, " · ".join(parts), ANCHO - 32, 12, GRIS) - 6


def _waits(linea: LineaTiempo) -> list[str]:
    """The mean TTFT and the longest decode gap, as far as there are any."""
    parts, unit = [], _unit(linea)
    if first := [t for t in (linea.ttft(p.nombre) for p in linea.peticiones) if t is not None]:
        parts.append(f"TTFT medio {_amount(linea, sum(first) / len(first))} {unit}")
    if gaps := linea.huecos:
        longest = max(gaps, key=lambda gap: gap[2] - gap[1])
        parts.append(f"hueco mayor {_amount(linea, longest[2] - longest[1])} {unit} ({longest[0]})")
    return parts


def _by_request(lienzo: Lienzo, linea: LineaTiempo, axis: _Axis, y: float) -> float:
    shown = linea.peticiones[:MAX_FILAS]
    height = min(26.0, max(10.0, 460 / len(shown)))
    marked = any(bar.clase != "ocupa" for bar in linea.barras)
    for index, request in enumerate(shown):
        top = y + index * height
        own = linea.por_peticion[request.nombre]
        if height >= 14 or index % 2 == 0:
            name = recorta(request.nombre, IZQUIERDA - 30, 11)
            lienzo.texto(IZQUIERDA - 12, top + height / 2 + 4, name, "end", 11)
        _request_row(lienzo, linea, axis, request, own, top, height, marked)
    y += len(shown) * height
    if len(linea.peticiones) > len(shown):
        lienzo.texto(16, y + 14, f"… y {cuenta(len(linea.peticiones) - len(shown), 'petición', 'peticiones')} más")
        y += 20
    return y


def _request_row(
    lienzo: Lienzo,
    linea: LineaTiempo,
    axis: _Axis,
    request: Peticion,
    own: Sequence[Barra],
    top: float,
    height: float,
    marked: bool,
) -> None:
    """Waiting dashed, then bars; marks above them where the row is high enough to tell them apart."""
    middle, room = top + height * 0.6, 7.0 if height >= 18 else 0.0
    first = own[0].inicio if own else linea.ahora
    if request.llegada < first:
        lienzo.linea(axis(request.llegada), middle, axis(first), middle, GRIS, 1.2, "3 3")
    for kind, start, end, cached in _stretches(own, _joint(linea)):
        x, w = axis(start), axis(end) - axis(start)
        box = (x, top + room + 1, max(w, 1.0), height - room - 3)
        lienzo.caja(*box, ESTILOS[kind], grosor=0.8, titulo=_tip(linea, request.nombre, kind, start, end))
        if cached:
            words = f"{request.nombre}: {cuenta(cached, 'token')} del prefijo, en la caché"
            lienzo.caja(x, box[1] + box[3] - 5, max(w, 4.0), 5, GUARDADO, grosor=0.8, titulo=words)
    if not marked:
        return
    for name, a, b in linea.huecos:
        if room and name == request.nombre:
            _bracket(lienzo, axis(a), axis(b), top + 1.5)
    if request.llegada <= linea.ahora:
        lienzo.punto(axis(request.llegada), middle, 3.5, BLANCO)
    if linea.ttft(request.nombre) is not None and request.primer_token is not None:
        lienzo.punto(axis(request.primer_token), top + 4, 4, TINTA, "triangulo")


def _joint(linea: LineaTiempo) -> float:
    """Pauses up to this long are too short to be drawn; between steps they are the engine's own work."""
    return 0.0 if linea.unidad == "paso" else 0.004 * (linea.final - linea.origen)


def _stretches(own: Sequence[Barra], joint: float) -> list[tuple[str, float, float, int]]:
    """Bars of a kind that follow each other at once, as one: (kind, start, end, tokens found in the cache)."""
    merged: list[list[float | str | int]] = []
    for bar in own:
        last = merged[-1] if merged else None
        hit = bar.guardados or (last and last[3])  # what was found in the cache belongs to one step
        if last and last[0] == bar.clase and not hit and bar.inicio - float(last[2]) <= joint:
            last[2] = bar.fin
        else:
            merged.append([bar.clase, bar.inicio, bar.fin, bar.guardados])
    return [tuple(entry) for entry in merged]


def _by_place(lienzo: Lienzo, linea: LineaTiempo, axis: _Axis, y: float) -> float:
    """A row per place in the batch: what is shaded, nobody used."""
    height = min(28.0, max(10.0, 460 / linea.lugares))
    plain = {bar.clase for bar in linea.barras} == {"ocupa"}
    order = [request.nombre for request in linea.peticiones]
    for place in range(linea.lugares):
        top = y + place * height
        if height >= 14 or place % 2 == 0:
            lienzo.texto(IZQUIERDA - 12, top + height / 2 + 4, f"lugar {place}", "end", 11)
        start, end = axis(linea.origen), axis(linea.ahora)
        lienzo.caja(start, top + 1, max(end - start, 0), height - 3, VACIO, grosor=0.8, titulo=f"lugar {place}: vacío")
        own = [bar for bar in linea.visibles if bar.lugar == place]
        for name, bars in groupby(own, key=lambda bar: bar.peticion):
            for kind, begin, stop, _ in _stretches(list(bars), _joint(linea)):
                style = DUENOS[order.index(name) % len(DUENOS)] if plain else ESTILOS[kind]
                x, w = axis(begin), max(axis(stop) - axis(begin), 1.0)
                tip = _tip(linea, name, kind, begin, stop)
                lienzo.caja(x, top + 1, w, height - 3, style, grosor=0.8, titulo=tip)
                if height >= 16 and ancho_texto(name, 11) + 6 < w:
                    lienzo.texto(
                        x + w / 2, top + height / 2 + 3.5, name, "middle", 11, style.tinta, placa=style.relleno
                    )
    return y + linea.lugares * height


def _strip(lienzo: Lienzo, linea: LineaTiempo, axis: _Axis, y: float) -> float:
    """Places in use at each moment, against all there are."""
    height = 44.0
    lienzo.texto(IZQUIERDA - 12, y + 12, str(linea.lugares), "end", 11, GRIS)
    lienzo.texto(IZQUIERDA - 12, y + height, "0", "end", 11, GRIS)
    lienzo.texto(16, y + 14, "lugares", talla=11, color=GRIS)
    lienzo.texto(16, y + 28, "en uso", talla=11, color=GRIS)
    left, right = axis(linea.origen), axis(linea.ahora)
    lienzo.caja(left, y, max(right - left, 0.0), height, VACIO, grosor=0.8, titulo="lugares vacíos")
    for start, end, count in _levels(linea.visibles, _joint(linea)):
        h = height * count / linea.lugares
        words = f"{count} de {linea.lugares} lugares en uso"
        box = (axis(start), y + height - h, axis(end) - axis(start), h)
        lienzo.caja(*box, OCUPA, grosor=0.8, titulo=words)
    return y + height


def _levels(bars: Sequence[Barra], joint: float) -> list[tuple[float, float, int]]:
    """(from, to, how many run) for each stretch in which somebody does."""
    changes: dict[float, int] = {}
    for bar in bars:
        changes[bar.inicio] = changes.get(bar.inicio, 0) + 1
        changes[bar.fin] = changes.get(bar.fin, 0) - 1
    levels: list[tuple[float, float, int]] = []
    running, since = 0, 0.0
    for moment in sorted(changes):
        if running and moment > since:
            if levels and levels[-1][2] == running and since - levels[-1][1] <= joint:
                levels[-1] = (levels[-1][0], moment, running)
            else:
                levels.append((since, moment, running))
        running, since = running + changes[moment], moment
    return levels


def _bracket(lienzo: Lienzo, left: float, right: float, y: float) -> None:
    """A wait between two tokens."""
    lienzo.curva([(left, y + 5), (left, y), (right, y), (right, y + 5)], TINTA, 1.8)


def _unit(linea: LineaTiempo) -> str:
    return "s" if linea.unidad == "s" else "pasos"


def _amount(linea: LineaTiempo, value: float) -> str:
    if linea.unidad == "s":
        return significativa(round(value, 4))  # a tenth of a millisecond is finer than any clock here tells
    return cifra(value, 0 if float(value).is_integer() else 1)


def _tip(linea: LineaTiempo, name: str, kind: str, start: float, end: float) -> str:
    return f"{name}: {NOMBRES[kind]}, de {significativa(start)} a {significativa(end)} ({linea.unidad})"


def _sentence(linea: LineaTiempo) -> str:
    unit = _unit(linea)
    head = f"{linea.nombre}: " if linea.nombre else ""
    idle = _amount(linea, linea.lugares_vacios)
    begun = {bar.peticion for bar in linea.visibles}
    words = (
        f"{head}{cuenta(len(begun), 'petición', 'peticiones')} en {_amount(linea, linea.duracion)} {unit} "
        f"con {cuenta(linea.lugares, 'lugar', 'lugares')}; quedan vacíos {idle} lugares·{linea.unidad}, "
        f"{porcentaje(1 - linea.ocupacion)}."
    )
    if any(bar.clase != "ocupa" for bar in linea.barras):
        words += f" Huecos de decode de más de {_amount(linea, linea.hueco)} {unit}: {len(linea.huecos)}."
        words += "".join(f" {part[0].upper()}{part[1:]}." for part in _waits(linea))
    return words


def _table(lineas: Sequence[LineaTiempo]) -> Tabla:
    """A row per run and request; what only prefill and decode tell is left out where a bar is just a place held."""
    marked = any(bar.clase != "ocupa" for linea in lineas for bar in linea.barras)
    head = ["petición", "llegada", "entra", "sale", "lugar"]
    if marked:
        head += ["primer token", "TTFT", "tokens", "ITL mayor", "huecos"]
        head += [f"tramos de {NOMBRES[kind]}" for kind in ("prefill", "decode", "recalculo")]
    rows = [_row(linea, request, marked) for linea in lineas for request in linea.peticiones]
    return Tabla(tuple(head), tuple(rows))


def _row(linea: LineaTiempo, request: Peticion, marked: bool) -> tuple[str, ...]:
    def moment(value: float | None) -> str:
        return "–" if value is None else _amount(linea, value)

    own = linea.por_peticion[request.nombre]
    places = ", ".join(str(place) for place in sorted({bar.lugar for bar in own})) or "–"
    cells = [f"{linea.nombre} · {request.nombre}" if linea.nombre else request.nombre, moment(request.llegada)]
    cells += [moment(own[0].inicio), moment(max(bar.fin for bar in own))] if own else ["–", "–"]
    cells.append(places)
    if marked:
        first, waits = linea.ttft(request.nombre), linea.itl(request.nombre)
        cells += [moment(None if first is None else request.primer_token), moment(first)]
        cells += [str(len(linea.tokens_de(request.nombre))), moment(max(waits, default=None))]
        cells.append(str(sum(name == request.nombre for name, _, _ in linea.huecos)))
        cells += [str(sum(bar.clase == kind for bar in own)) for kind in ("prefill", "decode", "recalculo")]
    return tuple(cells)

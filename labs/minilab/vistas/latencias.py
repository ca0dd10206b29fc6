"""A latency histogram with a percentile line: what the mean hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, sqrt

from minilab.vistas.cifras import cuenta, significativa
from minilab.vistas.lienzo import ANCHO, Lienzo, recorta
from minilab.vistas.paleta import BERMELLON, CELESTE, GRIS, TINTA, Estilo
from minilab.vistas.vista import Tabla, Vista
from minillm_serve.bench.svg import tick_label, ticks

BAJO, SOBRE = Estilo(CELESTE), Estilo(BERMELLON, "/")


def percentil(valores: Sequence[float], p: float) -> float:
    """Percentile p (0 to 100) with linear interpolation at position (n − 1)·p/100."""
    order = sorted(valores)
    place = (len(order) - 1) * p / 100
    low = int(place)
    high = min(low + 1, len(order) - 1)
    return order[low] + (order[high] - order[low]) * (place - low)


@dataclass(frozen=True)
class EstadoLatencias:
    """Values in ``unidad`` and the percentile to look at. Raises ValueError, in Spanish, on no values or odd ones."""

    nombre: str
    valores: tuple[float, ...]
    unidad: str = "s"
    percentil: float = 95

    def __post_init__(self) -> None:
        if not self.valores:
            raise ValueError("no hay valores que dibujar")
        if any(not isfinite(v) or v < 0 for v in self.valores):
            raise ValueError("las latencias deben ser números finitos mayores o iguales que 0")
        if not 0 <= self.percentil <= 100:
            raise ValueError(f"el percentil va de 0 a 100, no {self.percentil}")

    @property
    def valor(self) -> float:
        """The percentile's value."""
        return percentil(self.valores, self.percentil)

    @property
    def media(self) -> float:
        return sum(self.valores) / len(self.valores)

    @property
    def mediana(self) -> float:
        return percentil(self.valores, 50)

    @property
    def por_encima(self) -> int:
        """How many values are above the line."""
        return sum(v > self.valor for v in self.valores)

    @property
    def cubos(self) -> tuple[tuple[float, float, int], ...]:
        """(from, to, how many); the last one includes its upper end. As many as the square root of n, 6 to 30."""
        low, high = min(self.valores), max(self.valores)
        if high == low:
            return ((low, low, len(self.valores)),)
        count = min(30, max(6, ceil(sqrt(len(self.valores)))))
        width = (high - low) / count
        sizes = [0] * count
        for value in self.valores:
            sizes[min(int((value - low) / width), count - 1)] += 1
        return tuple((low + i * width, low + (i + 1) * width, size) for i, size in enumerate(sizes))


def dibuja_latencias(estado: EstadoLatencias) -> Vista:
    """The histogram, with lines for the percentile, the median and the mean, each with its value in words."""
    lienzo = Lienzo()
    title = recorta(f"Latencias: {estado.nombre}" if estado.nombre else "Latencias", ANCHO - 60, 17)
    lienzo.texto(16, 26, title, talla=17, negrita=True)
    left, width, top, height = 66.0, ANCHO - 96, 136.0, 190.0
    buckets, bottom = estado.cubos, 346.0
    highest, end = max(size for _, _, size in buckets), max(buckets[-1][1], 1e-12) * 1.04

    def x(value: float) -> float:
        return left + width * value / end

    for mark in ticks(highest, 4):
        if mark == int(mark):
            y = bottom - height * mark / highest
            lienzo.linea(left, y, left + width, y, grosor=0.5)
            lienzo.texto(left - 8, y + 4, str(int(mark)), "end", 11, GRIS)
    lienzo.texto(16, top - 24, "valores", talla=11, color=GRIS)
    for start, stop, size in buckets:
        if size:
            h, w = height * size / highest, max(x(stop) - x(start), 4.0)
            words = f"de {significativa(start)} a {significativa(stop)} {estado.unidad}: {size}"
            style = SOBRE if start >= estado.valor > buckets[0][0] else BAJO
            lienzo.caja(x(start), bottom - h, w, h, style, titulo=words)
    lines = (
        (estado.mediana, "p50 (mediana)", 2.0, "8 4"),
        (estado.media, "media", 2.0, "2 3"),
        (estado.valor, f"p{estado.percentil:g}", 3.0, ""),
    )
    for row, (value, name, thick, dash) in enumerate(lines):
        y = 50.0 + 20 * row
        lienzo.linea(16, y - 4, 46, y - 4, TINTA, thick, dash)
        lienzo.texto(54, y, f"{name}: {significativa(value)} {estado.unidad}", negrita=True)
        lienzo.linea(x(value), top, x(value), bottom, TINTA, thick, dash)
    name = f"p{estado.percentil:g}"
    lienzo.texto(min(x(estado.valor), ANCHO - 24), top - 6, name, "middle", 13, negrita=True)
    marks = [(mark / end, tick_label(mark).replace(".", ",")) for mark in ticks(end, 8)]
    lienzo.eje_x(left, bottom, width, marks, estado.unidad)
    lienzo.leyenda(16, bottom + 40, [(BAJO, "hasta el percentil"), (SOBRE, "cubos enteros por encima")])
    return lienzo.vista(title, _sentence(estado), _table(estado))


def _sentence(estado: EstadoLatencias) -> str:
    unit = estado.unidad
    return (
        f"{cuenta(len(estado.valores), 'valor', 'valores')}: media {significativa(estado.media)} {unit}, mediana "
        f"{significativa(estado.mediana)} {unit}, p{estado.percentil:g} {significativa(estado.valor)} {unit}; "
        f"{estado.por_encima} por encima de esa línea."
    )


def _table(estado: EstadoLatencias) -> Tabla:
    unit = estado.unidad
    rows = [(f"de {significativa(a)} a {significativa(b)} {unit}", str(size)) for a, b, size in estado.cubos]
    for name, value in (("media", estado.media), ("p50 (mediana)", estado.mediana)):
        rows.append((name, f"{significativa(value)} {unit}"))
    rows.append((f"p{estado.percentil:g}", f"{significativa(estado.valor)} {unit}"))
    return Tabla(("latencia", "valores"), tuple(rows))

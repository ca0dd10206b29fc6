"""The roofline: what limits prefill and decode, and how a larger batch moves decode to the right."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10

from minilab.vistas.cifras import cifra, significativa
from minilab.vistas.equipo import FormaModelo, Techo
from minilab.vistas.lienzo import ANCHO, Lienzo, ancho_texto, recorta
from minilab.vistas.paleta import AMARILLO, AZUL, BERMELLON, BLANCO, GRIS, PURPURA, TINTA
from minilab.vistas.vista import Tabla, Vista


@dataclass(frozen=True)
class Punto:
    """intensidad: FLOP per byte read; gflop_s: GFLOP/s, reached or (``limite``) reachable at most."""

    nombre: str
    intensidad: float
    gflop_s: float
    limite: bool = False


@dataclass(frozen=True)
class EstadoRoofline:
    """lote: sequences in decode, each with ``contexto`` tokens; prompt: tokens that prefill computes at once.

    bits: of a weight; keys and values have as many, but never fewer than 16. Fewer bits make reading cheaper, not sums.
    """

    techo: Techo
    forma: FormaModelo
    lote: int = 1
    contexto: int = 512
    prompt: int = 512
    bits: int = 16
    medidos: tuple[Punto, ...] = ()

    @property
    def decode(self) -> Punto:
        """One step: weights are read once for the whole batch, keys and values once for each sequence."""
        flop = self.lote * self.forma.flop_token(self.contexto)
        return self._point(f"decode, lote {self.lote}", flop, self.lote * self.contexto)

    @property
    def prefill(self) -> Punto:
        """One prompt: each token attends to half of it on average."""
        flop = self.prompt * self.forma.flop_token((self.prompt + 1) / 2)
        return self._point(f"prefill, {self.prompt} tokens", flop, self.prompt)

    def segundos(self, punto: Punto) -> float:
        """Time of one step (decode) or of the prompt (prefill) at the roof."""
        tokens = self.lote if punto.nombre.startswith("decode") else self.prompt
        mean = self.contexto if punto.nombre.startswith("decode") else (self.prompt + 1) / 2
        return tokens * self.forma.flop_token(mean) / (punto.gflop_s * 1e9)

    @property
    def tok_s(self) -> float:
        """Decode tokens per second of the whole batch, at the roof."""
        return self.lote / self.segundos(self.decode)

    def limita(self, punto: Punto) -> str:
        return "la memoria" if punto.intensidad < self.techo.cresta else "el cálculo"

    def _point(self, name: str, flop: float, kv_tokens: int) -> Punto:
        weights = self.forma.bytes_pesos(self.bits)
        read = weights + kv_tokens * self.forma.bytes_kv_por_token(max(self.bits, 16))
        intensity = flop / read
        return Punto(name, intensity, self.techo.alcanzable(intensity), limite=True)


IZQUIERDA, ARRIBA, ALTO = 104.0, 118.0, 300.0


def dibuja_roofline(estado: EstadoRoofline) -> Vista:
    """Both axes logarithmic. Dots at the roof are limits; diamonds are what somebody measured."""
    lienzo, roof = Lienzo(), estado.techo
    lienzo.texto(16, 26, recorta(f"Roofline: {estado.forma.nombre} en {roof.nombre}", 800, 17), talla=17, negrita=True)
    points = [(estado.decode, AZUL, "circulo"), (estado.prefill, BERMELLON, "triangulo")]
    points += [(point, AMARILLO, "rombo") for point in estado.medidos]
    y = 46.0
    for point, color, shape in points[:6]:
        lienzo.punto(24, y - 4, 6, color, shape)
        lienzo.texto(38, y, recorta(_words(estado, point), ANCHO - 54, 13))
        y += 20
    top = max(ARRIBA, y + 16)
    axes = _Axes(estado, [point for point, _, _ in points], top)
    _grid(lienzo, axes)
    _roof(lienzo, axes, roof, TINTA, 3, "")
    if roof.medido:
        _roof(lienzo, axes, Techo(roof.nombre, *roof.medido), PURPURA, 2.5, "8 5")
    x, _ = axes(roof.cresta, roof.tflops * 1e3)
    lienzo.linea(x, top, x, top + ALTO, TINTA, 1, "3 3")
    words = f"cresta: {significativa(roof.cresta)} FLOP/byte"
    side = "end" if x + 8 + ancho_texto(words, 12) > ANCHO - 16 else "start"
    lienzo.texto(x + (7 if side == "start" else -7), top + ALTO - 10, words, side, 12, placa=BLANCO)
    for point, color, shape in reversed(points):
        lienzo.punto(*axes(point.intensidad, point.gflop_s), 7, color, shape, titulo=point.nombre)
    lienzo.linea(IZQUIERDA, top + ALTO + 54, IZQUIERDA + 24, top + ALTO + 54, TINTA, 3)
    lienzo.texto(IZQUIERDA + 30, top + ALTO + 58, f"techo según: {recorta(roof.fuente, 560, 12)}", talla=12)
    if roof.medido:
        lienzo.linea(IZQUIERDA, top + ALTO + 74, IZQUIERDA + 24, top + ALTO + 74, PURPURA, 2.5, "8 5")
        speed, width = cifra(roof.medido[0]), cifra(roof.medido[1])
        lienzo.texto(IZQUIERDA + 30, top + ALTO + 78, f"medido: {speed} TFLOP/s y {width} GB/s", talla=12)
    return lienzo.vista(f"Roofline de {roof.nombre}", _sentence(estado), _table(estado))


class _Axes:
    """(FLOP per byte, GFLOP/s) -> (x, y), whole decades."""

    def __init__(self, estado: EstadoRoofline, points: list[Punto], top: float):
        roof = estado.techo
        xs = [point.intensidad for point in points] + [roof.cresta, 1.0]
        self.low, self.high = _decade(min(xs)), _decade(max(xs) * 10)
        ys = [point.gflop_s for point in points] + [roof.tflops * 1e3, roof.alcanzable(self.low)]
        self.bottom, self.top_value = _decade(min(ys)), _decade(max(ys) * 10)
        self.top = top

    def __call__(self, intensity: float, speed: float) -> tuple[float, float]:
        part = log10(intensity / self.low) / log10(self.high / self.low)
        up = log10(speed / self.bottom) / log10(self.top_value / self.bottom)
        return IZQUIERDA + part * (ANCHO - IZQUIERDA - 24), self.top + ALTO * (1 - up)

    def decades(self, low: float, high: float) -> list[float]:
        return [low * 10**i for i in range(round(log10(high / low)) + 1)]


def _decade(value: float) -> float:
    """The power of ten at or below a value."""
    power = 10.0 ** int(log10(value) - (log10(value) < 0))
    return power if power <= value * (1 + 1e-9) else power / 10


def _roof(lienzo: Lienzo, axes: _Axes, roof: Techo, color: str, thick: float, dash: str) -> None:
    """Rising with the bandwidth, flat from the ridge on."""
    peak = roof.tflops * 1e3
    corners = [(axes.low, roof.alcanzable(axes.low)), (roof.cresta, peak), (axes.high, peak)]
    lienzo.curva([axes(*corner) for corner in corners], color, thick, dash)


def _grid(lienzo: Lienzo, axes: _Axes) -> None:
    bottom = axes.top + ALTO
    for value in axes.decades(axes.bottom, axes.top_value):
        _, y = axes(axes.low, value)
        lienzo.linea(IZQUIERDA, y, ANCHO - 24, y, grosor=0.5)
        lienzo.texto(IZQUIERDA - 8, y + 4, _flops(value), "end", 11, GRIS)
    for value in axes.decades(axes.low, axes.high):
        x, _ = axes(value, axes.bottom)
        lienzo.linea(x, axes.top, x, bottom, grosor=0.5)
        lienzo.texto(x, bottom + 16, cifra(value, max(0, -round(log10(value)))), "middle", 11, GRIS)
    lienzo.texto(ANCHO - 24, bottom + 34, "FLOP por byte leído", "end", 12, GRIS)


def _flops(gflop_s: float) -> str:
    if gflop_s >= 1e3:
        return f"{cifra(gflop_s / 1e3)} TFLOP/s"
    return f"{cifra(gflop_s, 0 if gflop_s >= 1 else 1)} GFLOP/s"


def _words(estado: EstadoRoofline, point: Punto) -> str:
    reach = f"{significativa(point.intensidad)} FLOP/byte, {_speed(point.gflop_s)}"
    if not point.limite:
        share = 100 * point.gflop_s / estado.techo.alcanzable(point.intensidad)
        return f"{point.nombre}: {reach} medidos, {cifra(share)}\u00a0% del techo"
    ends = f" ({significativa(estado.tok_s)} tok/s)" if point == estado.decode else ""
    return f"{point.nombre}: {reach} como mucho{ends}; limita {estado.limita(point)}"


def _speed(gflop_s: float) -> str:
    return f"{significativa(gflop_s / 1e3)} TFLOP/s" if gflop_s >= 1e3 else f"{significativa(gflop_s)} GFLOP/s"


def _sentence(estado: EstadoRoofline) -> str:
    return (
        f"{estado.forma.nombre} con pesos de {estado.bits} bits en {estado.techo.nombre}. "
        + ". ".join(_words(estado, point) for point in (estado.decode, estado.prefill, *estado.medidos))
        + f". La cresta está en {significativa(estado.techo.cresta)} FLOP por byte."
    )


def _table(estado: EstadoRoofline) -> Tabla:
    rows = []
    for point in (estado.decode, estado.prefill, *estado.medidos):
        kind = "límite" if point.limite else "medido"
        cells = (significativa(point.intensidad), _speed(point.gflop_s), kind, estado.limita(point))
        rows.append((point.nombre, *cells))
    roof = estado.techo
    rows.append((f"cresta de {roof.nombre}", significativa(roof.cresta), _speed(roof.tflops * 1e3), "techo", "–"))
    if roof.medido:
        mine = Techo(roof.nombre, *roof.medido)
        rows.append(("cresta medida", significativa(mine.cresta), _speed(mine.tflops * 1e3), "medido", "–"))
    return Tabla(("punto", "FLOP por byte", "velocidad", "qué es", "limita"), tuple(rows))

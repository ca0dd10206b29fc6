"""What became of every draft, the running acceptance, and the gain that it promises (Leviathan et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from minilab.vistas.cifras import cifra, cuenta, porcentaje
from minilab.vistas.lienzo import ANCHO, Lienzo, recorta
from minilab.vistas.paleta import ACEPTADO, AZUL, BERMELLON, BLANCO, GRIS, PROPIO, RECHAZADO, TINTA
from minilab.vistas.vista import Tabla, Vista

MAX_FILAS = 6
GLIFOS = ((ACEPTADO, "✓"), (PROPIO, "+"), (RECHAZADO, "✗"))


@dataclass(frozen=True)
class PasoBorrador:
    """One target pass of a request: drafts verified, how many stand, tokens that the target itself gave."""

    borradores: int
    aceptados: int
    propios: int = 1

    @property
    def juzgados(self) -> int:
        """Drafts whose fate was decided by themselves: up to the first rejected one; the rest fall with it."""
        return self.aceptados + (self.aceptados < self.borradores)


@dataclass(frozen=True)
class EstadoBorradores:
    """The first ``hasta`` passes of each request. k: drafts per pass; coste: a draft pass in units of a target pass."""

    filas: tuple[tuple[str, tuple[PasoBorrador, ...]], ...]
    hasta: int
    k: int
    coste: float = 0.0

    @property
    def pasos(self) -> tuple[PasoBorrador, ...]:
        """The passes seen so far that verified drafts."""
        return tuple(p for _, row in self.filas for p in row[: self.hasta] if p.borradores)

    @property
    def propuestos(self) -> int:
        return sum(p.borradores for p in self.pasos)

    @property
    def aceptados(self) -> int:
        return sum(p.aceptados for p in self.pasos)

    @property
    def aceptacion(self) -> float:
        """α: of the drafts that were judged by themselves, how many stand; 0 before the first."""
        judged = sum(p.juzgados for p in self.pasos)
        return self.aceptados / judged if judged else 0.0

    @property
    def tokens_por_paso(self) -> float:
        """New tokens of a pass with drafts, on average."""
        return (self.aceptados + sum(p.propios for p in self.pasos)) / len(self.pasos) if self.pasos else 0.0

    def esperados(self, alfa: float) -> float:
        """Expected tokens of a pass with k drafts: (1 − α^(k+1)) / (1 − α)."""
        return sum(alfa**i for i in range(self.k + 1))

    def ganancia(self, alfa: float) -> float:
        """Expected speed-up over plain decoding, where a pass over k + 1 tokens costs the same as over one."""
        return self.esperados(alfa) / (1 + self.k * self.coste)

    @property
    def ganancia_esperada(self) -> float:
        return self.ganancia(self.aceptacion)


def borradores_de(traza: Any, k: int | None = None, coste: float = 0.0) -> EstadoBorradores:
    """From an engine trace with drafts, a list of ``(borradores, aceptados)``, or a dict request -> such a list.

    Raises ValueError, in Spanish, where no draft was verified or more stand than there were.
    """
    if isinstance(traza, Mapping) and "schema" in traza:
        from minillm_serve.bench.draft_strip import draft_strip

        rows = tuple(
            (f"p{rid}", tuple(PasoBorrador(len(e.drafts), e.accepted, e.drawn) for e in row))
            for rid, row in draft_strip(dict(traza)).items()
        )
    else:
        named = traza if isinstance(traza, Mapping) else {"petición": traza}
        rows = tuple((str(name), tuple(PasoBorrador(*step) for step in steps)) for name, steps in named.items())
    for name, row in rows:
        for step in row:
            if not 0 <= step.aceptados <= step.borradores:
                raise ValueError(f"{name}: {step.aceptados} aceptados de {step.borradores} borradores no puede ser")
    most = max((step.borradores for _, row in rows for step in row), default=0)
    if not most:
        raise ValueError("ningún paso verificó borradores: enciende la decodificación especulativa")
    return EstadoBorradores(rows, max(len(row) for _, row in rows), k or most, coste)


def dibuja_borradores(estado: EstadoBorradores) -> Vista:
    """The strip above; below, the acceptance so far and what it promises."""
    lienzo = Lienzo()
    lienzo.texto(16, 26, f"Borradores: los primeros {cuenta(estado.hasta, 'paso')}", talla=17, negrita=True)
    names = ("✓ borrador aceptado", "+ token del modelo grande", "✗ borrador rechazado")
    y = lienzo.leyenda(16, 40, [(style, name) for (style, _), name in zip(GLIFOS, names, strict=True)])
    y = _strip(lienzo, estado, y + 8)
    _running(lienzo, estado, 16, y + 14)
    _promise(lienzo, estado, ANCHO / 2 + 12, y + 14)
    return lienzo.vista("Borradores aceptados y rechazados", _sentence(estado), _table(estado))


def _strip(lienzo: Lienzo, estado: EstadoBorradores, y: float) -> float:
    """A column per pass, from the bottom up: what stands, what the target gave, what fell."""
    longest = min(estado.hasta, max(len(row) for _, row in estado.filas))
    size = 20.0 if longest <= 36 else 10.0
    columns = int((ANCHO - 110) // size)
    first = max(0, longest - columns)
    if first:
        lienzo.texto(96, y + 8, f"desde el paso {first + 1}", talla=11, color=GRIS)
        y += 14
    highest = max(p.borradores + p.propios for _, row in estado.filas for p in row)
    for name, row in estado.filas[:MAX_FILAS]:
        bottom = y + size * highest
        lienzo.texto(88, bottom - 4, recorta(name, 70, 12), "end", 12)
        for column, step in enumerate(row[first : estado.hasta]):
            _column(lienzo, 96 + column * size, bottom, size, step)
        y = bottom + 10
    if len(estado.filas) > MAX_FILAS:
        lienzo.texto(96, y + 8, f"… y {cuenta(len(estado.filas) - MAX_FILAS, 'petición', 'peticiones')} más")
        y += 18
    return y


def _column(lienzo: Lienzo, x: float, bottom: float, size: float, step: PasoBorrador) -> None:
    counts = (step.aceptados, step.propios, step.borradores - step.aceptados)
    y = bottom
    for count, (style, glyph) in zip(counts, GLIFOS, strict=True):
        for _ in range(count):
            y -= size
            lienzo.caja(x, y, size - 2, size - 2, style, grosor=0.8)
            if size >= 20:
                lienzo.texto(x + size / 2 - 1, y + 13, glyph, "middle", 11, style.tinta, placa=style.relleno)


def _running(lienzo: Lienzo, estado: EstadoBorradores, x: float, y: float) -> None:
    """α after each pass."""
    lienzo.texto(x, y, "α acumulada tras cada paso", talla=14, negrita=True)
    left, top, width, height = x + 34, y + 16, ANCHO / 2 - 80, 130.0
    _frame(lienzo, left, top, width, height, 1.0)
    points = []
    for number in range(1, estado.hasta + 1):
        part = replace(estado, hasta=number)
        if part.pasos:
            points.append((left + width * number / estado.hasta, top + height * (1 - part.aceptacion)))
    if len(points) > 1:
        lienzo.curva(points, AZUL)
    if points:
        lienzo.punto(*points[-1], 5, AZUL, titulo=f"α = {cifra(estado.aceptacion, 2)}")
    lienzo.eje_x(left, top + height, width, [(0, "0"), (1, str(estado.hasta))], "paso")


def _promise(lienzo: Lienzo, estado: EstadoBorradores, x: float, y: float) -> None:
    """Expected tokens per pass, and speed-up, over α."""
    lienzo.texto(x, y, f"Tokens por paso según α, con k = {estado.k}", talla=14, negrita=True)
    left, top, width, height = x + 34, y + 16, ANCHO / 2 - 80, 130.0
    high = float(estado.k + 1)
    _frame(lienzo, left, top, width, height, high)
    alphas = [i / 40 for i in range(41)]

    def at(alpha: float, value: float) -> tuple[float, float]:
        return left + width * alpha, top + height * (1 - value / high)

    lienzo.curva([at(a, estado.esperados(a)) for a in alphas], AZUL)
    if estado.coste:
        lienzo.curva([at(a, estado.ganancia(a)) for a in alphas], BERMELLON, 2.5, "7 4")
    alpha = estado.aceptacion
    if estado.pasos:
        lienzo.punto(*at(alpha, estado.esperados(alpha)), 5, AZUL, titulo="esperado")
        measured = min(estado.tokens_por_paso, high)
        lienzo.punto(*at(alpha, measured), 6, BLANCO, "rombo", titulo="contado en la traza")
    marks = [(a, cifra(a, 1)) for a in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    lienzo.eje_x(left, top + height, width, marks, "α")
    y = top + height + 52
    lienzo.punto(x + 40, y - 4, 5, AZUL)
    lienzo.texto(x + 52, y, f"esperado: {cifra(estado.esperados(alpha), 2)}", talla=12)
    lienzo.punto(x + 190, y - 4, 6, BLANCO, "rombo")
    lienzo.texto(x + 202, y, f"contado: {cifra(estado.tokens_por_paso, 2)}", talla=12)
    if estado.coste:
        lienzo.linea(x + 34, y + 16, x + 54, y + 16, BERMELLON, 2.5, "7 4")
        words = f"ganancia con coste {cifra(estado.coste, 2)}: {cifra(estado.ganancia_esperada, 2)}×"
        lienzo.texto(x + 60, y + 20, words, talla=12)


def _frame(lienzo: Lienzo, left: float, top: float, width: float, height: float, high: float) -> None:
    """The vertical axis: 0, half, the highest value."""
    for part in (0.0, 0.5, 1.0):
        y = top + height * (1 - part)
        lienzo.linea(left, y, left + width, y, grosor=0.6)
        lienzo.texto(left - 6, y + 4, cifra(high * part, 0 if (high * part).is_integer() else 1), "end", 11, TINTA)


def _sentence(estado: EstadoBorradores) -> str:
    if not estado.pasos:
        return f"En los primeros {cuenta(estado.hasta, 'paso')} no se verificó ningún borrador."
    gain = f" Ganancia esperada con coste {cifra(estado.coste, 2)}: {cifra(estado.ganancia_esperada, 2)}×."
    return (
        f"{estado.aceptados} de {cuenta(estado.propuestos, 'borrador aceptado', 'borradores aceptados')} "
        f"({porcentaje(estado.aceptados / estado.propuestos)} de los propuestos); α = {cifra(estado.aceptacion, 2)} de "
        f"los que se juzgaron. {cifra(estado.tokens_por_paso, 2)} tokens por paso contados y "
        f"{cifra(estado.esperados(estado.aceptacion), 2)} esperados con k = {estado.k}.{gain if estado.coste else ''}"
    )


def _table(estado: EstadoBorradores) -> Tabla:
    rows = []
    for name, row in (*estado.filas, *((("todas", ()),) if len(estado.filas) > 1 else ())):
        part = estado if name == "todas" else replace(estado, filas=((name, row),))
        fallen = part.propuestos - part.aceptados
        counts = (len(part.pasos), part.propuestos, part.aceptados, fallen)
        rates = (cifra(part.aceptacion, 2), cifra(part.tokens_por_paso, 2), cifra(part.esperados(part.aceptacion), 2))
        rows.append((name, *map(str, counts), *rates))
    head = (
        "petición",
        "pasos con borradores",
        "propuestos",
        "aceptados",
        "rechazados",
        "α",
        "tokens por paso",
        "esperados",
    )
    return Tabla(head, tuple(rows))

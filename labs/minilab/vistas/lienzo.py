"""The drawing surface of all figures: boxes with outline and hatch, text that knows its width, a legend, the frame.

Everything is drawn in absolute coordinates with explicit colours and without references (patterns, clips, gradients): a
second copy on the page, hidden or not, changes nothing. The same calls give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from html import escape

from minilab.vistas.paleta import BLANCO, GRIS, MIN_GRAFICO, REJILLA, SUAVE, TINTA, Estilo, contraste
from minilab.vistas.vista import Tabla, Vista
from minillm_serve.bench.svg import number

ANCHO = 840.0
FUENTE = "'DejaVu Sans', Verdana, Arial, sans-serif"
# Advance widths of DejaVu Sans, the widest of the fonts asked for, in thousandths of the size.
_GROUPS = {
    278: "ijl'",
    318: " .,·/\u202f\u00a0|!",
    345: "f:;[]",
    395: 'rt()-²ⁿ"',
    500: "*°",
    525: "csz?",
    590: "kvxyJ",
    785: "OQG",
    700: "BCEKPRSTUVXYZA",
    755: "DHN",
    838: "×−+=<>≤≥→≈w✓✗",
    980: "mMW%…",
}
_WIDTHS = {char: width for width, chars in _GROUPS.items() for char in chars}


def ancho_texto(content: str, talla: float = 13, negrita: bool = False) -> float:
    """Width of a line of text, in units, in the widest font it may be shown in."""
    return sum(_WIDTHS.get(char, 636) for char in content) * talla / 1000 * (1.12 if negrita else 1)


def recorta(content: str, ancho: float, talla: float = 13) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if ancho_texto(content, talla) <= ancho:
        return content
    while content and ancho_texto(content + "…", talla) > ancho:
        content = content[:-1]
    return content + "…"


class Lienzo:
    """Elements in painting order, from the top left corner; ``alto`` grows with what is drawn."""

    def __init__(self, ancho: float = ANCHO):
        self.ancho = ancho
        self.alto = 0.0
        self._parts: list[str] = []

    def caja(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        estilo: Estilo,
        *,
        grosor: float = 1.0,
        trazo: str = "",
        titulo: str = "",
    ) -> None:
        """An outlined and hatched box. trazo: dash pattern of the outline; titulo: what it says when pointed at."""
        tip = f"<title>{escape(titulo)}</title>" if titulo else ""
        dash = f' stroke-dasharray="{trazo}"' if trazo else ""
        self._parts.append(f'<g class="caja">{tip}')
        self._rect(x, y, w, h, f'fill="{estilo.relleno}"')
        if estilo.trama:
            self._hatch(x, y, w, h, estilo)
        self._rect(x, y, w, h, f'fill="none" stroke="{TINTA}" stroke-width="{number(grosor)}"{dash}')
        self._parts.append("</g>")
        self._grow(y + h + grosor)

    def relleno(self, x: float, y: float, w: float, h: float, color: str) -> None:
        """A plain box: a plate behind text, the part of a box that is full."""
        self._rect(x, y, w, h, f'fill="{color}"')
        self._grow(y + h)

    def parcial(self, x: float, y: float, w: float, h: float, parte: float, estilo: Estilo, **more: object) -> None:
        """A box filled from the left as far as ``parte`` (0 to 1) says."""
        self.caja(x, y, w, h, Estilo(BLANCO), **more)
        if parte > 0:
            self.caja(x, y, w * min(parte, 1.0), h, estilo, **more)

    def texto(
        self,
        x: float,
        y: float,
        content: str,
        ancla: str = "start",
        talla: float = 13,
        color: str = TINTA,
        negrita: bool = False,
        placa: str = "",
    ) -> None:
        """A line of text on baseline ``y``. placa: colour of the plate that keeps a hatch away from it."""
        if placa:
            width = ancho_texto(content, talla, negrita)
            left = x - {"start": 0.0, "middle": width / 2, "end": width}[ancla]
            self._rect(left - 2, y - talla * 0.85, width + 4, talla * 1.12, f'fill="{placa}"')
        weight = ' font-weight="600"' if negrita else ""
        self._parts.append(
            f'<text x="{number(x)}" y="{number(y)}" text-anchor="{ancla}" font-size="{number(talla)}" fill="{color}"'
            f"{weight}>{escape(content)}</text>"
        )
        self._grow(y + talla * 0.3)

    def parrafo(self, x: float, y: float, content: str, ancho: float, talla: float = 13, color: str = TINTA) -> float:
        """Text broken into lines at spaces; returns the baseline after the last one."""
        line = ""
        for word in content.split(" "):
            longer = f"{line} {word}".strip()
            if line and ancho_texto(longer, talla) > ancho:
                self.texto(x, y, line, talla=talla, color=color)
                line, y = word, y + talla * 1.4
            else:
                line = longer
        self.texto(x, y, line, talla=talla, color=color)
        return y + talla * 1.4

    def linea(
        self, x1: float, y1: float, x2: float, y2: float, color: str = REJILLA, grosor: float = 1, trazo: str = ""
    ) -> None:
        dash = f' stroke-dasharray="{trazo}"' if trazo else ""
        self._parts.append(
            f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" stroke="{color}"'
            f' stroke-width="{number(grosor)}"{dash}/>'
        )
        self._grow(max(y1, y2))

    def curva(self, points: Sequence[tuple[float, float]], color: str, grosor: float = 2.5, trazo: str = "") -> None:
        """A line through the points."""
        path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        dash = f' stroke-dasharray="{trazo}"' if trazo else ""
        self._parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="{number(grosor)}"{dash}/>')
        self._grow(max(y for _, y in points))

    def punto(self, x: float, y: float, radio: float, color: str, forma: str = "circulo", titulo: str = "") -> None:
        """A marker with a dark outline. forma: "circulo", "rombo" or "triangulo", for those who do not see colours."""
        tip = f"<title>{escape(titulo)}</title>" if titulo else ""
        ink = f'fill="{color}" stroke="{TINTA}" stroke-width="1.5"'
        if forma == "circulo":
            shape = f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radio)}" {ink}>{tip}</circle>'
        else:
            corners = ((0, -1), (1, 0), (0, 1), (-1, 0)) if forma == "rombo" else ((0, -1), (1, 1), (-1, 1))
            points = " ".join(f"{number(x + radio * i)},{number(y + radio * j)}" for i, j in corners)
            shape = f'<polygon points="{points}" {ink}>{tip}</polygon>'
        self._parts.append(shape)
        self._grow(y + radio)

    def leyenda(self, x: float, y: float, entries: Sequence[tuple[Estilo, str]], talla: float = 12) -> float:
        """Samples with their names, in as many lines as they need; returns the y below them."""
        left = x
        for estilo, words in entries:
            width = 24 + ancho_texto(words, talla) + 16
            if left > x and left + width > self.ancho - 8:
                left, y = x, y + 20
            self.caja(left, y, 16, 12, estilo, trazo="3 2" if estilo.relleno == BLANCO else "")
            self.texto(left + 22, y + 10.5, words, talla=talla)
            left += width
        return y + 20

    def eje_x(self, x: float, y: float, ancho: float, marcas: Sequence[tuple[float, str]], nombre: str) -> None:
        """A horizontal axis: ``marcas`` are (position from 0 to 1, label); labels that would touch are left out."""
        self.linea(x, y, x + ancho, y, TINTA, 1)
        free = x - 40
        for part, label in marcas:
            at, half = x + part * ancho, ancho_texto(label, 11) / 2
            self.linea(at, y, at, y + 4, TINTA, 1)
            if at - half > free + 6:
                self.texto(at, y + 16, label, "middle", 11, GRIS)
                free = at + half
        self.texto(x + ancho, y + 32, nombre, "end", 12, GRIS)

    def vista(self, titulo: str, descripcion: str, tabla: Tabla) -> Vista:
        """The finished figure. Its ids come from a digest of everything in it."""
        body = "".join(self._parts)
        content = "\x00".join((titulo, descripcion, body))
        key = f"v{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        box = f"0 0 {number(self.ancho)} {number(self.alto + 8)}"
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{key}t {key}d" viewBox="{box}"'
            f' width="100%" style="max-width:{number(self.ancho)}px;background:{BLANCO}" font-family="{FUENTE}">'
            f'<title id="{key}t">{escape(titulo)}</title><desc id="{key}d">{escape(descripcion)}</desc>'
            f'<rect width="100%" height="100%" fill="{BLANCO}"/>{body}</svg>'
        )
        return Vista(titulo, descripcion, svg, tabla, key)

    def _rect(self, x: float, y: float, w: float, h: float, paint: str) -> None:
        place = f'x="{number(x)}" y="{number(y)}" width="{number(max(w, 0.0))}" height="{number(h)}"'
        self._parts.append(f"<rect {place} {paint}/>")

    def _hatch(self, x: float, y: float, w: float, h: float, estilo: Estilo) -> None:
        """The strokes one by one: a pattern would need an id, and one in a hidden copy would draw nothing."""
        strokes: list[str] = []
        gap = 12.0 if estilo.trama == "." else 7.0
        if estilo.trama in "/x.":
            strokes += _diagonals(x, y, w, h, gap, rising=True)
        if estilo.trama in "\\x":
            strokes += _diagonals(x, y, w, h, gap, rising=False)
        if estilo.trama == "-":
            strokes += [f"M{number(x)} {number(y + i)}h{number(w)}" for i in _steps(h, 5.0)]
        if estilo.trama == "|":
            strokes += [f"M{number(x + i)} {number(y)}v{number(h)}" for i in _steps(w, 6.0)]
        if strokes:
            soft = estilo.trama == "." and contraste(SUAVE, estilo.relleno) >= MIN_GRAFICO
            color = SUAVE if soft else estilo.tinta
            self._parts.append(f'<path d="{"".join(strokes)}" fill="none" stroke="{color}" stroke-width="0.9"/>')

    def _grow(self, bottom: float) -> None:
        self.alto = max(self.alto, bottom)


def _steps(length: float, gap: float) -> list[float]:
    return [gap * i for i in range(1, int((length - 0.5) / gap) + 1)]


def _diagonals(x: float, y: float, w: float, h: float, gap: float, rising: bool) -> list[str]:
    """Lines at 45 degrees inside a box. The spacing starts at the box's corner, so equal boxes look alike."""
    strokes = []
    for offset in _steps(w + h, gap):
        x1, y1 = (offset, 0.0) if offset <= w else (w, offset - w)
        x2, y2 = (0.0, offset) if offset <= h else (offset - h, h)
        if not rising:
            x1, x2 = w - x1, w - x2
        strokes.append(f"M{number(x + x1)} {number(y + y1)}L{number(x + x2)} {number(y + y2)}")
    return strokes

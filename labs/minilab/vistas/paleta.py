"""The colours of every figure (Okabe–Ito), the hatches that stand beside them, and the contrast that both must keep.

Rules, which the tests hold every drawing to (WCAG 2.2, 1.4.3 and 1.4.11): text at least 4.5:1 against what lies behind
it; an outline, or a fill without one, at least 3:1 against white. Colour never stands alone: two styles of one figure
differ in their hatch too.
"""

from __future__ import annotations

from dataclasses import dataclass

AZUL, BERMELLON, VERDE, PURPURA = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
NARANJA, CELESTE, AMARILLO = "#E69F00", "#56B4E9", "#F0E442"
BLANCO, TINTA, GRIS, SUAVE, REJILLA, PALIDO = "#FFFFFF", "#111111", "#595959", "#757575", "#8C8C8C", "#EDEDED"

MIN_TEXTO, MIN_GRAFICO = 4.5, 3.0


@dataclass(frozen=True)
class Estilo:
    """A fill with its hatch: "" none, "/" or "\\" diagonal, "x" both, "-" or "|" straight, "." sparse diagonal."""

    relleno: str
    trama: str = ""

    @property
    def tinta(self) -> str:
        """Dark or white, whichever reads better on the fill: for text and for the hatch."""
        return max((TINTA, BLANCO), key=lambda color: contraste(color, self.relleno))


PREFILL, DECODE = Estilo(BERMELLON, "/"), Estilo(AZUL)
RECALCULO, GUARDADO, OCUPA = Estilo(PURPURA, "x"), Estilo(VERDE, "\\"), Estilo(CELESTE)
VACIO, LIBRE = Estilo(PALIDO, "."), Estilo(BLANCO)
NUEVO, REPETIDO, HECHO = Estilo(AZUL), Estilo(NARANJA, "/"), Estilo(PALIDO, ".")
PERMITIDO, PROHIBIDO = Estilo(AZUL), Estilo(NARANJA, "x")
ACEPTADO, PROPIO, RECHAZADO = Estilo(VERDE), Estilo(CELESTE, "-"), Estilo(BERMELLON, "x")
PESOS, KV, ACTIVACIONES = Estilo(AZUL), Estilo(NARANJA, "/"), Estilo(PURPURA, "x")

DUENOS = (
    Estilo(CELESTE),
    Estilo(NARANJA, "/"),
    Estilo(VERDE, "\\"),
    Estilo(AMARILLO, "-"),
    Estilo(PURPURA, "|"),
    Estilo(BERMELLON, "x"),
    Estilo("#BDBDBD", "."),
)
"""One for each request, in turn; every one takes dark text."""


def luminancia(color: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 to 1 (WCAG 2.2)."""
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contraste(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21, in either order (WCAG 2.2)."""
    low, high = sorted((luminancia(one), luminancia(other)))
    return (high + 0.05) / (low + 0.05)

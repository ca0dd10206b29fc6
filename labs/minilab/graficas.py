"""Plots in one style: Okabe-Ito colours, hatches besides colour, and an equivalent text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AZUL, BERMELLON, VERDE, NEGRO = "#0072B2", "#D55E00", "#009E73", "#222222"


class GraficaConTexto:
    """A figure shown in a notebook as PNG with alternative text, and as that text where no image can be shown."""

    def __init__(self, figura: Figure, texto: str):
        self.figura, self.texto = figura, texto

    def __repr__(self) -> str:
        return self.texto

    def _repr_html_(self) -> str:
        import base64
        import html
        import io

        memoria = io.BytesIO()
        self.figura.savefig(memoria, format="png", dpi=110, bbox_inches="tight")
        datos = base64.b64encode(memoria.getvalue()).decode()
        texto = html.escape(self.texto)
        return f'<img alt="{texto}" src="data:image/png;base64,{datos}"/><p>{texto}</p>'


def linea_de_tiempo(medidas: Sequence[dict[str, Any]], titulo: str) -> GraficaConTexto:
    """One bar per request: waiting until its first token, then decoding. Times in seconds since the first start."""
    figura, ejes = _lienzo(10, 1.2 + 0.11 * len(medidas))
    cero = min(m["inicio"] for m in medidas)
    for fila, m in enumerate(medidas):
        espera, fin = m["primer_token"] - cero, m["fin"] - cero
        ejes.barh(fila, espera - (m["inicio"] - cero), left=m["inicio"] - cero, color=BERMELLON, hatch="///", alpha=0.9)
        ejes.barh(fila, fin - espera, left=espera, color=AZUL)
    ejes.set(xlabel="segundos", ylabel="petición", title=titulo)
    ejes.invert_yaxis()
    ejes.legend(["hasta el primer token (TTFT)", "decode"], loc="lower right", framealpha=1)
    ultima = max(m["fin"] for m in medidas) - cero
    ttft = max(m["primer_token"] - m["inicio"] for m in medidas)
    texto = f"{titulo}: {len(medidas)} peticiones en {ultima:.2f} s; el TTFT más lento, {ttft:.2f} s."
    return GraficaConTexto(figura, texto)


def barras(valores: dict[str, float], unidad: str, titulo: str) -> GraficaConTexto:
    """Horizontal bars with their value written beside them."""
    figura, ejes = _lienzo(8, 0.9 + 0.45 * len(valores))
    dibujo = ejes.barh(list(valores), list(valores.values()), color=[AZUL, VERDE, BERMELLON, NEGRO][: len(valores)])
    ejes.bar_label(dibujo, fmt="%.1f", padding=4)
    ejes.set(xlabel=unidad, title=titulo)
    ejes.invert_yaxis()
    ejes.margins(x=0.12)
    texto = f"{titulo}: " + "; ".join(f"{nombre}, {valor:.1f} {unidad}" for nombre, valor in valores.items()) + "."
    return GraficaConTexto(figura, texto)


def _lienzo(ancho: float, alto: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figura = Figure(figsize=(ancho, alto))
    ejes = figura.subplots()
    ejes.spines[["top", "right"]].set_visible(False)
    ejes.grid(axis="x", alpha=0.25)
    ejes.set_axisbelow(True)
    return figura, ejes

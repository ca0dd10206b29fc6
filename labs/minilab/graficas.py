"""Plots in one style: Okabe-Ito colours, hatches besides colour, and an equivalent text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minilab.vistas.cifras import cifra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#222222"


class FigureWithText:
    """A figure shown in a notebook as PNG with alternative text, and as that text where no image can be shown."""

    def __init__(self, figure: Figure, text: str):
        self.figure, self.text = figure, text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        import base64
        import html
        import io

        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        data = base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(self.text)
        return f'<img alt="{text}" src="data:image/png;base64,{data}"/><p>{text}</p>'


def linea_de_tiempo(measurements: Sequence[dict[str, Any]], title: str) -> FigureWithText:
    """One bar per request: waiting until its first token, then decoding. Times in seconds since the first start."""
    figure, axes = _canvas(10, 1.2 + 0.11 * len(measurements))
    start = min(m["inicio"] for m in measurements)
    for row, m in enumerate(measurements):
        first, end = m["primer_token"] - start, m["fin"] - start
        axes.barh(row, first - (m["inicio"] - start), left=m["inicio"] - start, color=VERMILION, hatch="///", alpha=0.9)
        axes.barh(row, end - first, left=first, color=BLUE)
    axes.set(xlabel="segundos", ylabel="petición", title=title)
    axes.invert_yaxis()
    axes.legend(["hasta el primer token (TTFT)", "decode"], loc="lower right", framealpha=1)
    last = max(m["fin"] for m in measurements) - start
    ttft = max(m["primer_token"] - m["inicio"] for m in measurements)
    text = f"{title}: {len(measurements)} peticiones en {cifra(last, 2)} s; el TTFT más lento, {cifra(ttft, 2)} s."
    return FigureWithText(figure, text)


def barras(values: dict[str, float], unit: str, title: str) -> FigureWithText:
    """Horizontal bars with their value written beside them."""
    figure, axes = _canvas(8, 0.9 + 0.45 * len(values))
    bars = axes.barh(list(values), list(values.values()), color=[BLUE, GREEN, VERMILION, BLACK][: len(values)])
    axes.bar_label(bars, fmt=lambda value: cifra(value, 1), padding=4)
    axes.set(xlabel=unit, title=title)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    text = f"{title}: " + "; ".join(f"{name}, {cifra(value, 1)} {unit}" for name, value in values.items()) + "."
    return FigureWithText(figure, text)


def _canvas(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes

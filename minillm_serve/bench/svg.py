"""Small pieces shared by the hand-made SVG figures: escaping, number format, axes, the accessible frame.

Figures carry their own colours (Okabe-Ito, contrast of at least 3 on white) and need no script, font or style sheet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from html import escape
from math import ceil, floor, log10

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#B5568A"
INK, MUTED, GRID = "#1a1a1a", "#595959", "#dcdcdc"

_ids = itertools.count(1)


def number(value: float) -> str:
    """Coordinate with at most two decimals: a Gantt chart has thousands of them."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, content: str, anchor: str = "start", size: int = 12, color: str = INK, **more: str) -> str:
    """A ``<text>`` element; ``content`` is escaped."""
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" font-size="{size}" fill="{color}"{extra}>'
        f"{escape(content)}</text>"
    )


def rect(x: float, y: float, width: float, height: float, color: str) -> str:
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {place} fill="{color}"/>'


def line(x1: float, y1: float, x2: float, y2: float, color: str = GRID, width: float = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" stroke="{color}"'
        f' stroke-width="{number(width)}"{dashed}/>'
    )


def figure(width: float, height: float, title: str, description: str, body: Iterable[str]) -> str:
    """The ``<svg>`` element: scales with its container; a screen reader reads title and description."""
    key = next(_ids)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="t{key} d{key}"'
        f' viewBox="0 0 {number(width)} {number(height)}" width="100%" font-family="system-ui, sans-serif">'
        f'<title id="t{key}">{escape(title)}</title><desc id="d{key}">{escape(description)}</desc>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>'
    )


def ticks(high: float, count: int = 6) -> list[float]:
    """Round tick positions (1, 2 or 5 times a power of ten apart) from 0 to at most ``high``."""
    if not high > 0:
        return [0.0]
    raw = high / count
    power = 10.0 ** floor(log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return [round(i * step, 10) for i in range(floor(high / step + 1e-9) + 1)]


def seconds(value: float) -> str:
    """A time for a label: ms below one second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def tick_label(value: float) -> str:
    return f"{value:g}"


def nice_ceiling(value: float) -> float:
    """The smallest number of two significant digits that is not below ``value``."""
    if not value > 0:
        return 1.0
    power = 10.0 ** (floor(log10(value)) - 1)
    return ceil(value / power - 1e-9) * power

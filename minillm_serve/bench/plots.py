"""The report's two plots, as SVG strings: throughput bars and the distribution of the time to the first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minillm_serve.bench import svg
from minillm_serve.bench.stats import describe


@dataclass(frozen=True)
class Throughput:
    """One bar: what was measured, its tok/s, and the lowest and highest of the single measurements behind it."""

    label: str
    tok_s: float
    low: float
    high: float
    color: str


def throughput_bars(rows: Sequence[Throughput], width: float = 720.0) -> str:
    """Horizontal bars of new tokens per second; the whisker spans the lowest and highest single measurement."""
    left, right, top, pitch = 16.0, 96.0, 44.0, 58.0
    high = svg.nice_ceiling(max(max(row.high, row.tok_s) for row in rows))
    scale = (width - left - right) / high
    bottom = top + pitch * len(rows)
    body = [svg.text(left, 22, "New tokens per second (more is better)", size=15, font_weight="600")]
    for tick in svg.ticks(high, 6):
        x = left + tick * scale
        body += [svg.line(x, top, x, bottom), svg.text(x, bottom + 16, svg.tick_label(tick), "middle", 11, svg.MUTED)]
    for index, row in enumerate(rows):
        y = top + pitch * index
        body.append(svg.text(left + 2, y + 17, row.label, size=13))
        body.append(svg.rect(left, y + 24, max(row.tok_s * scale, 1), 22, row.color))
        x1, x2, middle = left + row.low * scale, left + row.high * scale, y + 35
        body.append(svg.line(x1, middle, x2, middle, svg.INK, 1.6))
        body += [svg.line(x, middle - 5, x, middle + 5, svg.INK, 1.6) for x in (x1, x2)]
        body.append(svg.text(max(x2, left + row.tok_s * scale) + 8, y + 40, f"{row.tok_s:.1f}", size=14))
    listing = "; ".join(f"{row.label}: {row.tok_s:.1f} (range {row.low:.1f} to {row.high:.1f})" for row in rows)
    return svg.figure(width, bottom + 26, "Throughput", f"New tokens per second. {listing}.", body)


def ttft_distribution(ttft: Sequence[float], width: float = 720.0) -> str:
    """Cumulative distribution of the time to first token (seconds): exact, with no bins to choose."""
    values = sorted(ttft)
    stats = describe(values)
    if stats is None:
        raise ValueError("there is no distribution of no requests")
    left, right, top, height = 56.0, 24.0, 58.0, 200.0
    high = svg.nice_ceiling(values[-1])
    bottom = top + height

    def x(value: float) -> float:
        return left + (width - left - right) * value / high

    def y(share: float) -> float:
        return bottom - height * share

    body = [svg.text(16, 22, "Time to first token: share of requests answered by then", size=15, font_weight="600")]
    for tick in svg.ticks(high, 6):
        body += [
            svg.line(x(tick), top, x(tick), bottom),
            svg.text(x(tick), bottom + 16, svg.tick_label(tick), "middle", 11, svg.MUTED),
        ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        body += [
            svg.line(left, y(share), width - right, y(share)),
            svg.text(left - 8, y(share) + 4, f"{share:.0%}", "end", 11, svg.MUTED),
        ]
    body.append(svg.text(width - right, bottom + 34, "seconds since the request was sent", "end", 11, svg.MUTED))
    path = [f"M{svg.number(x(0))} {svg.number(y(0))}"]
    for rank, value in enumerate(values, start=1):
        path.append(f"H{svg.number(x(value))}V{svg.number(y(rank / len(values)))}")
    path.append(f"H{svg.number(x(high))}")
    body.append(f'<path d="{"".join(path)}" fill="none" stroke="{svg.BLUE}" stroke-width="2.5"/>')
    anchor_right = x(stats["p50"]) > width / 2
    for name, level in (("p50", 0), ("p95", 1)):
        mark = x(stats[name])
        body.append(svg.line(mark, top - 14, mark, bottom, svg.VERMILLION, 1.5, "5 3"))
        label = f"{name} {svg.seconds(stats[name])}"
        offset, anchor = (-5, "end") if anchor_right else (5, "start")
        row = top - 6 if level == 0 else top + 8
        body.append(svg.text(mark + offset, row, label, anchor, 12, svg.VERMILLION))
    description = (
        f"{len(values)} requests sent at once. Half had their first token within {svg.seconds(stats['p50'])}, "
        f"95 % within {svg.seconds(stats['p95'])}, the last within {svg.seconds(values[-1])}."
    )
    return svg.figure(width, bottom + 44, "Time to first token", description, body)

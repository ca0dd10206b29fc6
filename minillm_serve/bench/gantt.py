"""The scheduler's Gantt chart: what every request did in every step, drawn from the engine's trace.

Pure functions from the trace (``minillm-trace/2``, see :mod:`minillm_serve.engine.trace`) to bars, SVG and a table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from typing import Any

from minillm_serve.bench import svg
from minillm_serve.engine.trace import TraceError, duration, read_trace

KINDS = {
    "prefill": ("prefill (prompt tokens)", svg.VERMILLION),
    "decode": ("decode (one token and its drafts)", svg.BLUE),
    "recompute": ("recompute after preemption", svg.PURPLE),
}
CACHED = ("prefix hit (found in the cache)", svg.GREEN)

Trace = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """One request in one step: ``tokens`` computed between ``start`` and ``start + duration`` (seconds).

    cached: tokens of a prefix hit, which the step found in the cache instead of computing them.
    """

    request: str
    step: int
    start: float
    duration: float
    tokens: int
    kind: str
    cached: int = 0


def select(trace: Trace, ids: Collection[str]) -> Trace:
    """The part of a trace about the requests with these labels, its clock shifted to their first arrival: to be drawn.

    The server names a request ``chatcmpl-<X-Request-Id>``; an id matches with or without such a prefix. Raises
    :class:`TraceError` when an id is not in the trace. The plans are no longer whole, so the events go.
    """
    trace = read_trace(trace)
    rows: dict[str, set[str]] = {}
    for rid, request in trace["requests"].items():
        label = request["id"]
        for name in {label, label.partition("-")[2] or label}:
            rows.setdefault(name, set()).add(rid)
    missing = [name for name in ids if name not in rows]
    if missing:
        raise TraceError(f"{len(missing)} requests are not in the trace, the first one is {missing[0]!r}")
    keep = set().union(*(rows[name] for name in ids))
    if not keep:
        raise TraceError("no request was selected")
    origin = min(trace["requests"][rid]["arrival"] for rid in keep)
    requests = {rid: _shifted(r, origin) for rid, r in trace["requests"].items() if rid in keep}
    steps = [_part(step, keep, origin) for step in trace["steps"]]
    steps = [step for step in steps if step["num_tokens"] or step["preempted"]]
    return trace | {"requests": requests, "steps": steps, "events": []}


def _part(step: dict[str, Any], keep: set[str], origin: float) -> dict[str, Any]:
    """What a step did for the requests in ``keep``."""
    by_request = ("num_tokens", "new_requests", "new_blocks", "tokens", "forced", "drafts", "accepted", "proposed")
    lists = ("preempted", "finished", "failed")
    return (
        step
        | {"start": step["start"] - origin}
        | {name: {rid: v for rid, v in step.get(name, {}).items() if rid in keep} for name in by_request}
        | {name: [rid for rid in step.get(name, ()) if str(rid) in keep] for name in lists}
    )


def _shifted(request: dict[str, Any], origin: float) -> dict[str, Any]:
    names = ("arrival", "first_scheduled", "first_token", "finished")
    return request | {name: request[name] - origin for name in names if request[name] is not None}


def bars(trace: Trace) -> list[Bar]:
    """One bar per request and step, in step order, told apart by counting computed tokens.

    Invariant: a request computes each of its tokens once, its prompt first (prefill), then one generated token a step
    (decode), with the drafts after it; what it computes again, a preemption had thrown away (recompute). Drafts that
    fell are none of its tokens. A prefix hit lets it start later.
    """
    trace = read_trace(trace)
    computed: dict[str, int] = {}
    reached: dict[str, int] = {}
    result = []
    for step in trace["steps"]:
        hits = {rid: cached for rid, (_, cached) in step.get("new_requests", {}).items()}
        computed |= hits
        for rid, tokens in step["num_tokens"].items():
            if rid not in trace["requests"]:
                continue
            first = computed.get(rid, 0)
            kind = "prefill" if first < trace["requests"][rid]["prompt_tokens"] else "decode"
            if first < reached.get(rid, 0):
                kind = "recompute"
            computed[rid] = first + tokens - num_rejected(step, rid)
            reached[rid] = max(reached.get(rid, 0), computed[rid])
            result.append(Bar(rid, step["step"], step["start"], duration(step), tokens, kind, hits.get(rid, 0)))
    if not result:
        raise TraceError("no step of the trace computed anything for its requests")
    return result


def num_rejected(step: dict[str, Any], rid: str) -> int:
    """How many drafts of a request a step computed in vain."""
    return len(step.get("drafts", {}).get(rid, ())) - step.get("accepted", {}).get(rid, 0)


LEFT, RIGHT, TOP, ROW, STRIP = 74.0, 16.0, 58.0, 11.0, 84.0


def render_gantt(trace: Trace, title: str = "What the scheduler did", width: float = 1100.0) -> str:
    """The chart as an SVG string: a row per request, a bar per scheduled step, and the batch of every step below.

    A hollow circle marks the arrival, a black tick the first token. ``width`` is in SVG units; it scales on screen.
    """
    drawn = bars(trace)
    order = sorted(trace["requests"], key=lambda rid: (trace["requests"][rid]["arrival"], int(rid)))
    end = max(bar.start + bar.duration for bar in drawn)
    origin = min(r["arrival"] for r in trace["requests"].values())
    scale = (width - LEFT - RIGHT) / max(end - origin, 1e-9)
    rows_bottom = TOP + ROW * len(order)
    strip_bottom = rows_bottom + 26 + STRIP

    def x(moment: float) -> float:
        return LEFT + (moment - origin) * scale

    body = [svg.text(LEFT, 20, title, size=15, font_weight="600"), *_legend(drawn)]
    for tick in svg.ticks(end - origin, 10):
        at = x(origin + tick)
        body.append(svg.line(at, TOP, at, strip_bottom))
        body.append(svg.text(at, strip_bottom + 16, svg.tick_label(tick), "middle", 11, svg.MUTED))
    body.append(svg.text(width - RIGHT, strip_bottom + 34, "seconds since the first arrival", "end", 11, svg.MUTED))
    for index, rid in enumerate(order):
        body.append(_row(trace["requests"][rid], [b for b in drawn if b.request == rid], index, x))
    body.extend(_strip(drawn, x, rows_bottom + 26, rows_bottom, width))
    description = (
        f"{len(order)} requests over {len(trace['steps'])} steps in {end - origin:.2f} seconds; the largest step ran "
        f"{max(_batch_sizes(drawn).values())} requests at once. The table below the chart holds the same data."
    )
    return svg.figure(width, strip_bottom + 44, title, description, body)


def _legend(drawn: list[Bar]) -> list[str]:
    present = {bar.kind for bar in drawn}
    shown = [entry for kind, entry in KINDS.items() if kind in present]
    if any(bar.cached for bar in drawn):
        shown.append(CACHED)
    x, parts = LEFT, []
    for label, color in shown:
        parts += [svg.rect(x, 34, 12, 10, color), svg.text(x + 17, 43, label)]
        x += 30 + 6.4 * len(label)
    parts += [
        f'<circle cx="{svg.number(x + 5)}" cy="39" r="3.4" fill="#fff" stroke="{svg.INK}"/>',
        svg.text(x + 14, 43, "arrival"),
        svg.line(x + 70, 33, x + 70, 45, svg.INK, 2.5),
        svg.text(x + 77, 43, "first token"),
    ]
    return parts


def _row(request: dict[str, Any], drawn: list[Bar], index: int, x: Any) -> str:
    y = TOP + ROW * index
    first_bar = drawn[0].start if drawn else request["arrival"]
    parts = [f"<title>{escape(_describe(request, drawn))}</title>"]
    if index % 5 == 4 or index == 0:
        parts.append(svg.text(LEFT - 12, y + ROW - 2, f"request {index + 1}", "end", 10, svg.MUTED))
    parts.append(svg.line(x(request["arrival"]), y + ROW / 2, x(first_bar), y + ROW / 2, svg.MUTED, 0.8, "2 2"))
    for bar in drawn:
        width = max(x(bar.start + bar.duration) - x(bar.start) - 0.4, 0.4)
        found = (ROW - 2) * bar.cached / (bar.cached + bar.tokens)
        if found:
            parts.append(svg.rect(x(bar.start), y + 1, width, found, CACHED[1]))
        parts.append(svg.rect(x(bar.start), y + 1 + found, width, ROW - 2 - found, KINDS[bar.kind][1]))
    cx, cy = svg.number(x(request["arrival"])), svg.number(y + ROW / 2)
    parts.append(f'<circle cx="{cx}" cy="{cy}" r="2.6" fill="#fff" stroke="{svg.INK}"/>')
    if request["first_token"] is not None:
        parts.append(svg.line(x(request["first_token"]), y, x(request["first_token"]), y + ROW, svg.INK, 2))
    return f"<g>{''.join(parts)}</g>"


def _describe(request: dict[str, Any], drawn: list[Bar]) -> str:
    first = request["first_token"]
    waited = f"first token after {svg.seconds(first - request['arrival'])}" if first is not None else "no token"
    preempted = f", preempted {request['preemptions']} times" if request["preemptions"] else ""
    cached = sum(bar.cached for bar in drawn)
    found = f", {cached} found in the cache" if cached else ""
    return (
        f"{request['id']}: {request['prompt_tokens']} prompt tokens{found}, {waited}, "
        f"{request['generated']} generated in {len(drawn)} steps{preempted}"
    )


def _batch_sizes(drawn: list[Bar]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for bar in drawn:
        sizes[bar.step] = sizes.get(bar.step, 0) + 1
    return sizes


def _strip(drawn: list[Bar], x: Any, top: float, rows_bottom: float, width: float) -> list[str]:
    """Requests in each step, stacked by kind, against the same time axis."""
    largest = max(_batch_sizes(drawn).values())
    parts = [
        svg.text(LEFT, rows_bottom + 19, "requests in each step", size=12, font_weight="600"),
        svg.line(LEFT, top + STRIP, width - RIGHT, top + STRIP, svg.MUTED),
        svg.text(LEFT - 6, top + 10, str(largest), "end", 10, svg.MUTED),
        svg.text(LEFT - 6, top + STRIP, "0", "end", 10, svg.MUTED),
    ]
    steps: dict[int, list[Bar]] = {}
    for bar in drawn:
        steps.setdefault(bar.step, []).append(bar)
    for number, members in steps.items():
        left, right = x(members[0].start), x(members[0].start + members[0].duration)
        bottom, tokens = top + STRIP, sum(bar.tokens for bar in members)
        stack = []
        for kind, (_, color) in KINDS.items():
            height = STRIP * sum(bar.kind == kind for bar in members) / largest
            if height:
                bottom -= height
                stack.append(svg.rect(left, bottom, max(right - left - 0.4, 0.4), height, color))
        parts.append(f"<g><title>step {number}: {len(members)} requests, {tokens} tokens</title>{''.join(stack)}</g>")
    return parts


def gantt_table(trace: Trace) -> str:
    """The chart's data as an HTML table, one row per request: what a reader who does not see the chart gets."""
    drawn = bars(trace)
    rows = []
    order = sorted(trace["requests"], key=lambda rid: (trace["requests"][rid]["arrival"], int(rid)))
    for index, rid in enumerate(order, start=1):
        request, own = trace["requests"][rid], [bar for bar in drawn if bar.request == rid]
        cells = [
            str(index),
            f"{request['arrival']:.3f}",
            f"{own[0].start:.3f}" if own else "–",
            "–" if request["first_token"] is None else f"{request['first_token']:.3f}",
            "–" if request["finished"] is None else f"{request['finished']:.3f}",
            str(request["prompt_tokens"]),
            str(sum(bar.cached for bar in own)),
            str(request["generated"]),
            *(str(sum(bar.kind == kind for bar in own)) for kind in KINDS),
            str(request["preemptions"]),
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    names = (
        "request",
        "arrival (s)",
        "first step (s)",
        "first token (s)",
        "finished (s)",
        "prompt tokens",
        "tokens found in the cache",
        "generated",
    )
    names += ("prefill steps", "decode steps", "recompute steps", "preemptions")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

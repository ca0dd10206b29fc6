"""The accept/reject strip: what became of every draft, drawn from the engine's trace.

A row is a request, a column one of its steps that gave it tokens. From the bottom up: drafts that stand, what the
target drew after them, drafts that fell. A column without drafts is a plain step: one token.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from minillm_serve.bench import page, svg
from minillm_serve.bench.gantt import num_rejected
from minillm_serve.engine.trace import TraceError, read_trace

ACCEPTED = ("draft accepted", svg.GREEN)
DRAWN = ("drawn by the target", svg.BLUE)
REJECTED = ("draft rejected", svg.VERMILLION)
LEFT, RIGHT, TOP, GAP = 74.0, 16.0, 58.0, 8.0
MAX_COLUMN, MAX_STACK = 9.0, 48.0

Trace = dict[str, Any]


@dataclass(frozen=True)
class DraftedStep:
    """One step of a request that gave it tokens.

    first: position in its text of the first new token, which is also that of the first draft. drafts: the token ids
    that were verified, the first ``accepted`` of which stand; none in a plain step. drawn: tokens that follow those:
    the one that the target drew, and what a constraint put behind it.
    """

    step: int
    first: int
    drafts: tuple[int, ...]
    accepted: int
    drawn: int


def draft_strip(trace: Trace) -> dict[str, list[DraftedStep]]:
    """Request id -> its steps with new tokens, in their order; only requests that had drafts verified."""
    trace = read_trace(trace)
    reached = {rid: request["prompt_tokens"] for rid, request in trace["requests"].items()}
    rows: dict[str, list[DraftedStep]] = {rid: [] for rid in reached}
    for step in trace["steps"]:
        for rid, tokens in step["tokens"].items():
            drafts = tuple(step.get("drafts", {}).get(rid, ()))
            accepted = len(drafts) - num_rejected(step, rid)
            rows[rid].append(DraftedStep(step["step"], reached[rid], drafts, accepted, len(tokens) - accepted))
            reached[rid] += len(tokens)
    return {rid: row for rid, row in rows.items() if any(entry.drafts for entry in row)}


def render_draft_strip(trace: Trace, width: float = 1100.0) -> str:
    """The strip as an SVG string. Raises TraceError where no draft was verified."""
    rows = draft_strip(trace)
    if not rows:
        raise TraceError("no step of the trace verified a draft")
    highest = max(len(entry.drafts) + entry.drawn for row in rows.values() for entry in row)
    column = min(MAX_COLUMN, (width - LEFT - RIGHT) / max(map(len, rows.values())))
    cell = min(MAX_COLUMN, MAX_STACK / highest)
    body = [svg.text(LEFT, 20, "What became of the drafts", size=15, font_weight="600"), *_legend()]
    bottom = TOP
    for rid, row in rows.items():
        bottom += cell * highest
        body.append(svg.text(LEFT - 12, bottom - 1, f"request {rid}", "end", 10, svg.MUTED))
        body += [_column(LEFT + index * column, bottom, column, cell, entry) for index, entry in enumerate(row)]
        bottom += GAP
    drafted, accepted, tokens, steps = _totals([entry for row in rows.values() for entry in row])
    description = (
        f"{accepted} of {drafted} drafts of {len(rows)} requests were accepted, {tokens / steps:.2f} tokens a step in "
        "the mean. A column is a step: accepted drafts, drawn tokens, rejected drafts, from the bottom up."
    )
    return svg.figure(width, bottom + 10, "What became of the drafts", description, body)


def draft_table(trace: Trace) -> str:
    """The strip's data as an HTML table, one row per request."""
    rows = []
    for rid, row in draft_strip(trace).items():
        drafted, accepted, tokens, steps = _totals(row)
        numbers = (steps, drafted, accepted, drafted - accepted)
        rows.append([rid, *map(str, numbers), f"{accepted / drafted:.0%}", f"{tokens / steps:.2f}"])
    names = ("request", "steps", "drafts", "accepted", "rejected", "acceptance rate", "tokens a step")
    return page.table(names, rows, numeric=range(1, len(names)))


def _totals(entries: list[DraftedStep]) -> tuple[int, int, int, int]:
    """Drafts, accepted ones, new tokens, steps."""
    accepted = sum(entry.accepted for entry in entries)
    drafted = sum(len(entry.drafts) for entry in entries)
    return drafted, accepted, accepted + sum(entry.drawn for entry in entries), len(entries)


def _legend() -> list[str]:
    x, parts = LEFT, []
    for label, color in (ACCEPTED, DRAWN, REJECTED):
        parts += [svg.rect(x, 34, 12, 10, color), svg.text(x + 17, 43, label)]
        x += 30 + 6.4 * len(label)
    return parts


def _column(x: float, bottom: float, width: float, cell: float, entry: DraftedStep) -> str:
    """Rejected drafts are half as wide: colour does not stand alone."""
    rejected = len(entry.drafts) - entry.accepted
    full, parts, y = width * 0.86, [], bottom
    for count, color, wide in (
        (entry.accepted, ACCEPTED[1], full),
        (entry.drawn, DRAWN[1], full),
        (rejected, REJECTED[1], full / 2),
    ):
        for _ in range(count):
            y -= cell
            parts.append(svg.rect(x, y + 0.08 * cell, wide, 0.84 * cell, color))
    words = f"step {entry.step}, from position {entry.first}: "
    words += f"{entry.accepted} of {len(entry.drafts)} drafts accepted" if entry.drafts else "no draft"
    return f"<g><title>{escape(words)}</title>{''.join(parts)}</g>"

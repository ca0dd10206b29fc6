"""Pictures of the KV pool, drawn from a replayed trace: who holds which block, in one step and over the whole run.

Pure functions from a trace to SVG strings. A block is coloured by its owner and filled as far as it holds tokens;
one that several requests share has a thick frame; one that only the prefix cache remembers is hatched; a free one is
empty. Colour does not stand alone: a block says its owner's number, where it is too small when pointed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from minillm_serve.bench import svg
from minillm_serve.engine.replay import ReplayedStep, replay
from minillm_serve.engine.trace import TraceError, read_trace

Trace = dict[str, Any]

OWNERS = ("#9fc8e8", "#f2b48c", "#93d3bd", "#dfaccb", "#f0e08a", "#c3bde8", "#bfd98a", "#e8a9a0")
SHARED, IDLE, FRAME = "#6d7f8f", "#8a8a8a", "#b4b4b4"
COLUMNS, CELL_W, CELL_H = 16, 44.0, 30.0
MAX_BLOCKS = 512


@dataclass(frozen=True)
class BlockState:
    """One block in one step. owners: request ids; tokens: slots in use; idle: kept by the prefix cache alone."""

    block: int
    owners: tuple[int, ...]
    tokens: int
    idle: bool


def block_states(step: ReplayedStep, num_blocks: int, block_size: int) -> list[BlockState]:
    """Every block of the pool while a step ran, in order."""
    owners: dict[int, list[int]] = {}
    filled: dict[int, int] = {}
    for rid, table in step.tables.items():
        for index, block in enumerate(table):
            owners.setdefault(block, []).append(rid)
            tokens = min(max(step.num_cached[rid] - index * block_size, 0), block_size)
            filled[block] = max(filled.get(block, 0), tokens)
    return [
        BlockState(b, tuple(owners.get(b, ())), block_size if b in step.idle else filled.get(b, 0), b in step.idle)
        for b in range(num_blocks)
    ]


def render_block_table(trace: Trace, step: int | None = None) -> str:
    """The pool in one step, and the block table of each request beside it. step: its number; None: the fullest one."""
    trace = read_trace(trace)
    chosen = _choose(list(replay(trace)), step)
    block_size, order = trace["config"]["block_size"], sorted(chosen.tables)
    states = block_states(chosen, trace["num_blocks"], block_size)
    shown = [state for state in states if state.owners or state.idle or state.block < COLUMNS * 4][:MAX_BLOCKS]
    rows = -(-len(shown) // COLUMNS)
    right = 24 + COLUMNS * CELL_W + 40
    longest = max((len(table) for table in chosen.tables.values()), default=0)
    width = max(right + 90 + min(longest, COLUMNS) * CELL_W + 20, 900.0)
    body = [svg.text(24, 24, f"The KV pool in step {chosen.plan.step}", size=15, font_weight="600"), *_legend(24, 38)]
    body.append(svg.text(24, 80, f"physical blocks of {block_size} tokens", size=12, font_weight="600"))
    for index, state in enumerate(shown):
        body.append(_cell(24 + index % COLUMNS * CELL_W, 90 + index // COLUMNS * CELL_H, state, order, block_size))
    bottom = 90 + rows * CELL_H
    if hidden := len(states) - len(shown):
        body.append(svg.text(24, bottom + 18, f"and {hidden} more, free", size=11, color=svg.MUTED))
    body.append(svg.text(right, 80, "block tables (logical order)", size=12, font_weight="600"))
    y = 90.0
    for rid in order:
        table = chosen.tables[rid]
        body.append(svg.text(right, y + 19, f"request {rid}", size=12))
        for index, block in enumerate(table):
            at = right + 90 + index % COLUMNS * CELL_W, y + index // COLUMNS * CELL_H
            body.append(_cell(*at, states[block], order, block_size, label=str(block)))
        y += -(-len(table) // COLUMNS) * CELL_H + 6
    held, filled = chosen.usage(block_size)
    description = (
        f"Step {chosen.plan.step}: {len(order)} requests hold {held // block_size} of {len(states)} blocks, "
        f"{sum(len(s.owners) > 1 for s in states)} of them shared; {len(chosen.idle)} more are cached. "
        f"{held - filled} of {held} held slots are empty."
    )
    end = max(bottom + 30, y + 10)
    body.append(svg.text(24, end + 12, description, size=12, color=svg.MUTED))
    return svg.figure(width, end + 26, "Block pool", description, body)


def render_pool_history(trace: Trace, width: float = 1100.0) -> str:
    """The pool over the run: a row per block, a column per step; colours as in :func:`render_block_table`."""
    trace = read_trace(trace)
    steps, block_size = list(replay(trace)), trace["config"]["block_size"]
    history = [block_states(step, trace["num_blocks"], block_size) for step in steps]
    used = [b for b in range(trace["num_blocks"]) if any(states[b].owners or states[b].idle for states in history)]
    if not used:
        raise TraceError("no step of the trace held a block")
    order = sorted({rid for step in steps for rid in step.tables})
    used = used[:MAX_BLOCKS]
    left, top = 74.0, 76.0
    height = min(14.0, max(3.0, 440 / len(used)))
    column = (width - left - 16) / len(steps)
    bottom = top + height * len(used)
    body = [svg.text(24, 24, "The KV pool over the run", size=15, font_weight="600"), *_legend(24, 38)]
    for row, block in enumerate(used):
        y = top + row * height
        if row % max(1, len(used) // 12) == 0:
            body.append(svg.text(left - 6, y + height / 2 + 4, f"block {block}", "end", 10, svg.MUTED))
        for first, last, state in _runs([states[block] for states in history]):
            box = left + first * column, y + 0.3, (last - first) * column, height - 0.6
            words = f"block {block}, steps {steps[first].plan.step} to {steps[last - 1].plan.step}: {_words(state)}"
            shape = _hatched(*box) if state.idle else svg.rect(*box, _color(state, order))
            if len(state.owners) == 1 and height > 10 and box[2] > 20:
                shape += svg.text(box[0] + 2, y + height - 3, f"r{state.owners[0]}", size=9)
            body.append(f"<g><title>{escape(words)}</title>{shape}</g>")
    body.append(svg.line(left, bottom, width - 16, bottom, svg.MUTED))
    for tick in svg.ticks(len(steps) - 1, 10):
        label = str(steps[int(tick)].plan.step)
        body.append(svg.text(left + (tick + 0.5) * column, bottom + 14, label, "middle", 10, svg.MUTED))
    body.append(svg.text(width - 16, bottom + 30, "step", "end", 11, svg.MUTED))
    description = (
        f"{len(used)} of {trace['num_blocks']} blocks were used in {len(steps)} steps by {len(order)} requests. "
        "A row is a block, a column a step."
    )
    return svg.figure(width, bottom + 38, "Block pool over the run", description, body)


def _choose(steps: Sequence[ReplayedStep], number: int | None) -> ReplayedStep:
    if number is None:
        return max(steps, key=lambda step: len({block for table in step.tables.values() for block in table}))
    for step in steps:
        if step.plan.step == number:
            return step
    raise TraceError(f"there is no step {number}: the trace has steps {steps[0].plan.step} to {steps[-1].plan.step}")


def _runs(states: Sequence[BlockState]) -> list[tuple[int, int, BlockState]]:
    """(first, last + 1, state) for each stretch of steps in which a block is held by the same owners, or idle."""
    runs, first = [], 0
    for index in range(1, len(states) + 1):
        same = index < len(states) and (states[index].owners, states[index].idle) == (
            states[first].owners,
            states[first].idle,
        )
        if not same:
            if states[first].owners or states[first].idle:
                runs.append((first, index, states[first]))
            first = index
    return runs


def _color(state: BlockState, order: Sequence[int]) -> str:
    if len(state.owners) > 1:
        return SHARED
    return OWNERS[order.index(state.owners[0]) % len(OWNERS)]


def _words(state: BlockState) -> str:
    if state.idle:
        return "cached, held by no request"
    if not state.owners:
        return "free"
    return f"request{'s' * (len(state.owners) > 1)} {', '.join(map(str, state.owners))}"


def _cell(
    x: float, y: float, state: BlockState, order: Sequence[int], block_size: int, label: str | None = None
) -> str:
    """One block; ``label`` (a physical block in a block table) takes the place of block number and owner."""
    w, h = CELL_W - 4, CELL_H - 4
    shared = len(state.owners) > 1
    parts = [f"<title>{escape(f'block {state.block}: {_words(state)}, {state.tokens} of {block_size} tokens')}</title>"]
    if state.idle:
        parts.append(_hatched(x, y, w, h))
    elif state.owners:
        full = w * state.tokens / block_size
        if full:
            parts.append(svg.rect(x, y, full, h, _color(state, order)))
    stroke, thick = (svg.INK, "2") if shared else (FRAME, "1")
    dash = "" if state.owners or state.idle else ' stroke-dasharray="3 2"'
    parts.append(f'<path d="{_outline(x, y, w, h)}" fill="none" stroke="{stroke}" stroke-width="{thick}"{dash}/>')
    ink = "#ffffff" if shared and state.tokens > block_size // 2 else svg.INK
    if label is not None:
        parts.append(svg.text(x + w / 2, y + h / 2 + 4, label, "middle", 12, ink))
    else:
        owner = f"× {len(state.owners)}" if shared else "".join(f"r{rid}" for rid in state.owners)
        parts.append(svg.text(x + 3, y + 9, str(state.block), size=8, color=ink if shared else svg.MUTED))
        parts.append(svg.text(x + w / 2, y + h - 5, owner, "middle", 11, ink))
    return f"<g>{''.join(parts)}</g>"


def _outline(x: float, y: float, w: float, h: float) -> str:
    return f"M{svg.number(x)} {svg.number(y)}h{svg.number(w)}v{svg.number(h)}h{svg.number(-w)}z"


def _hatched(x: float, y: float, w: float, h: float) -> str:
    """Diagonal strokes inside a box, drawn one by one: a pattern would need an id that is unique on the page."""
    strokes, offset = [], 4.0
    while offset < w + h:
        x1, y1 = (x + offset, y) if offset <= w else (x + w, y + offset - w)
        x2, y2 = (x, y + offset) if offset <= h else (x + offset - h, y + h)
        strokes.append(f"M{svg.number(x1)} {svg.number(y1)}L{svg.number(x2)} {svg.number(y2)}")
        offset += 6
    lines = f'<path d="{"".join(strokes)}" stroke="{IDLE}" stroke-width="1" fill="none"/>' if strokes else ""
    return f"{svg.rect(x, y, w, h, '#f1f1f1')}{lines}"


def _legend(x: float, y: float) -> list[str]:
    parts = []
    for words, shape in (
        ("held by one request, as far as it is filled", svg.rect(0, y, 12, 12, OWNERS[0])),
        ("shared by several", svg.rect(0, y, 12, 12, SHARED)),
        ("cached, held by nobody", _hatched(0, y, 12, 12)),
        ("free", f'<path d="{_outline(0, y, 12, 12)}" fill="none" stroke="{FRAME}" stroke-dasharray="3 2"/>'),
    ):
        parts.append(f'<g transform="translate({svg.number(x)} 0)">{shape}</g>')
        parts.append(svg.text(x + 18, y + 10, words))
        x += 40 + 6.4 * len(words)
    return parts

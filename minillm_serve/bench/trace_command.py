"""``minillm trace``: look at a recorded run without the model: replay it, draw it, take the text out of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from minillm_serve.bench import gantt, page
from minillm_serve.bench.block_table import render_block_table, render_pool_history
from minillm_serve.bench.draft_strip import draft_strip, draft_table, render_draft_strip
from minillm_serve.engine.replay import ReplayedStep, replay
from minillm_serve.engine.trace import TraceError, anonymise, read_trace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``replay``, ``draw`` and ``anonymise`` on ``parser``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    replayed = actions.add_parser("replay", help="run the scheduler again and check that every plan comes out the same")
    replayed.add_argument("file", type=Path)
    replayed.add_argument("--quiet", action="store_true", help="say only how it ended")
    drawn = actions.add_parser("draw", help="the Gantt chart, the drafts and the block pool as one HTML page")
    drawn.add_argument("file", type=Path)
    drawn.add_argument("--out", type=Path, required=True, metavar="HTML")
    drawn.add_argument("--step", type=int, help="step of the block tables (the fullest one)")
    changed = actions.add_parser("anonymise", help="replace token ids and labels by numbers; it still replays")
    changed.add_argument("file", type=Path)
    changed.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """0; 1 when the replay differs from the record or the file is no trace (one sentence on stderr)."""
    try:
        trace = read_trace(args.file)
        {"replay": _replay, "draw": _draw, "anonymise": _anonymise}[args.action](trace, args)
    except (TraceError, OSError) as error:
        print(f"minillm trace: {error}", file=sys.stderr)
        return 1
    return 0


def _replay(trace: dict[str, Any], args: argparse.Namespace) -> None:
    steps = 0
    for step in replay(trace):
        steps += 1
        if not args.quiet:
            print(describe(step, trace["config"]["block_size"]))
    print(f"{steps} steps replayed: every plan is the recorded one")


def describe(step: ReplayedStep, block_size: int) -> str:
    """One line: tokens and requests of the step, blocks held, what came and went."""
    plan = step.plan
    held, filled = step.usage(block_size)
    line = f"step {plan.step}: {plan.total_tokens} tokens of {len(plan.num_tokens)} requests"
    line += f", {held // block_size} blocks held ({held - filled} of {held} slots empty), {len(step.idle)} cached"
    if plan.drafts:
        line += f", {sum(map(len, plan.drafts.values()))} drafts verified"
    for init in plan.new_requests:
        hit = f", {init.num_computed} from the cache" if init.num_computed else ""
        line += f"\n  + request {init.rid}: {len(init.token_ids)} tokens{hit}"
    for name, rids in (("preempted", plan.preempted), ("ended", plan.finished)):
        if rids:
            line += f"\n  - {name}: {', '.join(map(str, rids))}"
    return line


def _draw(trace: dict[str, Any], args: argparse.Namespace) -> None:
    args.out.write_text(draw(trace, args.step), encoding="utf-8")
    print(args.out)


def draw(trace: dict[str, Any], step: int | None = None) -> str:
    """The page: what the scheduler did, what became of drafts, the pool over the run and in one step, and tables."""
    title = f"{len(trace['requests'])} requests in {len(trace['steps'])} steps"
    chart = gantt.render_gantt(trace, f"What the scheduler did: {title}")
    table = f'<div class="scroll">{gantt.gantt_table(trace)}</div>'
    return page.document(
        f"minillm trace: {title}",
        [
            f"<h1>{title}</h1>",
            page.picture(chart, "A row per request, a bar per step that computed some of its tokens.", "wide"),
            page.details("The same data as a table", table),
            *_drafts(trace),
            page.picture(render_pool_history(trace), "A row per block of the KV pool, a column per step.", "wide"),
            page.picture(render_block_table(trace, step), "The pool in one step, and who holds which block.", "wide"),
            page.details("Configuration", page.code(json.dumps(trace["config"], indent=1))),
        ],
    )


def _drafts(trace: dict[str, Any]) -> list[str]:
    if not draft_strip(trace):
        return []
    strip = page.picture(render_draft_strip(trace), "A row per request, a column per step that gave it tokens.", "wide")
    return [strip, page.details("The same data as a table", draft_table(trace))]


def _anonymise(trace: dict[str, Any], args: argparse.Namespace) -> None:
    args.out.write_text(json.dumps(anonymise(trace), separators=(",", ":")), encoding="utf-8")
    print(args.out)

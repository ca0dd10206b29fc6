"""``minillm stages``: run every stage of the engine's story on the same load, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from minillm_serve.bench.child import ChildError, run_child
from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.stages import STAGES, Stage, settings_of, stage_named
from minillm_serve.config import ConfigError
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model, weights_name

COLUMNS = ("stage", "TTFT", "max", "pause", "tok/s", "waste", "hits", "MiB", "equal", "read")
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``minillm stages`` on ``parser``."""
    names = ",".join(stage.name for stage in STAGES)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="known model or local folder (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment and results there")
    parser.add_argument("--prompts", type=int, default=10, help="requests, at least 2 (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=24, help="tokens of the longest answers (%(default)s)")
    parser.add_argument("--only", metavar="NAMES", help=f"some of the stages, by comma: {names}")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of the engine (%(default)s)")
    parser.add_argument("--trace-dir", type=Path, metavar="DIR", help="write the trace of every stage there")


def run(args: argparse.Namespace) -> int:
    """0: all fp32 stages gave the same greedy tokens; 1: one did not; 2: it could not run (one sentence)."""
    try:
        stages = chosen(args.only)
        _check(args)
        outcome = run_stages(stages, args)
    except (ConfigError, ChildError) as error:
        print(f"minillm stages: {error}", file=sys.stderr)
        return 2
    console = Console()
    Console(width=max(console.width, WIDTH)).print(table(outcome["results"]))
    console.print(
        "ms. TTFT: median and longest over the requests; pause: longest wait between two tokens of one answer; "
        "waste: KV slots held that hold no token; hits: tokens found in the prefix cache; MiB: peak memory; "
        "equal: greedy tokens as in the first row.",
        style="dim",
        highlight=False,
    )
    different = [row["stage"] for row in outcome["results"] if row["quantization"] is None and row["equal_tokens"] < 1]
    if different:
        print(f"minillm stages: greedy fp32 tokens differ in {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


def chosen(only: str | None) -> tuple[Stage, ...]:
    """The stages named in ``--only``, in the story's order. Raises :class:`ConfigError` on an unknown one."""
    if only is None:
        return STAGES
    try:
        wanted = [stage_named(name.strip()) for name in only.split(",")]
    except KeyError as error:
        raise ConfigError(f"--only: {error.args[0]}") from error
    return tuple(stage for stage in STAGES if stage in wanted)


def _check(args: argparse.Namespace) -> None:
    for flag, low, high in (("prompts", 2, 64), ("max_tokens", 2, 256), ("threads", 1, 1024)):
        if not low <= getattr(args, flag) <= high:
            name = flag.replace("_", "-")
            raise ConfigError(f"--{name} must be between {low} and {high}, got {getattr(args, flag)}")
    for flag, folder in (("--json", args.json and args.json.absolute().parent), ("--trace-dir", args.trace_dir)):
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{flag}: the folder {folder} does not exist")


def run_stages(stages: Sequence[Stage], args: argparse.Namespace) -> dict[str, Any]:
    """Measure the stages one after the other; ``--json`` is written after each, so that a crash loses one row."""
    folder, console = resolve_model(args.model), Console(stderr=True)
    outcome: dict[str, Any] = {
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "weights": {"model": Path(args.model).name, "name": weights_name(folder)},
        "workload": {"prompts": args.prompts, "max_tokens": args.max_tokens},
        "environment": describe_environment(args.threads, "float32"),
        "results": [],
    }
    for number, stage in enumerate(stages, start=1):
        console.print(f"[dim]{number}/{len(stages)}[/] {stage.name}: {stage.switches}", highlight=False, soft_wrap=True)
        job = {"stage": stage.name, "model": str(folder)}
        job |= {"threads": args.threads, "prompts": args.prompts, "max_tokens": args.max_tokens}
        result = run_child("minillm_serve.bench.stages", job, console.print)
        trace = result.pop("trace")
        if args.trace_dir is not None:
            (args.trace_dir / f"{number}-{stage.name}.json").write_text(json.dumps(trace), encoding="utf-8")
        outcome["results"].append(row(stage, result, outcome["results"]))
        if args.json is not None:
            args.json.write_text(json.dumps(outcome, indent=1, ensure_ascii=False), encoding="utf-8")
    return outcome


def row(stage: Stage, result: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of the JSON file; ``equal_tokens``: share of all generated tokens that the first stage gave too."""
    settings = settings_of(stage)
    first = earlier[0]["tokens"] if earlier else result["tokens"]
    return {
        "backend": "minillm",
        "cell": f"stage:{stage.name}",
        "dtype": settings.get("quantization") or "float32",
        "quantization": settings.get("quantization"),
        "settings": settings,
        "read": f"minillm_serve/{stage.read}",
        "equal_tokens": equal_share(first, result["tokens"]),
        **result,
        "peak_mb": result["peak_mib"],
    }


def equal_share(expected: Sequence[Sequence[int]], got: Sequence[Sequence[int]]) -> float:
    """Share of the expected tokens that stand at the same place of the answers. Raises ValueError on other counts."""
    pairs = [pair for a, b in zip(expected, got, strict=True) for pair in zip(a, b, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The results as a table for the terminal."""
    drawn = Table(title="One engine, one idea more in every row")
    for index, name in enumerate(COLUMNS):
        drawn.add_column(name, justify="left" if index in (0, len(COLUMNS) - 1) else "right", no_wrap=True)
    for result in results:
        waste = "–" if result["kv_waste"] is None else f"{result['kv_waste']:.0%}"
        drawn.add_row(
            result["stage"],
            f"{result['ttft_ms']:,.0f}",
            f"{result['ttft_max_ms']:,.0f}",
            f"{result['pause_ms']:,.0f}",
            f"{result['tok_s']:.1f}",
            waste,
            f"{result['cached_tokens']:,}",
            f"{result['peak_mib']:,.0f}",
            "all" if result["equal_tokens"] == 1 else f"{result['equal_tokens']:.0%}",
            result["read"].removeprefix("minillm_serve/"),
        )
    return drawn

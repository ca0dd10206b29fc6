"""The results in the terminal: one table a cell, ratios below it, what could not run at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minillm_serve.bench.contention import BUSY_LIMIT

Result = dict[str, Any]
Column = tuple[str, Callable[[Result], str]]


def number(key: str, digits: int = 1) -> Callable[[Result], str]:
    return lambda result: "–" if result.get(key) is None else f"{result[key]:.{digits}f}"


def percent(key: str) -> Callable[[Result], str]:
    return lambda result: "–" if result.get(key) is None else f"{result[key]:.0%}"


def percentile(what: str, which: str) -> Callable[[Result], str]:
    """``which`` percentile of ``ttft_ms`` or ``itl_ms``."""

    def show(result: Result) -> str:
        described = result["latency"][what]
        return "–" if described is None else f"{described[which]:.1f}"

    return show


def equality(result: Result) -> str:
    same = result.get("same_tokens_as")
    return "–" if same is None else f"{same['equal']}/{same['of']}"


# Each group of columns is a table of its own, so that a terminal of 80 columns shows all of it.
Groups = tuple[tuple[Column, ...], ...]
THROUGHPUT: Groups = (
    (
        ("tok/s", number("tok_s")),
        ("range", lambda result: f"{result['tok_s_min']:.1f}–{result['tok_s_max']:.1f}"),
        ("TTFT ms", number("ttft_ms", 0)),
        ("ITL ms", number("itl_ms")),
        ("peak MB", number("peak_mb", 0)),
        ("equal", equality),
    ),
    (
        ("decode tok/s", number("decode_tok_s")),
        ("GB/s", number("gb_s")),
        ("of limit", percent("share_of_bandwidth")),
        ("GFLOP/s", number("gflop_s", 0)),
        ("of limit", percent("share_of_compute")),
    ),
)
LATENCY: Groups = (
    (
        *((f"TTFT {p} ms", percentile("ttft_ms", p)) for p in ("p50", "p95", "p99")),
        ("tok/s", number("tok_s")),
    ),
    (
        *((f"ITL {p} ms", percentile("itl_ms", p)) for p in ("p50", "p95", "p99")),
        ("peak MB", number("peak_mb", 0)),
    ),
)
PREFIX: Groups = (
    (
        ("TTFT ms", number("ttft_ms")),
        ("p95", percentile("ttft_ms", "p95")),
        ("from", percentile("ttft_ms", "min")),
        ("to", percentile("ttft_ms", "max")),
        ("peak MB", number("peak_mb", 0)),
        ("equal", equality),
    ),
)


def print_results(document: dict[str, Any], groups: Groups, console: Console) -> None:
    """Print the document that ``--json`` writes. Engines without figures are named with their reason."""
    print_environment(document["environment"], console)
    results: list[Result] = document["results"]
    for cell in dict.fromkeys(result["cell"] for result in results):
        rows = [result for result in results if result["cell"] == cell and "tok_s" in result]
        for columns in groups if rows else ():
            console.print(cell_table(cell, rows, columns))
        for row in (r for r in document["ratios"] if r["cell"] == cell):
            spread = f" ({row['low']:.2f} to {row['high']:.2f})" if "low" in row else ""
            console.print(f"  {row['of']} / {row['to']}: {row['ratio']:.2f}×{spread}", highlight=False, markup=False)
    for result in results:
        if result["reason"]:
            state = "stopped early" if "tok_s" in result else "left out"
            console.print(
                f"{result['cell']}: {result['label']} {state}: {result['reason']}", style="yellow", highlight=False,
                markup=False, soft_wrap=True,
            )  # fmt: skip
    if busy := [result["label"] for result in results if _disturbed(result)]:
        console.print(
            f"[bold red]Other programs took more than {BUSY_LIMIT:.0%} of the CPU[/] during runs of "
            f"{', '.join(dict.fromkeys(busy))}: the figures compare unequal conditions.",
            highlight=False,
        )


def print_environment(environment: dict[str, Any], console: Console) -> None:
    limits = environment["limits"]
    shown = [
        f"{limits[key]:.0f} {unit}"
        for key, unit in (("read_gb_s", "GB/s read"), ("fp32_gflop_s", "GFLOP/s fp32"), ("int8_gop_s", "GOP/s int8"))
        if limits.get(key)
    ]
    machine = f"{environment['cpu']}, {environment['threads']} threads; measured limits: {', '.join(shown) or 'none'}"
    console.print(f"{environment['weights']}; {machine}", style="dim", highlight=False)


def cell_table(cell: str, rows: Sequence[Result], columns: Sequence[Column]) -> Table:
    at_once = max(row["concurrency"] for row in rows)
    title = f"{cell}: up to {at_once} at once, {rows[0]['max_tokens']} new tokens each"
    table = Table(title=title, title_justify="left", highlight=False, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine", overflow="fold")
    for name, _ in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(Text(row["label"]), *(show(row) for _, show in columns))
    return table


def _disturbed(result: Result) -> bool:
    return any(share is not None and share > BUSY_LIMIT for share in result.get("others_cpu", ()))

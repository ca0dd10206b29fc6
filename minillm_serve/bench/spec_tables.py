"""The figures of ``minillm bench spec`` in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from minillm_serve.bench.contention import BUSY_LIMIT
from minillm_serve.bench.tables import number, percent

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def positions(row: Row, shown: int = 5) -> str:
    """Acceptance up to each of the first places of a draft, in percent."""
    return " ".join(f"{share * 100:.0f}" for share in row["acceptance_per_position"][:shown]) or "–"


def speed_up(row: Row) -> str:
    return f"{row['speed_up']:.2f}× ({row['speed_up_low']:.2f}–{row['speed_up_high']:.2f})"


def same(row: Row) -> str:
    return "yes" if row["same_tokens"] else f"{row['answers_equal']}/{row['answers']}"


MEASURED: tuple[Column, ...] = (
    ("accepted", percent("acceptance_rate")),
    ("by position %", positions),
    ("tok/step", number("tokens_per_step", 2)),
    ("speed-up", speed_up),
    ("equal", same),
)
SUITES: tuple[Column, ...] = (("method", lambda row: row["method"]), ("suite", lambda row: row["suite"]), *MEASURED)
BATCHES: tuple[Column, ...] = (
    ("method", lambda row: row["method"]),
    ("at once", lambda row: str(row["at_once"])),
    ("lengths", lambda row: row["length"]),
    ("accepted", percent("acceptance_rate")),
    ("tok/s", number("tok_s")),
    ("speed-up", speed_up),
    ("equal", same),
)


def print_spec(document: dict[str, Any], console: Console) -> None:
    """The document that ``--json`` writes."""
    environment = document["environment"]
    console.print(f"{environment['weights']}; {environment['cpu']}, {environment['threads']} threads", style="dim",
                  highlight=False)  # fmt: skip
    for title, rows, columns in (
        ("One request at a time", document["suites"], SUITES),
        ("Chats at once: draft lengths that follow what pays, and fixed ones", document["batches"], BATCHES),
    ):
        if rows:
            console.print(_table(title, rows, columns))
    lines = document["losses"]
    console.print("Where it loses:" if lines else "It loses nowhere here.", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    shares = [share for row in (*document["suites"], *document["batches"]) for share in row["others_cpu"]]
    if busy := sum(share is not None and share > BUSY_LIMIT for share in shares):
        console.print(f"[bold red]Other programs took more than {BUSY_LIMIT:.0%} of the CPU[/] in {busy} of "
                      f"{len(shares)} turns: the figures compare unequal conditions.", highlight=False)  # fmt: skip


def _table(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    table = Table(title=title, title_justify="left", highlight=False, box=box.SIMPLE_HEAD, pad_edge=False)
    for index, (name, _) in enumerate(columns):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(show(row) for _, show in columns))
    return table

"""The table the demo ends with in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from minillm_serve.bench.result import RATIO_TARGET, disturbed


def print_summary(result: dict[str, Any], folder: Path, console: Console) -> None:
    """Print the figures, what they are compared with, and where the report lies. A missed target is said aloud."""
    settings, runs = result["settings"], [run["tok_s"] for run in result["minillm"]["runs"]]
    ttft = result["minillm"]["runs"][result["minillm"]["median_run"]]["ttft_s"]
    singles, batches = result["baseline"]["one_by_one"], result["baseline"]["padded_batch"]
    table = Table(title=f"minillm demo: {result['weights']['name']}", title_justify="left", highlight=False)
    for column, justify in (("what", "left"), ("result", "right"), ("how", "left")):
        table.add_column(column, justify=justify)
    table.add_row(
        f"minillm serve, {settings['prompts']} clients",
        f"{result['minillm_tok_s']:.1f} tok/s",
        f"median of {len(runs)} runs ({min(runs):.0f} to {max(runs):.0f}), server and client included",
    )
    table.add_row(
        "transformers, one by one", f"{result['baseline_tok_s']:.1f} tok/s", f"sample of {len(singles)} of the prompts"
    )
    table.add_row(
        "transformers, padded batch",
        f"{result['baseline_batch_tok_s']:.1f} tok/s",
        f"all prompts, {len(batches)} run(s)",
    )
    table.add_section()
    table.add_row(
        "ratio to one by one", _colored(f"{result['ratio']:.1f}×", _fast(result)), f"target {RATIO_TARGET:g}×"
    )
    table.add_row("ratio to padded batch", f"{result['ratio_batch']:.2f}×", "the fair baseline")
    table.add_row("TTFT p50 / p95", f"{ttft['p50']:.2f} / {ttft['p95']:.2f} s", "all requests sent at the same instant")
    table.add_row("CPU taken by other programs", others_cpu(result), "during minillm / one by one / padded batch")
    table.add_section()
    valid, total = result["json_valid"], result["json_total"]
    table.add_row("JSON valid", _colored(f"{valid} of {total}", valid == total), "strict JSON, then jsonschema")
    equal, total = result["greedy_equal"], result["greedy_total"]
    check = result["equality"]
    ties = f"{len(check['ties'])} tied tokens (logit gap < {check['tolerance']:g})"
    table.add_row("greedy equal", _colored(f"{equal} of {total}", equal == total), f"transformers fp32, {ties}")
    console.print()
    console.print(table)
    if not _fast(result):
        console.print(
            f"[bold red]Throughput target missed:[/] {result['ratio']:.1f}× is below {RATIO_TARGET:g}×. "
            "Close other programs and run it again; the report shows the spread.",
            highlight=False,
        )
    if disturbed(result):
        console.print(
            "[bold red]Other programs were busy:[/] the engines did not have the same CPU, so the ratios mean little. "
            "Close them and run it again.",
            highlight=False,
        )
    for answer in [a for a in result["guided"]["answers"] if not a["valid"]][:3]:
        console.print(
            f"invalid JSON ({answer['schema']}): {answer['reason']}", style="red", markup=False, highlight=False
        )
    for token in check["wrong"][:3]:
        console.print(
            f"not equal: {token['prompt']!r} token {token['position']}: served {token['served_text']!r}, "
            f"transformers {token['expected_text']!r} (gap {token['gap']:.2g})",
            style="red",
            markup=False,
            highlight=False,
        )
    console.print(f"Report: {folder / 'demo.html'}   Data: {folder / 'demo.json'}", highlight=False, soft_wrap=True)


def others_cpu(result: dict[str, Any]) -> str:
    """The three shares as text: `3 % / 2 % / unknown`."""
    return " / ".join("unknown" if share is None else f"{share:.0%}" for share in result["others_cpu"].values())


def _fast(result: dict[str, Any]) -> bool:
    return result["ratio"] >= RATIO_TARGET


def _colored(text: str, good: bool) -> str:
    return f"[{'bold green' if good else 'bold red'}]{text}[/]"

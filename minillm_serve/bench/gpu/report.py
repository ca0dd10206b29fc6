"""The document that ``minillm bench gpu`` writes, made of what the workers say as they say it.

``{"kind": "gpu", "date", "device", "versions", "git_commit", "settings", "limits", "results", "ratios", "kernels",
"profiles", "speculation", "failed"}``. A result: backend, version, shape, cell, prompts, new_tokens, tok_s (the median
of ``runs``), limit_tok_s and limit_share (see limits.py) and, where a profile of its decode steps was taken, launches
(graph nodes of a step) and us_per_node. Written anew after every message, so that a run that is cut keeps what it had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from minillm_serve.bench.environment import git_commit
from minillm_serve.bench.gpu.cells import SHAPES, Cell
from minillm_serve.bench.gpu.limits import Limits, Work
from minillm_serve.bench.gpu.speculation import speculation_line
from minillm_serve.config import ConfigError

OURS = "minillm"
TABLES = ("results", "ratios", "kernels", "profiles", "speculation")


class Report:
    """``kept``: a document of an earlier run, whose results stay unless this run measures the same again."""

    def __init__(self, settings: dict[str, Any], file: Path | None = None, kept: dict[str, Any] | None = None):
        self._file = file
        self._limits: Limits | None = None
        self._cells: dict[tuple[str, str, str], Cell] = {}  # of this run, by backend, shape and name
        self.document: dict[str, Any] = {
            "kind": "gpu",
            "date": _now(),
            "device": (kept or {}).get("device"),
            "versions": dict((kept or {}).get("versions", {})),
            "git_commit": git_commit(),
            "settings": settings,
            "limits": None,
            **{name: list((kept or {}).get(name, [])) for name in TABLES},
            "failed": [],
        }

    @property
    def failed(self) -> bool:
        return bool(self.document["failed"])

    def take(self, message: dict[str, Any], backend: str, shape: str, cell: Cell | None = None) -> None:
        """Book a worker's message; ``cell`` is that of a run."""
        [(kind, value)] = message.items()
        getattr(self, f"_take_{kind}")(value, backend, shape, cell)
        self._write()

    def fail(self, backend: str, shape: str, reason: str) -> None:
        """A worker ended early: what it had said stays."""
        self.document["failed"].append({"backend": backend, "shape": shape, "reason": public(reason.splitlines()[0])})
        self._write()

    def _take_info(self, info: dict[str, Any], backend: str, shape: str, cell: Cell | None) -> None:
        self.document["versions"][backend] = info

    def _take_limits(self, limits: dict[str, Any], backend: str, shape: str, cell: Cell | None) -> None:
        if self.document["device"] not in (None, limits["device"]):
            raise ConfigError(
                f"--add: the file's results are of {self.document['device']}, this is {limits['device']}: name another"
            )
        self.document["device"] = limits["device"]
        self.document["versions"] |= limits["versions"]
        self._limits = Limits(**{name: limits[name] for name in ("copy_gb_s", "matmul_tflop_s", "node_us")})
        self.document["limits"] = asdict(self._limits)

    def _take_kernel(self, row: dict[str, Any], backend: str, shape: str, cell: Cell | None) -> None:
        self._replace("kernels", row, ("op", "shape"))

    def _take_speculation(self, row: dict[str, Any], backend: str, shape: str, cell: Cell | None) -> None:
        self._replace("speculation", {"shape": shape, "date": self.document["date"], **row}, ("shape", "drafts"))

    def _take_profile(self, profile: dict[str, Any], backend: str, shape: str, cell: Cell | None) -> None:
        self._replace("profiles", {"backend": backend, "shape": shape, **profile}, ("backend", "shape", "steps"))

    def _take_run(self, run: dict[str, Any], backend: str, shape: str, cell: Cell | None) -> None:
        assert cell is not None
        same = ("backend", "shape", "cell")
        row = {
            "backend": backend,
            "version": self.document["versions"].get(backend, {}).get("version"),
            "shape": shape,
            "cell": cell.name,
            "date": self.document["date"],
            "prompts": len(cell.new),
            "new_tokens": run["tokens"],
        }
        mine = self._find("results", row, same)
        earlier = mine["runs"] if mine is not None and mine["date"] == row["date"] else []
        runs = [*earlier, run["tokens"] / run["seconds"]]
        self._cells[backend, shape, cell.name] = cell
        self._replace("results", row | {"tok_s": median(runs), "runs": runs, "limit_tok_s": None}, same)

    def _set_limit(self, row: dict[str, Any]) -> None:
        """The limits may come after the run; what an earlier run measured keeps its own."""
        cell = self._cells.get((row["backend"], row["shape"], row["cell"]))
        if cell is not None and self._limits is not None:
            lengths = [len(prompt) for prompt in cell.prompts]
            row["limit_tok_s"] = sum(cell.new) / Work.of(SHAPES[row["shape"]]).cell_seconds(
                self._limits, lengths, cell.new
            )
        row["limit_share"] = row["tok_s"] / row["limit_tok_s"] if row["limit_tok_s"] else None

    def _find(self, table: str, row: dict[str, Any], names: Iterable[str]) -> dict[str, Any] | None:
        return next((old for old in self.document[table] if all(old[name] == row[name] for name in names)), None)

    def _replace(self, table: str, row: dict[str, Any], names: Iterable[str]) -> None:
        old, rows = self._find(table, row, names), self.document[table]
        self.document[table] = [row if other is old else other for other in rows] + ([row] if old is None else [])

    def _write(self) -> None:
        results = self.document["results"]
        profiles = {(p["backend"], p["shape"], p["steps"]): p for p in self.document["profiles"]}
        for row in results:
            self._set_limit(row)
            profile = profiles.get((row["backend"], row["shape"], row["cell"]))
            if profile is not None and profile["launches"]:
                row["launches"] = profile["launches"]
                row["us_per_node"] = profile["step_us"] / profile["launches"]
        self.document["ratios"] = ratios(results)
        if self._file is not None:
            self._file.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")


def ratios(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our median over that of each other engine on the same shape and cell."""
    ours = {(row["shape"], row["cell"]): row["tok_s"] for row in results if row["backend"] == OURS}
    return [
        {"shape": row["shape"], "cell": row["cell"], "peer": row["backend"], "ratio": ours[place] / row["tok_s"]}
        for row in results
        if row["backend"] != OURS and (place := (row["shape"], row["cell"])) in ours
    ]


def result_lines(document: dict[str, Any]) -> list[str]:
    """The results as a table of text."""
    faster = {(row["shape"], row["cell"], row["peer"]): row["ratio"] for row in document["ratios"]}
    lines = []
    for row in document["results"]:
        runs, share = row["runs"], row["limit_share"]
        parts = [
            f"{row['shape']:11s} {row['cell']:7s} {row['backend']:13s} {row['tok_s']:9.0f} tok/s",
            f"({min(runs):.0f} to {max(runs):.0f})",
        ]
        if share is not None:
            parts.append(f"{share:.1%} of the limit")
        if (ratio := faster.get((row["shape"], row["cell"], row["backend"]))) is not None:
            parts.append(f"minillm is {ratio:.2f} times as fast")
        if "us_per_node" in row:
            parts.append(f"{row['launches']:.0f} nodes a step, {row['us_per_node']:.2f} us each")
        lines.append("  ".join(parts))
    lines += [f"{row['shape']:11s} {speculation_line(row)}" for row in document["speculation"]]
    return lines + [f"{row['backend']} on {row['shape']} failed: {row['reason']}" for row in document["failed"]]


def public(reason: str) -> str:
    """An error as a report may show it: of a path, only its last part."""
    return re.sub(r"(?<![\w.])(?:/[\w.+@-]+)+/", "", reason)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

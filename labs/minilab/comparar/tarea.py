"""What a measurement is asked for, and what it answers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Row = dict[str, Any]  # sistema, caso, valores, detalle: plain JSON
Size = TypeVar("Size")


class Unavailable(RuntimeError):
    """A system is not here or does not do what was asked; one Spanish sentence with the remedy."""


@dataclass(frozen=True)
class Task:
    """folder: the model's. quick: fewer and shorter requests. url: our own server, already running (or None)."""

    folder: Path
    quick: bool
    url: str | None = None

    def size(self, full: Size, quick: Size) -> Size:
        return quick if self.quick else full


@dataclass(frozen=True)
class Part:
    """One system's share of a comparison.

    measure: rows from this machine. by_url: rows from a server elsewhere, where the comparison can use one.
    slow: not live in quick mode.
    """

    system: str
    measure: Callable[[Task], list[Row]]
    by_url: Callable[[Task, str, str], list[Row]] | None = None
    slow: bool = False


@dataclass(frozen=True)
class Comparison:
    """title, columns: of the table. parts: who is measured. stored: rows from files that other commands wrote."""

    title: str
    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    stored: Callable[[], list[Any]] | None = None
    notes: tuple[str, ...] = ()


def row(system: str, case: str, detail: str, **values: Any) -> Row:
    return {"sistema": system, "caso": case, "valores": values, "detalle": detail}


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation at position (n - 1) * percent / 100."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def middle(passes: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows of several passes as one: the median of each figure; ``tandas`` keeps every pass's speed."""
    merged = []
    for place, first in enumerate(passes[0]):
        same = [rows[place]["valores"] for rows in passes]
        values = {name: _median([v[name] for v in same]) for name in first["valores"]}
        speeds = [v["tok_s"] for v in same if "tok_s" in v]
        merged.append({**first, "valores": values, "tandas": [round(s, 2) for s in speeds]})
    return merged


def _median(values: Sequence[Any]) -> Any:
    if all(isinstance(v, int) for v in values) and len(set(values)) == 1:
        return values[0]
    if all(isinstance(v, int | float) for v in values):
        return round(statistics.median(values), 4)
    return values[0]

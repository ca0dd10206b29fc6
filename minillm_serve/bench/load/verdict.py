"""What a load or fault run found: figures beside the limits they had to keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value. most, least: what it may be (None: reported, not judged)."""

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def kept(self) -> bool:
        """Within its limits; a NaN never is."""
        above = self.most is None or self.value <= self.most
        below = self.least is None or self.value >= self.least
        return above and below

    @property
    def limit(self) -> str:
        """The limits in words."""
        if self.most is not None and self.most == self.least:
            return f"= {self.most:g}"
        parts = [f"≥ {self.least:g}"] if self.least is not None else []
        return " and ".join([*parts, *([f"≤ {self.most:g}"] if self.most is not None else [])])


def exactly(name: str, value: float, expected: float, unit: str = "") -> Figure:
    """A figure that has one right value."""
    return Figure(name, value, unit, expected, expected)


@dataclass(frozen=True)
class Verdict:
    """The figures of one scenario. details: what else is worth keeping in the JSON file."""

    scenario: str
    figures: tuple[Figure, ...]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(figure.kept for figure in self.figures)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [
            {"name": f.name, "value": f.value, "unit": f.unit, "least": f.least, "most": f.most, "kept": f.kept}
            for f in self.figures
        ]
        return {"scenario": self.scenario, "passed": self.passed, "figures": rows, "details": self.details}

    def show(self, console: Console) -> None:
        """A table of the figures."""
        table = Table(title=f"{self.scenario}: {'passed' if self.passed else 'FAILED'}", title_justify="left")
        for name in ("figure", "measured", "limit", ""):
            table.add_column(name, justify="right" if name == "measured" else "left")
        for figure in self.figures:
            sign = "" if not figure.limit else "ok" if figure.kept else "MISSED"
            table.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}".strip(), figure.limit, sign)
        console.print(table)

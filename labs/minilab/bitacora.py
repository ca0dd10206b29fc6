"""The student's ledger: one row per measurement, with what was expected, what was measured and where."""

from __future__ import annotations

import csv
import os
import platform
from datetime import datetime
from pathlib import Path

COLUMNS = ("fecha", "lab", "que", "esperado", "medido", "unidad", "modelo", "equipo")


def anota(
    lab: str, what: str, expected: float, measured: float, unit: str, model: str, path: str = "bitacora.csv"
) -> dict[str, str]:
    """Append one row to ``bitacora.csv`` (made with its header on first use) and return it as a dict."""
    row = {
        "fecha": datetime.now().astimezone().isoformat(timespec="seconds"),
        "lab": lab,
        "que": what,
        "esperado": f"{expected:g}",
        "medido": f"{measured:.3g}",
        "unidad": unit,
        "modelo": model,
        "equipo": f"{platform.system()} {platform.machine()}, {os.cpu_count()} núcleos",
    }
    file = Path(path)
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as output:
        writer = csv.DictWriter(output, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    return row

"""The student's ledger: one row per measurement, with what was expected, what was measured and where."""

from __future__ import annotations

import csv
import os
import platform
from datetime import datetime
from pathlib import Path

COLUMNAS = ("fecha", "lab", "que", "esperado", "medido", "unidad", "modelo", "equipo")


def anota(
    lab: str, que: str, esperado: float, medido: float, unidad: str, modelo: str, ruta: str = "bitacora.csv"
) -> dict[str, str]:
    """Append one row to ``bitacora.csv`` (made with its header on first use) and return it as a dict."""
    fila = {
        "fecha": datetime.now().astimezone().isoformat(timespec="seconds"),
        "lab": lab,
        "que": que,
        "esperado": f"{esperado:g}",
        "medido": f"{medido:.3g}",
        "unidad": unidad,
        "modelo": modelo,
        "equipo": f"{platform.system()} {platform.machine()}, {os.cpu_count()} núcleos",
    }
    archivo = Path(ruta)
    nuevo = not archivo.exists()
    with archivo.open("a", encoding="utf-8", newline="") as salida:
        escritor = csv.DictWriter(salida, COLUMNAS)
        if nuevo:
            escritor.writeheader()
        escritor.writerow(fila)
    return fila

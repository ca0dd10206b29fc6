"""Find and read ``reports/demo.json``, the report that ``make demo`` writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

CLAVES = ("baseline_tok_s", "baseline_batch_tok_s", "minillm_tok_s", "json_total", "json_valid")


def lee_demo(carpeta: str | Path | None = None) -> dict[str, Any] | None:
    """The demo report, or None when ``make demo`` has not been run. Raises ValueError on a damaged report.

    Looked for in ``carpeta``, else in ``MINILLM_REPORTS``, else in ``reports/`` of the current folder or a parent.
    """
    for candidata in _candidatas(carpeta):
        ruta = candidata / "demo.json"
        if ruta.is_file():
            informe = json.loads(ruta.read_text(encoding="utf-8"))
            faltan = [clave for clave in CLAVES if clave not in informe]
            if faltan:
                raise ValueError(f"a {ruta} le faltan {', '.join(faltan)}: vuelve a ejecutar `make demo`")
            return informe
    return None


def _candidatas(carpeta: str | Path | None) -> list[Path]:
    if carpeta is not None:
        return [Path(carpeta)]
    if os.environ.get("MINILLM_REPORTS"):
        return [Path(os.environ["MINILLM_REPORTS"])]
    aqui = Path.cwd().resolve()
    return [padre / "reports" for padre in (aqui, *aqui.parents)]

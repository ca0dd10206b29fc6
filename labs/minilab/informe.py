"""Find and read ``reports/demo.json``, the report that ``make demo`` writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

KEYS = ("baseline_tok_s", "baseline_batch_tok_s", "minillm_tok_s", "json_total", "json_valid")


def lee_demo(folder: str | Path | None = None) -> dict[str, Any] | None:
    """The demo report, or None when ``make demo`` has not been run. Raises ValueError on a damaged report.

    Looked for in ``folder``, else in ``MINILLM_REPORTS``, else in ``reports/`` of the current folder or a parent.
    """
    for candidate in _candidates(folder):
        path = candidate / "demo.json"
        if path.is_file():
            report = json.loads(path.read_text(encoding="utf-8"))
            missing = [key for key in KEYS if key not in report]
            if missing:
                raise ValueError(f"a {path} le faltan {', '.join(missing)}: vuelve a ejecutar `make demo`")
            return report
    return None


def _candidates(folder: str | Path | None) -> list[Path]:
    if folder is not None:
        return [Path(folder)]
    if os.environ.get("MINILLM_REPORTS"):
        return [Path(os.environ["MINILLM_REPORTS"])]
    here = Path.cwd().resolve()
    return [parent / "reports" for parent in (here, *here.parents)]

"""Cells of a released notebook by name, and a notebook as the bytes that a student hands in."""

from __future__ import annotations

import json
from typing import Any

from nbformat import NotebookNode

PERCENTIL = "def percentil(valores, p):\n    return sorted(valores)[0]  # mío"


def data_of(notebook: NotebookNode) -> bytes:
    return json.dumps(notebook, ensure_ascii=False).encode()


def at(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def put(notebook: NotebookNode, grade_id: str, **changes: Any) -> None:
    at(notebook, grade_id).update(changes)

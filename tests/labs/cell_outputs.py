"""What a reader sees below the cells of an executed notebook."""

from __future__ import annotations

from nbformat import NotebookNode


def shown(notebook: NotebookNode) -> str:
    """All that a reader sees below the cells, as text."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "\n".join(o.text if o.output_type == "stream" else o.get("data", {}).get("text/plain", "") for o in outputs)


def on_stderr(notebook: NotebookNode) -> list[str]:
    return [o.text for cell in notebook.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]

"""Build the notebooks from their single source.

``python -m minilab.construir`` rewrites the student notebooks of ``labs/cuadernos``; ``--check`` only compares and
fails on a difference; ``--instructor FOLDER`` writes the solved notebooks there (a build product, never committed).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from minilab.plantilla import CODE_STUB, TEXT_STUB
from minilab.revisar import review

LABS = Path(__file__).resolve().parents[1]
SOURCE_FOLDER, NOTEBOOK_FOLDER = LABS / "fuente", LABS / "cuadernos"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def instructor(source: Path) -> NotebookNode:
    """The solved notebook: cells and nbgrader metadata of the source, deterministic ids, no outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python"), lang="es"
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    repeats: dict[str, int] = {}
    for cell in notebook.cells:
        cell.id = _cell_id(cell, repeats)
    review(notebook, source.name)
    return notebook


def student(source: Path) -> NotebookNode:
    """What is released: solutions replaced by stubs, checks locked, nbgrader checksums written."""
    from nbgrader.preprocessors import CheckCellMetadata, ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    config = Config()
    config.ClearSolutions.code_stub = CODE_STUB
    config.ClearSolutions.text_stub = TEXT_STUB
    notebook, resources = instructor(source), {}
    for step in (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums):
        notebook, resources = step(config=config).preprocess(notebook, resources)
    review(notebook, source.name, released=True)
    return notebook


def _cell_id(cell: NotebookNode, repeats: dict[str, int]) -> str:
    """The grade id, else a hash of the text; a repeated text gets a counter, so ids are unique and stable."""
    grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
    base = grade_id or hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    repeats[base] = repeats.get(base, 0) + 1
    return base if repeats[base] == 1 else f"{base}-{repeats[base]}"


def text(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def sources() -> list[Path]:
    return sorted(SOURCE_FOLDER.glob("*.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minilab.construir", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    parser.add_argument("--instructor", metavar="FOLDER", type=Path, help="also write the solved notebooks here")
    options = parser.parse_args(arguments)
    changed = []
    for source in sources():
        target = NOTEBOOK_FOLDER / f"{source.stem}.ipynb"
        new = text(student(source))
        if not target.is_file() or target.read_text(encoding="utf-8") != new:
            changed.append(target.name)
            if not options.check:
                target.write_text(new, encoding="utf-8")
        if options.instructor:
            options.instructor.mkdir(parents=True, exist_ok=True)
            (options.instructor / target.name).write_text(text(instructor(source)), encoding="utf-8")
    for name in changed:
        print(f"{'out of date' if options.check else 'written'}: {name}")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Files and notebooks that were damaged on the way: what can still be read counts, the rest is a 0 with a notice."""

from __future__ import annotations

import copy

from nbformat import NotebookNode

from zoo.kit import LIGHT, NOTHING, Entry, Kit, grade_id_of, is_check, written

UNREADABLE = {**NOTHING, "explica": 0}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"


def latin_1(kit: Kit) -> bytes:
    return written(kit.light()).decode().encode("latin-1", errors="replace")


def utf_16(kit: Kit) -> bytes:
    return written(kit.light()).decode().encode("utf-16")


def duplicated(kit: Kit) -> NotebookNode:
    """Of two copies the first counts; one that was never answered gives way to one that was."""
    notebook = kit.light()
    cells = []
    for cell in notebook.cells:
        twin = copy.deepcopy(cell)
        if grade_id_of(cell) == "percentil":
            twin.source = next(c.source for c in kit.released.cells if grade_id_of(c) == "percentil")
            cells += [twin, cell]
        elif grade_id_of(cell) == "veredicto":
            twin.source = "def veredicto(informe):\n    return {}"
            cells += [cell, twin]
        else:
            cells.append(cell)
    notebook.cells = cells
    return notebook


def retyped(kit: Kit) -> NotebookNode:
    """Solutions turned into text, checks deleted."""
    notebook = kit.light()
    notebook.cells = [c for c in notebook.cells if not is_check(c)]
    for cell in notebook.cells:
        if grade_id_of(cell) in ("percentil", "veredicto"):
            cell.cell_type = "markdown"
            del cell["outputs"], cell["execution_count"]
    return notebook


def without_metadata(kit: Kit) -> NotebookNode:
    """As some services hand notebooks back: nbgrader's metadata is gone, the cell ids remain."""
    notebook = kit.light()
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    return notebook


def without_ids(kit: Kit) -> NotebookNode:
    """No metadata, and the ids of another editor: names, texts and places tell which cell is which."""
    notebook = kit.light()
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = NotebookNode(), f"otro-{number}"
    return notebook


def null_characters(kit: Kit) -> bytes:
    """What JSON can write and UTF-8 cannot: a lone surrogate."""
    return written(kit.light(veredicto="def veredicto(i):\n    return 'MEDIO'\n")).replace(b"MEDIO", b"\\ud800\\u0000")


DAMAGE = (
    Entry(id="latin_1", story="guardado en latin-1", kind="damage", make=latin_1, marks=LIGHT),
    Entry(id="utf_16", story="guardado en utf-16", kind="damage", make=utf_16, marks=LIGHT),
    Entry(
        id="retipadas",
        story="borró las comprobaciones; soluciones hechas texto",
        kind="damage",
        make=retyped,
        marks=LIGHT,
    ),
    Entry(id="duplicadas", story="celdas repetidas al copiar y pegar", kind="damage", make=duplicated, marks=LIGHT),
    Entry(id="sin_metadatos", story="sin metadatos de nbgrader", kind="damage", make=without_metadata, marks=LIGHT),
    Entry(id="sin_identificadores", story="ni metadatos ni ids", kind="damage", make=without_ids, marks=LIGHT),
    Entry(
        id="caracteres_nulos",
        story="un carácter nulo y medio emoji en una celda",
        kind="damage",
        make=null_characters,
        marks={**LIGHT, "prueba_veredicto": 0},
    ),
    Entry(id="imagen", story="una imagen con otro nombre", kind="damage", make=lambda kit: PNG, marks=UNREADABLE),
    Entry(
        id="cortado",
        story="el archivo se cortó al subirlo",
        kind="damage",
        make=lambda kit: written(kit.light())[:20_000],
        marks=UNREADABLE,
    ),
)

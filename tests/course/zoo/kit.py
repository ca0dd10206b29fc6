"""What an entry of the zoo is, and what it is made from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nbformat
from nbformat import NotebookNode

ASSIGNMENT = "P_sirve_y_demuestralo"
Kind = Literal["honest", "cheat", "damage", "harm"]
Marks = dict[str, float | None]

# The marks of the zoo are literals: they say what the rules promise, so they are never read from the notebook.
FULL: Marks = {
    "prueba_prediccion": 2,
    "prueba_percentil": 4,
    "prueba_resume": 4,
    "prueba_cliente": 6,
    "prueba_planificador": 25,
    "prueba_reloj_real": 8,
    "prueba_vllm": 10,
    "prueba_mascara": 18,
    "prueba_cuerpo_json": 4,
    "prueba_es_valida": 4,
    "prueba_veredicto": 5,
    "explica": None,
}
NOTHING: Marks = dict.fromkeys(FULL, 0)
# What the short cells are worth that load nothing slow, with the answer to read still to be read. Against vLLM, a right
# summary of what was measured is one part in ten; the command and the client are the other nine.
LIGHT: Marks = {
    **NOTHING,
    "prueba_prediccion": 2,
    "prueba_percentil": 4,
    "prueba_resume": 4,
    "prueba_vllm": 1,
    "prueba_cuerpo_json": 4,
    "prueba_veredicto": 5,
    "explica": None,
}
LIGHT_CELLS = ("prediccion", "percentil", "resume", "cuerpo_json", "veredicto", "explica")
FUNCTIONS = {
    "prediccion": "mi_prediccion",
    "percentil": "percentil",
    "resume": "resume",
    "cuerpo_json": "cuerpo_json",
    "es_valida": "es_valida",
    "veredicto": "veredicto",
}
MARKER = "zoo_superviviente"


@dataclass(frozen=True)
class Link:
    """A symbolic link to put into the zip."""

    target: str


Files = Mapping[str, bytes | Link]


@dataclass(frozen=True)
class Kit:
    """released: the student's notebook. solutions: grade id -> solved source. course, repository: what a cheat would
    like to reach. port: a listener on 127.0.0.1, and the abstract socket ``zoo-<port>``, that nobody may reach."""

    released: NotebookNode
    solutions: Mapping[str, str]
    course: Path
    repository: Path
    port: int

    def fill(self, **cells: str) -> NotebookNode:
        """The released notebook with these cells filled in."""
        notebook = copy.deepcopy(self.released)
        for cell in notebook.cells:
            grade_id = grade_id_of(cell)
            if grade_id in cells:
                cell.source = cells[grade_id]
        return notebook

    def light(self, **cells: str) -> NotebookNode:
        """The short cells solved, and then these."""
        return self.fill(**{**{c: self.solutions[c] for c in LIGHT_CELLS}, **cells})

    def solved(self, **cells: str) -> NotebookNode:
        """Everything solved, and then these."""
        return self.fill(**{**self.solutions, **cells})

    def only_if(self, cell: str, trick: str) -> str:
        """The solved cell, which answers only where the trick works: full marks would prove that it did.

        trick: source that defines ``consigue()``.
        """
        name = FUNCTIONS[cell]
        return (
            f"{self.solutions[cell]}\n\n{self.with_paths(trick)}\n\n_honesta = {name}\n\n\ndef {name}(*args):\n"
            f"    if not consigue():\n        raise RuntimeError('no lo consigo')\n    return _honesta(*args)\n"
        )

    def with_paths(self, source: str) -> str:
        """Source with the places that a well-informed cheat knows: CURSO, REPOSITORIO, PUERTO."""
        places = f"CURSO, REPOSITORIO, PUERTO = {str(self.course)!r}, {str(self.repository)!r}, {self.port}"
        return f"{places}\n{source}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """id: the student's id. story: what the student did. marks: grade id -> points, written before any run.

    make: the notebook or the bytes handed in as ``<id>.ipynb``. more: other members of the zip. tolerance: in points,
    larger where a mark depends on the draw of the hidden cases. needs_sandbox: it is not run on a machine without one.
    page: text that the feedback page must show; not_on_page: source that it must not contain. name: the student's name
    on the roster.
    """

    id: str
    story: str
    kind: Kind
    make: Callable[[Kit], NotebookNode | bytes]
    marks: Marks
    more: Callable[[Kit], Files] | None = None
    tolerance: float = 0.005
    needs_sandbox: bool = False
    page: tuple[str, ...] = ()
    not_on_page: tuple[str, ...] = ()
    name: str = field(default="Zoé Núñez")

    def files(self, kit: Kit) -> Files:
        """Members of the zip: name -> bytes or link."""
        made = self.make(kit)
        own = made if isinstance(made, bytes) else written(made)
        return {f"{self.id}.ipynb": own, **(self.more(kit) if self.more else {})}


def written(notebook: NotebookNode) -> bytes:
    return nbformat.v4.writes(notebook).encode()


def grade_id_of(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def is_solution(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def is_check(cell: NotebookNode) -> bool:
    nbgrader = cell.metadata.get("nbgrader", {})
    return bool(nbgrader.get("grade") and nbgrader.get("locked"))

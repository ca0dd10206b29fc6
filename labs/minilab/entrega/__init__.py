"""What a student hands in: read it, rebuild it on the release, and say beforehand what will happen at grading.

``read_submission`` and ``rebuild`` are what the grader uses too, so a pre-flight shows just what it will see.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from minilab.entrega.lectura import InvalidSubmission, Notice, read_submission
from minilab.entrega.ranuras import STUB_LINE, slots_of
from minilab.entrega.reparar import rebuild

__all__ = [
    "InvalidSubmission",
    "Notice",
    "Report",
    "best_release",
    "read_submission",
    "rebuild",
    "released_notebooks",
    "review_submission",
]

NOTEBOOK_FOLDER = Path(__file__).resolve().parents[2] / "cuadernos"
HEAVY_BYTES = 5 << 20
READY, COSTS_MARKS, UNREADABLE = 0, 1, 2


@dataclass(frozen=True)
class Report:
    """What a pre-flight found. answered of questions: answer cells that are not the stub.

    problem: why the file cannot be read at all, else "".
    """

    name: str
    notices: tuple[Notice, ...] = ()
    answered: int = 0
    questions: int = 0
    problem: str = ""

    @property
    def code(self) -> int:
        """Exit code: 0 ready, 1 something costs marks, 2 unreadable."""
        if self.problem:
            return UNREADABLE
        return COSTS_MARKS if any(n.costs for n in self.notices) else READY

    def __str__(self) -> str:
        if self.problem:
            return f"✘ {self.name}: no se puede leer.\n  {self.problem}"
        lines = [f"{self.name}: {self.answered} de {self.questions} respuestas."]
        for title, costs in (("Te puede costar puntos:", True), ("Para que lo sepas (no resta puntos):", False)):
            texts = [n.text for n in self.notices if n.costs is costs]
            lines += [title, *(f"  {'✘' if costs else '·'} {text}" for text in texts)] if texts else []
        lines.append("✘ Revisa lo anterior antes de entregar." if self.code else "✔ Se puede entregar.")
        return "\n".join(lines)


def review_submission(submission: Path | bytes, released: NotebookNode, name: str = "entrega.ipynb") -> Report:
    """Pre-flight of a file, or of its bytes. Raises OSError where it cannot be opened; all else is in the report."""
    if isinstance(submission, Path):
        name, submission = submission.name, submission.read_bytes()
    try:
        rebuilt, notices = rebuild(read_submission(submission), released)
    except InvalidSubmission as error:
        return Report(name, problem=str(error))
    if len(submission) > HEAVY_BYTES:
        weight = f"El archivo pesa {len(submission) >> 20} MiB por sus salidas, que no cuentan: puedes borrarlas."
        notices.append(Notice("tamano", weight))
    cells = {c.id: c for c in rebuilt.cells}
    questions = [slot for slot in slots_of(released) if slot.answer]
    told = {n.grade_id for n in notices if n.code == "falta"}
    blank = {slot.key for slot in questions if slot.untouched(cells[slot.cell.id].source)}
    for slot in questions:
        if slot.key not in blank:
            notices += _about_answer(slot.key, cells[slot.cell.id])
        elif slot.key not in told:
            notices.append(Notice("sin_responder", f"«{slot.key}» está sin responder: contará 0.", slot.key, True))
    return Report(name, tuple(notices), len(questions) - len(blank), len(questions))


def _about_answer(key: str, cell: NotebookNode) -> list[Notice]:
    if cell.cell_type != "code":
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(cell.source, f"<{key}>", "exec", dont_inherit=True)
    except SyntaxError as error:
        text = f"La celda «{key}» no es Python válido en la línea {error.lineno} ({error.msg}): contará 0."
        return [Notice("sintaxis", text, key, True)]
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return [Notice("sintaxis", f"Python no puede leer la celda «{key}»: contará 0.", key, True)]
    if STUB_LINE.search(cell.source):
        text = f"En «{key}» queda algún `raise NotImplementedError('Falta implementar')`: bórralo si ya contestaste."
        return [Notice("a_medias", text, key, True)]
    return []


def released_notebooks() -> dict[str, Path]:
    """Assignment -> its released notebook."""
    return {file.stem: file for file in sorted(NOTEBOOK_FOLDER.glob("*.ipynb"))}


def best_release(name: str, submitted: NotebookNode) -> str | None:
    """The assignment that a submission is of: by its file name, else the one it has most cells of; None without any."""
    known = released_notebooks()
    for assignment in known:
        if name.casefold().startswith(assignment.casefold()):
            return assignment
    claims = {c.metadata.get("nbgrader", {}).get("grade_id", c.id) for c in submitted.cells}
    texts = {c.source for c in submitted.cells}
    shared = {}
    for assignment, file in known.items():
        cells = nbformat.read(file, as_version=4).cells
        shared[assignment] = sum(c.id in claims or c.source in texts for c in cells)
    best = max(shared, key=shared.__getitem__, default=None)
    return best if best is not None and shared[best] else None

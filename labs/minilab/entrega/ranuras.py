"""The places of a released notebook where something of a student's may belong, and how a text is told to belong."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from nbformat import NotebookNode

STUB_LINE = re.compile(r"raise\s+NotImplementedError\(\s*['\"]Falta implementar['\"]\s*\)")


@dataclass(frozen=True)
class Slot:
    """One cell of the release. names: what its stub defines -> how many stub lines are in that definition.

    answer: the student fills it in. points: it is marked or holds a check, so its loss is worth a notice.
    """

    index: int
    cell: NotebookNode
    key: str
    answer: bool
    marked: bool
    names: dict[str, int]

    @property
    def is_text(self) -> bool:
        return self.cell.cell_type != "code"

    def untouched(self, source: str) -> bool:
        """The text is the release's, or nothing."""
        return not source.strip() or tidy(source) == tidy(self.cell.source)

    def done(self, source: str) -> dict[str, int]:
        """Name -> stub lines of its definition that the text has replaced, where that is any."""
        blocks = {name: block for name in self.names if (block := _block(source, name))}
        if not blocks or self.untouched(source):
            return {}
        replaced = {name: max(self.names[name], 1) - len(STUB_LINE.findall(block)) for name, block in blocks.items()}
        return {name: lines for name, lines in replaced.items() if lines > 0}


def slots_of(released: NotebookNode) -> list[Slot]:
    slots = []
    for index, cell in enumerate(released.cells):
        meta = cell.metadata.get("nbgrader", {})
        answer = bool(meta.get("solution")) and not meta.get("locked")
        names = _stub_names(cell.source) if answer and cell.cell_type == "code" else {}
        slots.append(Slot(index, cell, meta.get("grade_id", cell.id), answer, bool(meta), names))
    return slots


def tidy(source: str) -> str:
    """The text without what an editor changes by itself: blank ends and spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def line_set(source: str) -> set[str]:
    return {line.strip() for line in source.splitlines()} - {""}


def copied_share(release: str, lines: set[str]) -> float:
    """Part of the released cell's lines, in [0, 1], that is among ``lines``."""
    released = line_set(release)
    return len(released & lines) / len(released) if released else 0.0


def defines(source: str, name: str) -> bool:
    return bool(_block(source, name))


def _stub_names(source: str) -> dict[str, int]:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [node.name for node in ast.parse(source).body if isinstance(node, definitions)]
    return {name: len(STUB_LINE.findall(_block(source, name))) for name in names}


def _block(source: str, name: str) -> str:
    """The lines of the last top-level definition of ``name``, which is the one that counts; "" without one.

    Found by its text, for a student's cell may not parse, and this process parses none.
    """
    starts = list(re.finditer(rf"^(async[ \t]+def|def|class)[ \t]+{name}\b.*$", source, re.MULTILINE))
    if not starts:
        return ""
    after = re.search(r"^[^\s#)\]}]", source[starts[-1].end() :], re.MULTILINE)
    return source[starts[-1].start() : starts[-1].end() + after.start() if after else len(source)]

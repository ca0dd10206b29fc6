"""Rebuild a submission on the released notebook: the release's cells, with the student's answers put in.

Whatever happened to the student's copy (cells deleted, copied, retyped, moved, edited, metadata lost), what nbgrader
and the harness see has the release's cells and metadata. No text of the student's is thrown away: what is neither an
answer nor a copy of a released cell stays, as a plain cell, behind the released cell that it followed.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
from dataclasses import dataclass

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_raw_cell

from minilab.entrega.lectura import ADDED, READING, READING_NOTICES, Notice, clean_cell
from minilab.entrega.magias import without_magics
from minilab.entrega.ranuras import Slot, copied_share, defines, line_set, slots_of, tidy

MAKERS = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}
KINDS = {"code": "código", "markdown": "Markdown", "raw": "texto sin formato"}
BEFORE_ALL = -1
COPIED_SHARE = 0.8
EDITED_SHARE = 0.5
DIFF_LINES = 2000
OWN_CHECK = re.compile(r"comprobar\(.*\)\s*(#.*)?$")


@dataclass
class Piece:
    """One cell of the student's on its way. home: index of the released cell it is or claims to be.

    anchor: index of the released cell it comes after. by_id: the home is known by the cell's id alone.
    """

    cell: NotebookNode
    order: int
    source: str
    home: int | None = None
    by_id: bool = False
    anchor: int = BEFORE_ALL
    used: bool = False

    @property
    def kind(self) -> str:
        return self.cell.cell_type


def rebuild(submitted: NotebookNode, released: NotebookNode) -> tuple[NotebookNode, list[Notice]]:
    """The released notebook with the answers of ``submitted``, and what was done.

    submitted: from ``read_submission``, or any notebook of nbformat 4; of one that was not cleaned yet the same is
    kept, and :class:`InvalidSubmission` is raised for the same. Neither argument is changed. Added
    cells get ``metadata.minilab_anadida`` and ids made from their text. Rebuilding a rebuilt notebook changes nothing.
    """
    return _Rebuilder(submitted, released).run()


class _Rebuilder:
    def __init__(self, submitted: NotebookNode, released: NotebookNode):
        self.released = copy.deepcopy(released)
        self.slots = slots_of(self.released)
        codes: set[str] = set()
        cells = [clean_cell(cell, number, codes) for number, cell in enumerate(submitted.cells, 1)]
        self.pieces = [Piece(cell, i, cell.source) for i, cell in enumerate(cells)]
        told = submitted.metadata.get(READING)
        codes |= {code for code in READING_NOTICES if isinstance(told, list) and code in told}
        self.notices = [Notice(code, READING_NOTICES[code]) for code in sorted(codes)]
        self.check_lines = {
            line.rstrip()
            for slot in self.slots
            if slot.cell.metadata.get("nbgrader", {}).get("grade") and not slot.answer
            for line in slot.cell.source.splitlines()
            if line.strip() and not line[0].isspace()
        }

    def run(self) -> tuple[NotebookNode, list[Notice]]:
        self._find_homes()
        self._settle_fixed()
        self._anchor()
        answers = {slot.index: self._answer(slot) for slot in self.slots if slot.answer}
        for slot in self.slots:
            if slot.answer and slot.untouched(answers[slot.index]) and not slot.names:
                answers[slot.index] = self._by_position(slot)
        for slot in self.slots:
            if slot.answer:
                slot.cell.source = self._as_python(slot, answers[slot.index])
        return self._assemble(), self.notices

    def _say(self, code: str, slot: Slot, text: str, costs: bool = False) -> None:
        self.notices.append(Notice(code, text, slot.key, costs))

    # Where each cell of the student's comes from.

    def _find_homes(self) -> None:
        by_grade_id = {s.key: s.index for s in self.slots if s.marked}
        by_id = {s.cell.id: s.index for s in self.slots}
        free: dict[str, list[int]] = {}
        for slot in self.slots:
            free.setdefault(tidy(slot.cell.source), []).append(slot.index)
        for piece in self.pieces:
            same = free.get(tidy(piece.source))
            claim = by_grade_id.get(piece.cell.metadata.get("nbgrader", {}).get("grade_id"))
            if piece.cell.metadata.get(ADDED):
                continue
            if same:
                # Released cells with the same text are told apart by the claim, else taken in order.
                known = claim if claim in same else by_id.get(piece.cell.id)
                piece.home = known if known in same else same[0]
                if len(same) > 1:
                    same.remove(piece.home)
            elif claim is not None:
                piece.home = claim
            elif piece.cell.id in by_id:
                piece.home, piece.by_id = by_id[piece.cell.id], True
            else:
                piece.home = self._copied(piece)

    def _copied(self, piece: Piece) -> int | None:
        """A locked or check cell that lost its metadata and its id, and was edited."""
        fixed = (s for s in self.slots if s.marked and not s.answer)
        lines = line_set(piece.source)
        return next((s.index for s in fixed if copied_share(s.cell.source, lines) >= COPIED_SHARE), None)

    def _settle_fixed(self) -> None:
        """Copies of released cells are spent; of an edited one, what the student inserted goes on as text of theirs."""
        texts = {tidy(slot.cell.source) for slot in self.slots}
        seen: set[int] = set()
        for piece in self.pieces:
            slot = self.slots[piece.home] if piece.home is not None else None
            if not piece.source.strip():
                piece.used = slot is None or not slot.answer
            elif slot is not None and not slot.answer:
                self._settle_copy(piece, slot, again=slot.index in seen)
            if tidy(piece.source) in texts and (slot is None or not slot.answer):
                piece.used = True
            if slot is not None:
                seen.add(slot.index)
        for slot in self.slots:
            if slot.marked and not slot.answer and slot.index not in seen:
                self._say("falta", slot, f"Faltaba la celda «{slot.key}»: se ha restaurado.")

    def _settle_copy(self, piece: Piece, slot: Slot, again: bool) -> None:
        edited = tidy(piece.source) != tidy(slot.cell.source)
        if edited and copied_share(slot.cell.source, line_set(piece.source)) >= EDITED_SHARE:
            piece.source = _inserted(slot.cell.source, piece.source)
        piece.used = not piece.source.strip() or not edited
        if not slot.marked:
            return
        if again:
            self._say("duplicada", slot, f"La celda «{slot.key}» está repetida: cuenta solo la original.")
        elif edited:
            self._say("restaurada", slot, f"La celda «{slot.key}» no se edita y estaba cambiada: se ha restaurado.")
        elif piece.kind != slot.cell.cell_type:
            self._say("tipo", slot, f"La celda «{slot.key}» había cambiado de tipo: se ha restaurado.")

    def _anchor(self) -> None:
        last = BEFORE_ALL
        for piece in self.pieces:
            last = last if piece.home is None else piece.home
            piece.anchor = last

    # The answers.

    def _answer(self, slot: Slot) -> str:
        """The text for an answer cell: the candidate that replaces most of its stubs, the first of several."""
        claimed = [p for p in self.pieces if p.home == slot.index]
        done = {p.order: slot.done(p.source) for p in self.pieces if _may_hold(p, slot)}
        candidates = [p for p in self.pieces if p.home == slot.index or done.get(p.order)]
        if not candidates:
            self._say("falta", slot, f"Falta la celda «{slot.key}»: cuenta como no contestada.", costs=True)
            return slot.cell.source

        def rank(piece: Piece) -> tuple:
            replaced = sum(done.get(piece.order, {}).values())
            claim = 2 if piece.home != slot.index else int(piece.by_id)
            other_slot = piece.home is not None and claim == 2
            return (-replaced, slot.untouched(piece.source), claim, other_slot, piece.kind != "code", piece.order)

        candidates.sort(key=rank)
        chosen = candidates[0]
        self._tell_choice(slot, chosen, claimed)
        text, parts = chosen.source, dict(done.get(chosen.order, {}))
        chosen.used = True
        for other in candidates[1:]:
            new = done.get(other.order, {})
            if new.keys() - parts.keys() and not any(defines(other.source, name) for name in parts):
                text, other.used = f"{text.rstrip()}\n\n\n{other.source.strip()}", True
                parts.update(new)
                self._say("partida", slot, f"La respuesta de «{slot.key}» estaba en varias celdas: se han unido.")
            elif other.home == slot.index and (slot.untouched(other.source) or tidy(other.source) == tidy(text)):
                other.used = True
        if slot.is_text and "attachments" in chosen.cell:
            slot.cell.attachments = copy.deepcopy(chosen.cell.attachments)
        return text

    def _tell_choice(self, slot: Slot, chosen: Piece, claimed: list[Piece]) -> None:
        if chosen.home != slot.index:
            self._say(
                "recuperada",
                slot,
                f"La respuesta de «{slot.key}» se encontró en otra celda y se ha puesto en su sitio.",
            )
        elif chosen.kind != slot.cell.cell_type:
            kind = KINDS[slot.cell.cell_type]
            self._say("tipo", slot, f"La celda «{slot.key}» había cambiado de tipo: se lee como {kind}.")
        others = [p for p in claimed if p is not chosen]
        answered = [p for p in others if not slot.untouched(p.source) and tidy(p.source) != tidy(chosen.source)]
        if len(claimed) > 1 and chosen.home == slot.index:
            if answered:
                which = (
                    "cuenta la primera" if chosen.order < answered[0].order else "cuenta la que tiene más contestado"
                )
                text = f"La celda «{slot.key}» está repetida con respuestas distintas: {which}."
                self._say("duplicada", slot, text, costs=True)
            else:
                self._say("duplicada", slot, f"La celda «{slot.key}» está repetida: cuenta la que tiene la respuesta.")

    def _by_position(self, slot: Slot) -> str:
        """An answer without a name to know it by: the student's own text around its place."""
        near = [
            p
            for p in self.pieces
            if not p.used and p.anchor in (slot.index - 1, slot.index) and (p.kind != "code") == slot.is_text
        ]
        near = near if slot.is_text else near[:1]
        if not near:
            return slot.cell.source
        for piece in near:
            piece.used = True
            if "attachments" in piece.cell:
                slot.cell.setdefault("attachments", NotebookNode()).update(copy.deepcopy(piece.cell.attachments))
        self.notices = [n for n in self.notices if (n.code, n.grade_id) != ("falta", slot.key)]
        self._say("recuperada", slot, f"La respuesta de «{slot.key}» se ha reconocido por su posición.")
        return "\n\n".join(p.source.strip("\n") for p in near)

    def _as_python(self, slot: Slot, source: str) -> str:
        """The answer as the worker can run it, or the untouched stub."""
        if slot.untouched(source):
            return slot.cell.source
        if slot.is_text:
            return source
        source, lines = without_magics(source)
        if lines:
            where = ", ".join(map(str, lines))
            text = f"La celda «{slot.key}» tiene instrucciones de IPython (línea {where}): no se ejecutan al calificar."
            self._say("magia", slot, text)
        kept = source.split("\n")
        kept = [f"pass  # {line}" if self._is_check(line) else line for line in kept]
        if kept != source.split("\n"):
            self._say("union", slot, f"La celda «{slot.key}» llevaba dentro su comprobación: se ha separado.")
        return "\n".join(kept)

    def _is_check(self, line: str) -> bool:
        """A line of a released check, or the student's own call of one: a grader has no public checks to call."""
        return line.rstrip() in self.check_lines or OWN_CHECK.match(line) is not None

    # The result.

    def _assemble(self) -> NotebookNode:
        taken = {slot.cell.id for slot in self.slots}
        cells = self._added(BEFORE_ALL, taken)
        for slot in self.slots:
            cells += [slot.cell, *self._added(slot.index, taken)]
        self.released.cells = cells
        return self.released

    def _added(self, anchor: int, taken: set[str]) -> list[NotebookNode]:
        cells = []
        for piece in self.pieces:
            if piece.used or piece.anchor != anchor:
                continue
            source = without_magics(piece.source)[0] if piece.kind == "code" else piece.source
            cell = MAKERS[piece.kind](source, metadata={ADDED: True})
            cell.id = _fresh_id(piece.kind, source, taken)
            if "attachments" in piece.cell:
                cell.attachments = copy.deepcopy(piece.cell.attachments)
            cells.append(cell)
        return cells


def _may_hold(piece: Piece, slot: Slot) -> bool:
    """A text cell that only quotes code, between fences, is no answer; a code cell that was retyped is."""
    return piece.kind == "code" or piece.home == slot.index or "```" not in piece.source


def _inserted(release: str, source: str) -> str:
    """The lines of ``source`` that the released text does not have; all of a text too long to compare."""
    before, after = ([line.rstrip() for line in text.splitlines()] for text in (release, source))
    if len(after) > DIFF_LINES:
        return source
    steps = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return "\n".join(line for step, _, _, a, b in steps if step in ("insert", "replace") for line in after[a:b])


def _fresh_id(kind: str, source: str, taken: set[str]) -> str:
    base = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()[:12]
    name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
    taken.add(name)
    return name

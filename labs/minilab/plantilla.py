"""What replaces a solution in the student's notebook. Frozen: changing it after a release turns every unanswered
cell into manual work, because nbgrader recognises it by its checksum."""

from __future__ import annotations

UNWRITTEN = "Falta implementar"
CODE_STUB = {"python": f"# TU CÓDIGO AQUÍ\nraise NotImplementedError('{UNWRITTEN}')"}
TEXT_STUB = "*Escribe aquí tu respuesta.*"

"""What replaces a solution in the student's notebook. Frozen: changing it after a release turns every unanswered
cell into manual work, because nbgrader recognises it by its checksum."""

from __future__ import annotations

HUECO_DE_CODIGO = {"python": "# TU CÓDIGO AQUÍ\nraise NotImplementedError('Falta implementar')"}
HUECO_DE_TEXTO = "*Escribe aquí tu respuesta.*"

"""What a comparison shows: rows with their origin, and the table a notebook prints."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minilab.vistas.cifras import cifra

LIVE, RECORDED, OWN, ABSENT = "vivo", "grabado", "tuyo", "ausente"
RECORDED_TOGETHER = (
    "Las filas grabadas son de otro momento: compáralas entre ellas, y las de ahora (tuyas o en vivo) entre ellas."
)
NOTHING = "Aquí no hay ninguna medida, ni en vivo ni grabada: cada fila dice por qué falta la suya."

# Column -> (heading, digits after the comma; None: as it is).
COLUMNS: dict[str, tuple[str, int | None]] = {
    "plazas": ("plazas del lote", 0),
    "peticiones": ("peticiones", 0),
    "nuevos": ("tokens nuevos", 0),
    "segundos": ("s", 2),
    "tok_s": ("tok/s", 1),
    "tokens_por_paso": ("tokens por paso", 2),
    "ttft_p50": ("TTFT p50 (s)", 2),
    "ttft_p95": ("TTFT p95 (s)", 2),
    "itl_p50": ("ITL p50 (s)", 3),
    "itl_max": ("ITL máximo (s)", 3),
    "ttft_largo": ("TTFT del prompt largo (s)", 2),
    "max_uso_pct": ("uso máximo de la caché KV (%)", 1),
    "max_en_curso": ("máximo en curso", 0),
    "max_en_espera": ("máximo en espera", 0),
    "validas_pct": ("JSON válido (%)", 0),
    "http": ("HTTP", None),
    "valido": ("cumple el esquema", None),
    "respuesta": ("principio de la respuesta", None),
}


@dataclass(frozen=True)
class Origen:
    """Where a row comes from. clase: ``vivo``, ``grabado``, ``tuyo`` or ``ausente``. nota: details, below the table."""

    clase: str
    texto: str
    nota: str = ""


@dataclass(frozen=True)
class Fila:
    """One system in one case. valores: column -> figure or text; a column that was not measured is missing.

    detalle: version and settings of the system.
    """

    sistema: str
    caso: str
    valores: Mapping[str, Any]
    origen: Origen
    detalle: str = ""

    @property
    def procedencia(self) -> str:
        return "; ".join(part for part in (self.origen.texto, self.detalle) if part)


@dataclass(frozen=True)
class Comparativa:
    """The rows of one comparison, shown as a table with their origins."""

    nombre: str
    titulo: str
    columnas: Sequence[str]
    filas: tuple[Fila, ...]
    notas: tuple[str, ...] = ()

    def valor(self, sistema: str, caso: str, clave: str, clase: str | None = None) -> Any:
        """A figure of the table, the live one before the recorded one; None where there is none.

        clase: only rows of this origin (``vivo``, ``grabado``, ``tuyo``).
        """
        for wanted in (clase,) if clase else (LIVE, OWN, RECORDED):
            for row in self.filas:
                if (row.sistema, row.caso, row.origen.clase) == (sistema, caso, wanted) and clave in row.valores:
                    return row.valores[clave]
        return None

    def razon(self, arriba: tuple[str, str], abajo: tuple[str, str], clave: str = "tok_s") -> float | None:
        """One row's figure over another's, both measured side by side; None where they were not.

        arriba, abajo: (sistema, caso). Live beside live, or else two rows of one recording.
        """
        for row in sorted(self.filas, key=lambda r: r.origen.clase != LIVE):
            if (row.sistema, row.caso) != arriba or clave not in row.valores:
                continue
            for other in self.filas:
                together = other.origen == row.origen and other.valores.get(clave)
                if (other.sistema, other.caso) == abajo and together:
                    return row.valores[clave] / other.valores[clave]
        return None

    def __repr__(self) -> str:
        lines = [self.titulo]
        for row in self.filas:
            figures = [f"{COLUMNS[c][0]}: {shown(c, row.valores[c])}" for c in self._columns() if c in row.valores]
            label = f"{row.sistema}, {row.caso}" if row.caso else row.sistema
            lines.append(f"- {label}: {'; '.join([*figures, row.procedencia])}")
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        columns = self._columns()
        head = ("sistema", "caso", *(COLUMNS[c][0] for c in columns), "origen")
        cells = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
        body = "".join(self._html_row(row, columns) for row in self.filas)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self._notes())
        return (
            f"<table><caption>{html.escape(self.titulo)}</caption><thead><tr>{cells}</tr></thead>"
            f"<tbody>{body}</tbody></table><ul>{notes}</ul>"
        )

    def _html_row(self, row: Fila, columns: Sequence[str]) -> str:
        figures = [shown(c, row.valores[c]) if c in row.valores else "–" for c in columns]
        texts = [row.caso, *figures, row.procedencia]
        rest = "".join(f"<td>{html.escape(text)}</td>" for text in texts)
        return f'<tr><th scope="row">{html.escape(row.sistema)}</th>{rest}</tr>'

    def _columns(self) -> list[str]:
        return [c for c in self.columnas if any(c in row.valores for row in self.filas)]

    def _notes(self) -> list[str]:
        kinds = {row.origen.clase for row in self.filas}
        first = [NOTHING] if kinds <= {ABSENT} else []
        if RECORDED in kinds and kinds & {LIVE, OWN}:
            first = [RECORDED_TOGETHER]
        return list(dict.fromkeys([*first, *self.notas, *(r.origen.nota for r in self.filas if r.origen.nota)]))


def shown(column: str, value: Any) -> str:
    """A figure in Spanish; text as it is."""
    digits = COLUMNS[column][1]
    if digits is None or not isinstance(value, int | float):
        return str(value)
    return cifra(value, digits)

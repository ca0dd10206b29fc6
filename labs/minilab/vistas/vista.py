"""What a renderer gives back: a figure, and the same content as words and as a table."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape

ESTILO = (
    "background:#FFFFFF;color:#111111;padding:8px;margin:4px 0;max-width:900px;border:1px solid #8C8C8C;"
    "box-sizing:border-box;font-family:sans-serif;font-size:14px;line-height:1.4"
)
CELDA = "border:1px solid #8C8C8C;padding:2px 8px;color:#111111;background:#FFFFFF;text-align:"


@dataclass(frozen=True)
class Tabla:
    """A header and rows of text, all of the same length."""

    cabecera: tuple[str, ...]
    filas: tuple[tuple[str, ...], ...]

    def html(self, titulo: str) -> str:
        """With a caption, and each header bound to its column or row. Colours are explicit: a theme may be dark."""
        head = "".join(f'<th scope="col" style="{CELDA}left">{escape(name)}</th>' for name in self.cabecera)
        rows = []
        for first, *rest in self.filas:
            cells = "".join(f'<td style="{CELDA}right">{escape(cell)}</td>' for cell in rest)
            rows.append(f'<tr><th scope="row" style="{CELDA}left">{escape(first)}</th>{cells}</tr>')
        caption = f'<caption style="text-align:left;color:#111111">{escape(titulo)}</caption>'
        return (
            f'<table style="border-collapse:collapse;font-size:13px">{caption}'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        )

    def __str__(self) -> str:
        lines = [self.cabecera, *self.filas]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.cabecera))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )


@dataclass(frozen=True)
class Vista:
    """A figure for people who see it, with its description and its table for those who do not.

    clave: what the ids inside the SVG start with; it comes from the content, so equal states give equal bytes.
    """

    titulo: str
    descripcion: str
    svg: str
    tabla: Tabla
    clave: str

    def html(self, *, abierta: bool = False, clase: str = "minilab-vista", sufijo: str = "") -> str:
        """The figure with its table folded below it. sufijo: tells the ids of two copies on one page apart."""
        svg = self.svg.replace(self.clave, self.clave + sufijo)
        opened = " open" if abierta else ""
        return (
            f'<figure class="{clase}" style="{ESTILO}">{svg}<figcaption>{escape(self.descripcion)}</figcaption>'
            f'<details{opened}><summary style="cursor:pointer">Los mismos datos en una tabla</summary>'
            f'<div style="overflow-x:auto">{self.tabla.html(self.titulo)}</div></details></figure>'
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        return "\n".join([self.titulo, *textwrap.wrap(self.descripcion, 110), str(self.tabla)])

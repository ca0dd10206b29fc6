"""The rules that every figure keeps, checked on its SVG as it is painted: names, colours, contrast, room for text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

from minilab.vistas import Vista, paleta
from minilab.vistas.lienzo import ancho_texto
from minilab.vistas.paleta import MIN_GRAFICO, MIN_TEXTO, contraste

SVG = "{http://www.w3.org/2000/svg}"
PALETTE = {color for name, color in vars(paleta).items() if name.isupper() and isinstance(color, str)}
PALETTE |= {style.relleno for style in paleta.DUENOS}
NUMBER = re.compile(r"\d[\d\u202f]*(?:[.,]\d+)?")
SEGMENT = re.compile(r"M([-\d.]+) ([-\d.]+)(?:L([-\d.]+) ([-\d.]+)|h([-\d.]+)|v([-\d.]+))")


@dataclass(frozen=True)
class Box:
    """left, top, right, bottom; what fills it."""

    x: float
    y: float
    right: float
    bottom: float
    color: str = ""

    def holds(self, x: float, y: float) -> bool:
        return self.x <= x <= self.right and self.y <= y <= self.bottom

    def overlap(self, other: Box) -> tuple[float, float]:
        """Width and height of what two boxes have in common; negative where they are apart."""
        return (
            min(self.right, other.right) - max(self.x, other.x),
            min(self.bottom, other.bottom) - max(self.y, other.y),
        )


def root_of(vista: Vista) -> ElementTree.Element:
    return ElementTree.fromstring(vista.svg)


def texts(vista: Vista) -> list[str]:
    return [element.text or "" for element in root_of(vista).iter(f"{SVG}text")]


def numbers(words: str) -> set[str]:
    return set(NUMBER.findall(words))


def boxes(vista: Vista, starts: str = "") -> list[tuple[str, Box]]:
    """(what it says when pointed at, its first rectangle) of each outlined box whose words start so."""
    found = []
    for group in root_of(vista).iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title") or ""
        if group.get("class") == "caja" and title and title.startswith(starts):
            found.append((title, _rect(next(group.iter(f"{SVG}rect")), vista)))
    return found


def check_rules(vista: Vista) -> None:
    """Raises AssertionError with the element that breaks a rule."""
    root = root_of(vista)
    check_accessible(vista, root)
    check_colors(vista, root)
    check_texts(vista, root)


def check_accessible(vista: Vista, root: ElementTree.Element) -> None:
    assert root.get("role") == "img"
    named = {element.get("id"): element.text for element in root if element.get("id")}
    assert list(named) == (root.get("aria-labelledby") or "").split() and len(named) == 2
    assert list(named.values()) == [vista.titulo, vista.descripcion]
    assert not re.search(r"url\(|<style|<script|href|<image", vista.svg)
    assert all(len(row) == len(vista.tabla.cabecera) for row in vista.tabla.filas) and vista.tabla.filas
    for words in (vista.titulo, vista.descripcion, *vista.tabla.cabecera):
        assert words.strip()


def check_colors(vista: Vista, root: ElementTree.Element) -> None:
    """Only colours of the palette. An outline, a line or a fill without outline is at least 3:1 against white."""
    used = re.findall(r'(?:fill|stroke)="(#[^"]+)"', vista.svg)
    assert set(used) <= PALETTE, set(used) - PALETTE
    for element in root.iter():
        stroke = element.get("stroke")
        if stroke:
            assert contraste(stroke, paleta.BLANCO) >= MIN_GRAFICO, ElementTree.tostring(element)
    for group in root.iter(f"{SVG}g"):
        first, *rest = group.iter(f"{SVG}rect")
        (outline,) = [rect for rect in rest if rect.get("fill") == "none"]
        for inner in (first.get("fill"), paleta.BLANCO):
            assert contraste(outline.get("stroke") or "", inner or "") >= MIN_GRAFICO
        for hatch in group.iter(f"{SVG}path"):
            assert contraste(hatch.get("stroke") or "", first.get("fill") or "") >= MIN_GRAFICO


def check_texts(vista: Vista, root: ElementTree.Element) -> None:
    """Text lies inside the drawing, on a fill that it reads on, under no line, and over no other text."""
    _, _, width, height = (float(v) for v in (root.get("viewBox") or "").split())
    painted: list[tuple[str, Box]] = []
    for element in root.iter():
        if element.tag == f"{SVG}rect":
            painted.append(("fill" if element.get("fill") != "none" else "frame", _rect(element, vista)))
        elif element.tag == f"{SVG}text":
            painted.append(("text", _text(element)))
        elif element.tag in (f"{SVG}path", f"{SVG}line"):
            painted += [("stroke", segment) for segment in _segments(element)]
    seen: list[Box] = []
    for index, (kind, box) in enumerate(painted):
        if kind != "text":
            continue
        assert box.x >= 0 and box.right <= width and box.y >= 0 and box.bottom <= height, f"clipped: {box}"
        for other in seen:
            wide, high = box.overlap(other)
            assert not (wide > 1 and high > 3), f"{box} covers {other}"
        seen.append(box)
        plate = max(i for i in range(index) if painted[i][0] == "fill" and _under(painted[i][1], box))
        assert contraste(box.color, painted[plate][1].color) >= MIN_TEXTO, f"{box} on {painted[plate][1]}"
        for later, (what, mark) in enumerate(painted[plate + 1 :], plate + 1):
            if what == "stroke" and later != index and not _is_grid(mark):
                assert not _crosses(mark, box), f"{box} is crossed by {mark}"


def _under(fill: Box, text: Box) -> bool:
    return fill.holds((text.x + text.right) / 2, (text.y + text.bottom) / 2)


def _is_grid(mark: Box) -> bool:
    return mark.color == paleta.REJILLA


def _crosses(mark: Box, box: Box) -> bool:
    """Does a segment come into the middle of a text's box?"""
    inner = Box(box.x + 1, box.y + 3, box.right - 1, box.bottom - 3)
    across, down = sorted((mark.x, mark.right)), sorted((mark.y, mark.bottom))
    if across[1] < inner.x or across[0] > inner.right or down[1] < inner.y or down[0] > inner.bottom:
        return False
    return any(
        inner.holds(mark.x + (mark.right - mark.x) * i / 32, mark.y + (mark.bottom - mark.y) * i / 32)
        for i in range(33)
    )


def _rect(element: ElementTree.Element, vista: Vista) -> Box:
    if element.get("x") is None:
        return Box(0, 0, 1e6, 1e6, element.get("fill") or "")
    x, y, w, h = (float(element.get(name) or 0) for name in ("x", "y", "width", "height"))
    return Box(x, y, x + w, y + h, element.get("fill") or "")


def _text(element: ElementTree.Element) -> Box:
    size, x, y = (float(element.get(name) or 0) for name in ("font-size", "x", "y"))
    width = ancho_texto(element.text or "", size, element.get("font-weight") is not None)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[element.get("text-anchor") or "start"]
    return Box(left, y - size * 0.76, left + width, y + size * 0.24, element.get("fill") or "")


def _segments(element: ElementTree.Element) -> list[Box]:
    """Straight pieces of a line or a path, from end to end (not sorted: the slope counts)."""
    color = element.get("stroke") or ""
    if element.tag == f"{SVG}line":
        return [Box(*(float(element.get(name) or 0) for name in ("x1", "y1", "x2", "y2")), color)]
    path = element.get("d") or ""
    if path.count("M") == 1 and path.count("L") > 1:
        points = [tuple(map(float, pair.split())) for pair in path[1:].split("L")]
        return [Box(*a, *b, color) for a, b in pairwise(points)]
    found = []
    for x, y, x2, y2, h, v in SEGMENT.findall(path):
        end = (float(x2), float(y2)) if x2 else (float(x) + float(h or 0), float(y) + float(v or 0))
        found.append(Box(float(x), float(y), *end, color))
    return found

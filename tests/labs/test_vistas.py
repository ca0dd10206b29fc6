"""Every figure keeps the rules of all: readable to screen readers, in any theme, without colours; always the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from svg_rules import check_rules, numbers, texts
from vista_samples import views

from minilab import vistas
from minilab.vistas import Tabla, Vista, paleta
from minilab.vistas.cifras import cifra, escapa, significativa
from minilab.vistas.lienzo import Lienzo
from minilab.vistas.paleta import contraste

VIEWS = views()


@pytest.mark.parametrize("name", VIEWS)
def test_names_colours_contrast_and_room_are_as_they_must_be(name):
    check_rules(VIEWS[name]())


@pytest.mark.parametrize("name", VIEWS)
def test_the_same_state_gives_the_same_bytes(name):
    one, other = VIEWS[name](), VIEWS[name]()
    assert one == other and one.html() == other.html() and repr(one) == repr(other)


BROKEN = {
    "light text on white": lambda c: c.texto(10, 40, "hola", color=paleta.NARANJA),
    "text on a fill like it": lambda c: (c.caja(0, 0, 200, 60, paleta.DECODE), c.texto(10, 40, "hola")),
    "text on a hatch": lambda c: (c.caja(0, 0, 200, 60, paleta.PREFILL), c.texto(10, 40, "hola, hola, hola")),
    "text on text": lambda c: (c.texto(10, 40, "hola"), c.texto(20, 42, "hola")),
    "text outside": lambda c: c.texto(800, 40, "no cabe en el dibujo"),
    "a line through text": lambda c: (c.texto(10, 40, "hola"), c.linea(0, 36, 200, 36, paleta.TINTA)),
    "a pale line": lambda c: c.linea(0, 36, 200, 36, paleta.AMARILLO),
    "a colour of its own": lambda c: c.relleno(0, 0, 9, 9, "#123456"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_rules_notice_a_fault(fault):
    canvas = Lienzo()
    BROKEN[fault](canvas)
    with pytest.raises(AssertionError):
        check_rules(canvas.vista("Título", "Descripción.", Tabla(("a",), (("b",),))))


def test_different_figures_have_different_ids():
    keys = [view().clave for view in VIEWS.values()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", VIEWS)
def test_the_page_holds_the_figure_its_words_and_its_table(name):
    vista = VIEWS[name]()
    html = vista.html()
    for cell in (*vista.tabla.cabecera, *(row[0] for row in vista.tabla.filas)):
        assert cell.replace('"', "&quot;") in html and cell in repr(vista)
    assert "<details>" in html and "<details open>" in vista.html(abierta=True)
    assert html.count("#FFFFFF") and "color:#111111" in html  # its own background and ink, whatever the theme
    assert vista.svg in html and vista.svg not in vista.html(sufijo="x")


@pytest.mark.parametrize(
    "name", ["bloques", "gantt por lugar", "gantt por petición", "qkt", "máscara", "vram", "latencias"]
)
def test_every_number_written_in_a_figure_stands_in_its_table_or_its_description(name):
    """A bare number is a mark of an axis or the number of a row or column."""
    vista = VIEWS[name]()
    told = numbers(f"{vista.descripcion} {vista.tabla} {vista.titulo}")
    for words in texts(vista):
        assert words in numbers(words) or numbers(words) <= told, f"{words!r}: {numbers(words) - told}"


def test_two_styles_of_one_figure_differ_in_more_than_colour():
    """By hatch, or by a glyph where two are plain."""
    groups = [
        (paleta.PREFILL, paleta.DECODE, paleta.RECALCULO, paleta.GUARDADO, paleta.VACIO),
        (paleta.NUEVO, paleta.REPETIDO, paleta.HECHO),
        (paleta.PERMITIDO, paleta.PROHIBIDO),
        (paleta.PESOS, paleta.KV, paleta.ACTIVACIONES),
        (paleta.ACEPTADO, paleta.PROPIO, paleta.RECHAZADO),
        paleta.DUENOS,
    ]
    for group in groups:
        for one, other in combinations(group, 2):
            assert one.trama != other.trama, (one, other)


def test_contrast_is_wcags():
    assert contraste("#000000", "#FFFFFF") == pytest.approx(21)
    known = {paleta.AZUL: 5.19, paleta.BERMELLON: 3.87, paleta.VERDE: 3.42, paleta.PURPURA: 3.06}
    known |= {paleta.NARANJA: 2.25, paleta.CELESTE: 2.31, paleta.AMARILLO: 1.32}
    for color, ratio in known.items():
        assert contraste(color, paleta.BLANCO) == pytest.approx(ratio, abs=0.02)
        assert contraste(paleta.BLANCO, color) == contraste(color, paleta.BLANCO)
    for style in paleta.DUENOS:
        assert contraste(style.relleno, paleta.TINTA) >= paleta.MIN_TEXTO


def test_numbers_are_written_in_spanish():
    assert cifra(1234567.891, 2) == "1\u202f234\u202f567,89"
    assert [significativa(v) for v in (0, 0.00123456, 0.5, 3.14159, 47.77, 999.6, 12345)] == [
        "0",
        "0,00123",
        "0,500",
        "3,14",
        "47,8",
        "1\u202f000",
        "12\u202f345",
    ]
    assert escapa("a b\n\x07") == "a␣b↵\\x07"


def test_markup_in_a_state_stays_text():
    """A token or a note may hold anything."""
    evil = '<script>alert("x")</script>&'
    state = vistas.EstadoMascara(0, evil, evil, 1, 2, evil, (vistas.Candidato(0, evil, None, True),))
    vista = vistas.dibuja_mascara(state)
    assert "<script" not in vista.html()
    check_rules(Vista(vista.titulo, vista.descripcion, vista.svg, Tabla(("a",), (("b",),)), vista.clave))


def test_drawing_needs_no_torch_and_no_widget():
    code = "import sys, minilab.vistas; print([m for m in ('torch', 'ipywidgets', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_renderers_ask_neither_the_clock_nor_chance():
    for path in Path(vistas.__file__).parent.glob("*.py"):
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
        }
        assert not names & {"time", "datetime", "random", "secrets", "uuid", "numpy", "torch"}, path

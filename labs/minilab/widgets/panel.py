"""The thin interactive shell: controls, and the figure that a pure renderer draws for their values.

Nothing is computed here. What the controls show is always displayed once more as a fixed figure, for every place where
no widget runs (nbconvert, PDF, feedback); beside a running widget the page hides that copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from minilab.vistas.vista import Vista

ANCHURA = {"description_width": "110px"}
# The ring is double, light and dark, and the handles have a dark rim, so that both are seen in both themes.
HOJA = (
    "<style>.minilab-panel button:focus-visible,.minilab-panel select:focus-visible,"
    ".minilab-panel .noUi-handle:focus-visible,.minilab-panel [contenteditable]:focus-visible"
    "{outline:3px solid #0072B2!important;outline-offset:1px;box-shadow:0 0 0 6px #FFFFFF!important}"
    ".minilab-panel .noUi-handle{border:2px solid #595959!important}"
    ".jp-OutputArea-child:has(.minilab-viva)~.jp-OutputArea-child .minilab-fija{display:none}</style>"
)


class Fija:
    """A figure that stays as it is."""

    def __init__(self, vista: Vista):
        self.vista = vista

    def _repr_html_(self) -> str:
        return self.vista.html(clase="minilab-vista minilab-fija", sufijo="f")

    def __repr__(self) -> str:
        return repr(self.vista)


class Panel:
    """Controls by name (``mandos``), the state that they make (``estado``) and its figure (``vista``).

    estado_de: called with the value of every control, by name. pasos: the name of the slider that gets play and step
    buttons. Show it as the last line of a cell, or with ``display``.
    """

    def __init__(
        self,
        estado_de: Callable[..., Any],
        dibuja: Callable[[Any], Vista],
        mandos: dict[str, widgets.Widget],
        pasos: str = "",
    ):
        self.mandos = mandos
        self._estado_de, self._dibuja = estado_de, dibuja
        self._figure = widgets.HTML()
        self.tabla = widgets.ToggleButton(description="Tabla a la vista", tooltip="Muestra u oculta la tabla de datos")
        rows = [self._row(name, control, name == pasos) for name, control in mandos.items()]
        self.caja = widgets.VBox([*rows, self.tabla, self._figure])
        self.caja.add_class("minilab-panel")
        for control in (*mandos.values(), self.tabla):
            control.observe(self._redraw, names="value")
        self._redraw()
        self.fija = Fija(self.vista)

    def _row(self, name: str, control: widgets.Widget, stepped: bool) -> widgets.Widget:
        """One control; the slider of the steps with its buttons."""
        if not stepped:
            return control
        play = widgets.Play(
            value=control.value, min=control.min, max=control.max, interval=900, description="Reproducir"
        )
        widgets.jslink((play, "value"), (control, "value"))
        self.reproduce = play
        self.anterior = _step_button("◀ Anterior", "Un paso atrás", control, -1)
        self.siguiente = _step_button("Siguiente ▶", "Un paso adelante", control, 1)
        return widgets.HBox([play, self.anterior, self.siguiente, control], layout=widgets.Layout(flex_flow="row wrap"))

    def _redraw(self, _: Any = None) -> None:
        self.estado = self._estado_de(**{name: control.value for name, control in self.mandos.items()})
        self.vista = self._dibuja(self.estado)
        html = self.vista.html(abierta=self.tabla.value, clase="minilab-vista minilab-viva", sufijo="v")
        self._figure.value = HOJA + html

    def __repr__(self) -> str:
        return repr(self.vista)

    def _ipython_display_(self) -> None:
        bundle = dict(self.caja._repr_mimebundle_())
        bundle["text/plain"] = f"Mandos de «{self.vista.titulo}»: {', '.join(self.mandos)}. Debajo, la figura fija."
        display(bundle, raw=True)
        display(self.fija)


def _step_button(words: str, tip: str, slider: widgets.IntSlider, by: int) -> widgets.Button:
    def move(_: widgets.Button) -> None:
        slider.value = min(max(slider.value + by, slider.min), slider.max)

    button = widgets.Button(description=words, tooltip=tip, layout=widgets.Layout(width="110px"))
    button.on_click(move)
    return button


def desliza(nombre: str, valor: int, minimo: int, maximo: int) -> widgets.IntSlider:
    """A slider over whole numbers."""
    layout = widgets.Layout(width="460px")
    return widgets.IntSlider(
        value=valor, min=minimo, max=max(maximo, minimo), description=nombre, style=ANCHURA, layout=layout
    )


def elige_valor(nombre: str, valor: int, opciones: tuple[int, ...]) -> widgets.SelectionSlider:
    """A slider over some whole numbers, ``valor`` among them."""
    layout = widgets.Layout(width="460px")
    return widgets.SelectionSlider(
        options=sorted({*opciones, valor}), value=valor, description=nombre, style=ANCHURA, layout=layout
    )


def elige_de(nombre: str, valor: Any, opciones: Any) -> widgets.Dropdown:
    """A list of names, or of (words, value)."""
    return widgets.Dropdown(options=opciones, value=valor, description=nombre, style=ANCHURA)

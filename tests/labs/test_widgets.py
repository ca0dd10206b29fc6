"""The shells: a control changes the state, a pure renderer draws it, and a fixed copy is always shown too."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from vista_samples import (
    ANSWER,
    CHUNKED,
    CONTINUOUS,
    DRAFTS,
    FRAMES,
    STATIC,
    TEXTS,
    WHOLE,
    ToyMask,
    chances,
    record_trace,
)

from minilab import vistas, widgets
from minilab.vistas import Punto, Techo

RUNS = {"estático": STATIC, "continuo": CONTINUOUS}
PANELS = {
    "bloques": lambda: widgets.ver_bloques(fotogramas=FRAMES, num_bloques=8, tam_bloque=4),
    "gantt": lambda: widgets.ver_gantt(RUNS, lugares=3, por="lugar"),
    "gantt troceado": lambda: widgets.ver_gantt({"a": WHOLE, "b": CHUNKED}, llegadas={"B": 3}),
    "qkt": lambda: widgets.ver_qkt("The capital of France is", 3),
    "máscara": lambda: widgets.ver_mascara(ToyMask(), ANSWER, TEXTS, chances()),
    "borradores": lambda: widgets.ver_borradores(DRAFTS, coste=0.1),
    "roofline": lambda: widgets.ver_roofline(medidos=[Punto("mi kernel", 2.0, 5e3)]),
    "vram": lambda: widgets.ver_vram(),
    "latencias": lambda: widgets.ver_latencias({"TTFT": [0.1, 0.2, 0.9], "ITL": [0.01, 0.02]}),
}
STEPPED = {"bloques": "paso", "gantt": "hasta", "qkt": "paso", "máscara": "paso", "borradores": "hasta"}
STEPPED |= {"latencias": "percentil"}


@pytest.fixture
def shown(monkeypatch):
    """What a notebook gets of a panel: the data of each display."""

    def show(panel):
        found = []
        formatter = DisplayFormatter()
        record = lambda thing, raw=False: found.append(thing if raw else formatter.format(thing)[0])  # noqa: E731
        monkeypatch.setattr("minilab.widgets.panel.display", record)
        panel._ipython_display_()
        return found

    return show


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_shows_its_controls_and_a_fixed_copy(name, shown):
    panel = PANELS[name]()
    controls, fixed = shown(panel)
    assert "application/vnd.jupyter.widget-view+json" in controls
    assert "figura fija" in controls["text/plain"]
    assert "minilab-fija" in fixed["text/html"] and 'role="img"' in fixed["text/html"]
    assert fixed["text/plain"] == repr(panel.vista)
    live = panel.caja.children[-1].value
    assert "minilab-viva" in live and "minilab-fija" not in live.partition("</style>")[2]
    ids = {f"{panel.vista.clave}{suffix}{end}" for suffix in "fv" for end in "td"}
    assert all(f'id="{i}"' in live + fixed["text/html"] for i in ids)


@pytest.mark.parametrize("name", PANELS)
def test_every_control_has_a_spanish_name_and_changes_the_figure(name):
    panel = PANELS[name]()
    for control in panel.mandos.values():
        before = panel.vista
        assert control.description.strip()
        if hasattr(control, "options"):
            values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        else:
            values = [control.min, control.max]
        control.value = next(value for value in values if value != control.value)
        assert panel.vista != before
        assert panel.vista.html(clase="minilab-vista minilab-viva", sufijo="v") in panel.caja.children[-1].value


@pytest.mark.parametrize("name", STEPPED)
def test_step_buttons_move_one_step_and_stop_at_the_ends(name):
    panel = PANELS[name]()
    slider = panel.mandos[STEPPED[name]]
    slider.value = slider.min
    panel.anterior.click()
    assert slider.value == slider.min
    panel.siguiente.click()
    assert slider.value == slider.min + 1
    panel.anterior.click()
    assert slider.value == slider.min
    slider.value = slider.max
    panel.siguiente.click()
    assert slider.value == slider.max
    assert (panel.reproduce.min, panel.reproduce.max) == (slider.min, slider.max)


def test_the_table_stays_open_while_the_figure_changes():
    panel = PANELS["qkt"]()
    figure = panel.caja.children[-1]
    assert "<details>" in figure.value
    panel.tabla.value = True
    assert "<details open>" in figure.value
    panel.mandos["paso"].value = 1
    assert "<details open>" in figure.value and panel.estado.paso == 1


def test_an_engine_trace_is_shown_step_by_step(tiny_model_dir):
    trace = record_trace(tiny_model_dir)
    panel = widgets.ver_bloques(trace)
    states = {state.paso: state for state in vistas.bloques_de_traza(trace)}
    assert panel.estado.ocupados == max(state.ocupados for state in states.values())
    for number, state in states.items():
        panel.mandos["paso"].value = number
        assert panel.estado == state and panel.vista == vistas.dibuja_bloques(state)
    assert widgets.ver_bloques(trace, paso=3).estado == states[3]
    with pytest.raises(ValueError, match="no hay paso 999"):
        widgets.ver_bloques(trace, paso=999)
    gantt = widgets.ver_gantt(trace)
    assert gantt.vista == vistas.dibuja_gantt([vistas.linea_de_traza(trace)])
    gantt.mandos["hasta"].value = 50
    (half,) = gantt.estado
    assert half.duracion == pytest.approx(half.final / 2)
    both = widgets.ver_gantt({"una": trace, "otra": trace})
    assert len(both.estado) == 2


def test_the_first_figure_is_the_one_that_says_most():
    assert PANELS["gantt"]().estado[0].hasta is None  # the whole run
    assert PANELS["qkt"]().estado.paso == 3
    mask = PANELS["máscara"]()
    removed = [s.quitada or 0 for s in vistas.recorre_mascara(ToyMask(), ANSWER, TEXTS, chances())]
    assert mask.estado.quitada == max(removed)


def test_own_devices_and_shapes_need_no_list_of_names():
    shape = vistas.FormaModelo("mío", 2, 4, 2, 16, 64, 128, 512)
    panel = widgets.ver_roofline(Techo("mi CPU", 0.2, 20.0), shape, contexto=300)
    assert set(panel.mandos) == {"lote", "contexto"} and panel.mandos["contexto"].value == 300
    assert set(widgets.ver_vram(shape, peticiones=3).mandos) == {"contexto", "peticiones", "bits_peso", "bits_kv"}
    assert list(widgets.ver_latencias([1, 2, 3]).mandos) == ["percentil"]


def test_the_histogram_names_its_series_and_its_title():
    assert widgets.ver_latencias([1, 2], titulo="TTFT").vista.titulo == "Latencias: TTFT"
    both = widgets.ver_latencias({"TTFT": [1, 2], "ITL": [3]}, titulo="con cola")
    assert both.vista.titulo == "Latencias: TTFT · con cola"
    both.mandos["serie"].value = "ITL"
    assert both.vista.titulo == "Latencias: ITL · con cola"


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: widgets.ver_bloques(), "fotogramas"),
        (lambda: widgets.ver_mascara(), "máscara"),
        (lambda: widgets.ver_qkt("", 2), "vacío"),
        (lambda: widgets.ver_qkt("a b", 0), "tokens nuevos"),
        (lambda: widgets.ver_qkt("a b", 30), "31 posiciones"),
        (lambda: widgets.ver_roofline("GTX"), "no conozco la GPU"),
        (lambda: widgets.ver_latencias([]), "no hay valores"),
    ],
)
def test_a_call_that_cannot_be_is_told_in_spanish(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_without_a_notebook_the_text_is_printed():
    code = "from minilab.widgets import ver_qkt; print(ver_qkt('a b c', 1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "productos q·k" in done.stdout and done.stderr == ""


def test_an_executed_and_converted_notebook_shows_the_figure_and_writes_nothing_to_stderr(tmp_path):
    """nbconvert is what makes a feedback page: no widget runs there."""
    source = "from minilab.widgets import ver_qkt\nver_qkt('a b c', 2)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}, store_widget_state=False
    ).execute()
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data", "display_data"]
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "minilab-fija" in page and "<desc" in page and "Los mismos datos en una tabla" in page
    assert json.loads(nbformat.writes(notebook))

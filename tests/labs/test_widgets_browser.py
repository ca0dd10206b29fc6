"""The widgets in a real JupyterLab: they run, a slider moves with the keyboard, the figure follows, in both themes.

MINILAB_CAPTURAS names a folder where a picture of every widget in the light and in the dark theme is wanted too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from chromium import CHROMIUM, open_page
from jupyter_lab import run_all, serve_lab
from vista_samples import record_trace

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

CELLS = {
    "preparación": "import json\nfrom pathlib import Path\nfrom minilab.widgets import *\n"
    "from minilab.vistas import Punto, Techo\nfrom vista_samples import *\n"
    "traza = json.loads(Path('traza.json').read_text())",
    "bloques": "ver_bloques(traza)",
    "bloques-a-mano": "ver_bloques(fotogramas=FRAMES, num_bloques=8, tam_bloque=4)",
    "gantt": "ver_gantt(traza)",
    "gantt-comparado": "ver_gantt({'estático': STATIC, 'continuo': CONTINUOUS}, lugares=3, por='lugar')",
    "gantt-troceado": "ver_gantt({'sin trocear': WHOLE, 'troceado': CHUNKED}, llegadas={'B': 3})",
    "qkt": "ver_qkt(['The', 'capital', 'of', 'France', 'is'], ['Paris', '.', 'It'])",
    "mascara": "ver_mascara(ToyMask(), ANSWER, TEXTS, chances())",
    "borradores": "ver_borradores(DRAFTS, coste=0.1)",
    "roofline": "ver_roofline(medidos=[Punto('mi kernel', 2.0, 5e3)])",
    "vram": "ver_vram()",
    "latencias": "ver_latencias({'TTFT': [0.01 * i * i for i in range(60)], 'ITL': [0.02, 0.03, 0.9]})",
}
FIGURES = len(CELLS) - 1


@pytest.fixture(scope="module")
def lab(tiny_model_dir, tmp_path_factory):
    """JupyterLab over a folder with the notebook; gives the notebook's address."""
    folder = tmp_path_factory.mktemp("cuadernos")
    (folder / "traza.json").write_text(json.dumps(record_trace(tiny_model_dir)), encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "widgets.ipynb")
    with serve_lab(folder, tmp_path_factory.mktemp("jupyter")) as address:
        yield address("widgets.ipynb")


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory):
    """The notebook in a browser, every cell run."""
    with open_page(lab, tmp_path_factory.mktemp("perfil")) as page:
        run_all(page)
        page.wait(f"document.querySelectorAll('.minilab-viva svg').length === {FIGURES}")
        yield page


def test_every_widget_runs_and_its_fixed_copy_is_there_but_hidden(page):
    assert page.js("document.querySelectorAll('.jp-OutputArea-output[data-mime-type*=stderr]').length") == 0
    assert page.js("document.querySelectorAll('.minilab-fija').length") == FIGURES
    assert page.js("[...document.querySelectorAll('.minilab-fija')].every(f => f.offsetParent === null)")
    assert page.js("[...document.querySelectorAll('.minilab-viva')].every(f => f.offsetParent !== null)")
    ids = page.js("[...document.querySelectorAll('svg[aria-labelledby] > [id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)) == 2 * 2 * FIGURES


def test_a_slider_moves_with_the_keyboard_alone_and_the_figure_follows(page):
    """From the button before it with Tab; the focus is seen; an arrow moves one step."""
    panel = "document.querySelectorAll('.minilab-panel')[5]"
    figure = f"{panel}.querySelector('.minilab-viva svg desc').textContent"
    assert page.js(figure).startswith("Paso 3")
    page.js(f"[...{panel}.querySelectorAll('button')].find(b => b.textContent.includes('Siguiente')).focus()")
    page.press("Tab")
    assert page.js(f"{panel}.contains(document.activeElement)")
    assert page.js("document.activeElement.getAttribute('role')") == "slider"
    assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.js("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.press("ArrowLeft")
    page.wait(f"{figure}.startsWith('Paso 2')")
    page.press("Home")
    page.wait(f"{figure}.startsWith('Paso 1')")


def test_step_buttons_and_play_work_from_the_keyboard(page):
    panel = "document.querySelectorAll('.minilab-panel')[6]"
    figure = f"{panel}.querySelector('.minilab-viva svg desc').textContent"
    before = page.js(figure)
    page.js(f"[...{panel}.querySelectorAll('button')].find(b => b.textContent.includes('Siguiente')).focus()")
    page.press("Enter")
    page.wait(f"{figure} !== {json.dumps(before)}")
    stepped = page.js(figure)
    page.js(f"{panel}.querySelector('.widget-play button, .jupyter-widget-play button').focus()")
    page.press(" ")
    page.wait(f"{figure} !== {json.dumps(stepped)}")
    page.press(" ")  # it stands still again


def test_no_text_of_a_figure_is_clipped_or_covers_another(page):
    """As the browser lays it out, with the fonts of this machine."""
    troubles = page.js(
        """[...document.querySelectorAll('.minilab-viva svg')].flatMap(svg => {
          const frame = svg.viewBox.baseVal, found = [];
          const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBBox()]);
          boxes.forEach(([text, b], i) => {
            if (b.x < 0 || b.x + b.width > frame.width || b.y + b.height > frame.height) found.push('clipped: ' + text);
            boxes.slice(i + 1).forEach(([other, o]) => {
              const w = Math.min(b.x + b.width, o.x + o.width) - Math.max(b.x, o.x);
              const h = Math.min(b.y + b.height, o.y + o.height) - Math.max(b.y, o.y);
              if (w > 1 && h > 4) found.push(text + ' | ' + other);
            });
          });
          return found;
        })"""
    )
    assert troubles == []


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_a_figure_keeps_its_own_colours_in_both_themes(page, theme):
    page.js(
        f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}}).then(() => true)"
    )
    page.wait(f"document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'")
    colors = page.js(
        """[...document.querySelectorAll('.minilab-viva, .minilab-viva figcaption, .minilab-viva summary')].map(e => {
          let box = e;
          while (getComputedStyle(box).backgroundColor === 'rgba(0, 0, 0, 0)') box = box.parentElement;
          return getComputedStyle(e).color + ' on ' + getComputedStyle(box).backgroundColor;
        })"""
    )
    assert set(colors) == {"rgb(17, 17, 17) on rgb(255, 255, 255)"}
    if folder := os.environ.get("MINILAB_CAPTURAS"):
        for number, name in enumerate(list(CELLS)[1:]):
            box = page.js(
                f"""(({{x, y, width, height}}) => ({{x, y, width, height}}))(
                      document.querySelectorAll('.minilab-panel')[{number}].closest('.jp-Cell').getBoundingClientRect())"""
            )
            page.picture(Path(folder) / f"{name}-{theme.lower()}.png", box)

"""Three labs in a real JupyterLab: every cell runs, and their widgets are used from the keyboard.

MINILAB_CAPTURAS names a folder where a picture of each widget is wanted too; then the real model is used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from chromium import CHROMIUM, open_page
from jupyter_lab import run_all, serve_lab

from minillm_serve.model.store import cache_root

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
LABS = {"L01_cache_kv": "ver_qkt", "L02_batching_continuo": "ver_gantt", "L03_paged_attention": "ver_bloques"}
PICTURES = os.environ.get("MINILAB_CAPTURAS")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """JupyterLab over an empty folder, and where a test puts its notebook."""
    folder = tmp_path_factory.mktemp("cuadernos")
    environment = {"MINILAB_RAPIDO": "1", "MINILLM_CACHE": str(cache_root())}
    if not PICTURES:
        environment["MINILAB_MODELO"] = "mini"
    with serve_lab(folder, tmp_path_factory.mktemp("jupyter"), **environment) as address:
        yield folder, address


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_runs_in_jupyterlab_and_its_widgets_follow_the_keyboard(addresses, solved, tmp_path, lab):
    folder, address = addresses
    notebook = solved(lab)
    nbformat.write(notebook, folder / f"{lab}.ipynb")
    widgets = sum(cell.cell_type == "code" and LABS[lab] in cell.source for cell in notebook.cells) - 1  # the import
    with open_page(address(f"{lab}.ipynb"), tmp_path, (1280, 1000)) as page:
        run_all(page, 600)
        assert page.js("[...document.querySelectorAll('[data-mime-type*=error]')].map(e => e.textContent)") == []
        assert page.js("[...document.querySelectorAll('[data-mime-type*=stderr]')].map(e => e.textContent)") == []
        panels = [
            i
            for i in range(page.js("document.querySelectorAll('.minilab-panel').length"))
            if page.js(f"{cell_of(i)}.querySelector('.jp-InputArea').textContent.includes('{LABS[lab]}(')")
        ]
        assert len(panels) >= widgets > 0
        for number in panels:
            use(page, number)
            if PICTURES:
                page.picture(Path(PICTURES) / f"{lab[:3]}-{LABS[lab][4:]}-{panels.index(number)}.png")


def cell_of(panel: int) -> str:
    return f"document.querySelectorAll('.minilab-panel')[{panel}].closest('.jp-Cell')"


def use(page, number: int) -> None:
    """Bring a widget into sight and drive its slider: to the start, to the end, a third of the way back."""
    page.js(f"{cell_of(number)}.querySelector('.jp-OutputArea').scrollIntoView()")
    panel = f"document.querySelectorAll('.minilab-panel')[{number}]"
    figure, slider = (
        f"{panel}.querySelector('.minilab-viva svg desc').textContent",
        f"{panel}.querySelector('[role=slider]')",
    )
    page.js(f"{slider}.focus()")
    page.press("Home")
    page.wait(f"{slider}.ariaValueNow === {slider}.ariaValueMin")
    page.js("new Promise(done => setTimeout(done, 1000))")
    first = page.js(figure)
    page.press("End")
    page.wait(f"{figure} !== {json.dumps(first)}")
    last = page.js(figure)
    for _ in range(int(page.js(f"({slider}.ariaValueMax - {slider}.ariaValueMin) / 3")) or 1):
        page.press("ArrowLeft")
    page.wait(f"{figure} !== {json.dumps(last)}")

"""A JupyterLab of its own over a folder, for a browser: nothing of the user's settings is read or written."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from chromium import Page

TOKEN = "ensayo"
OWN_FOLDERS = (
    "HOME",
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
)

# Cells out of sight stay in the page; no question about news covers it.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false"},
}


@contextlib.contextmanager
def serve_lab(folder: Path, own: Path, **environment: str) -> Iterator[Callable[[str], str]]:
    """Start JupyterLab in ``folder``; gives the function from a notebook's name to its address.

    own: where its settings go. environment: what its kernels see besides the caller's. A home of its own would hide the
    caller's model: MINILLM_CACHE keeps it in sight.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {name: str(own / name.lower()) for name in OWN_FOLDERS}
    for path in folders.values():
        Path(path).mkdir()
    for name, setting in SETTINGS.items():
        file = Path(folders["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting), encoding="utf-8")
    settings = [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", "--allow-root"]
    log = own / "registro.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--expose-app-in-browser", *settings],
            cwd=folder,
            env={**os.environ, **folders, "PYTHONPATH": str(Path(__file__).parent), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(480):
            with contextlib.suppress(OSError):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/api/status", headers={"Authorization": f"token {TOKEN}"}
                )
                urllib.request.urlopen(request, timeout=60).close()
                break
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.25)
        # A workspace for each notebook: in a shared one those opened before would come back, and could be in front.
        yield (
            lambda notebook: (
                f"http://127.0.0.1:{port}/lab/workspaces/{Path(notebook).stem}/tree/{notebook}?token={TOKEN}"
            )
        )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def run_all(page: Page, seconds: float = 120) -> None:
    """Run every cell of the open notebook, until the last one has ended; an error in one of them is told at once."""
    page.wait("!!window.jupyterapp && !!document.querySelector('.jp-Notebook .jp-Cell')")
    page.wait("!!window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel")
    page.js("window.jupyterapp.commands.execute('notebook:run-all-cells') && true")
    cells = "window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.filter(c => c.cell_type === 'code')"
    errors = f"{cells}.flatMap(c => c.outputs).filter(o => o.output_type === 'error').map(o => o.evalue)"
    page.wait(f"{cells}.at(-1).execution_count !== null || {errors}.length", seconds)
    assert page.js(errors) == []

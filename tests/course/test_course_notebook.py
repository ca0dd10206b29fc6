"""The solved notebook runs from top to bottom, offline, without a word on stderr."""

from __future__ import annotations

import csv

import pytest
from nbclient import NotebookClient

from minilab import construir

ASSIGNMENT = "P_sirve_y_demuestralo"


def execute(folder, timeout: int) -> tuple[str, list]:
    """Execute in ``folder``; returns everything shown as text, and the cells."""
    notebook = construir.instructor(construir.SOURCE_FOLDER / f"{ASSIGNMENT}.py")
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    texts = [o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in outputs]
    return "\n".join(texts), notebook.cells


def review(text: str, cells: list, folder, expected_json: int) -> None:
    assert text.count("públicas superadas") == 11
    assert f"JSON válidos: {expected_json} de {expected_json}" in text
    assert "HTTP 400" in text and "response_format" in text
    images = [o.data["text/html"] for c in cells for o in c.get("outputs", []) if "text/html" in o.get("data", {})]
    assert len(images) == 2 and all('<img alt="' in i for i in images)
    with (folder / "bitacora.csv").open(encoding="utf-8") as ledger:
        rows = list(csv.DictReader(ledger))
    assert [f["que"] for f in rows] == ["razón contra una a una", "razón contra el lote"]
    assert all(float(f["medido"]) > 0 for f in rows)


def test_solved_notebook_runs_on_the_tiny_model(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_MODELO", "mini")
    monkeypatch.setenv("MINILLM_REPORTS", str(tmp_path))
    text, cells = execute(tmp_path, 120)
    review(text, cells, tmp_path, 10)
    assert "Modelo diminuto" in text and "no demuestran nada" in text


@pytest.mark.model
def test_solved_notebook_runs_on_the_real_model(tmp_path, monkeypatch):
    from minillm_serve.config import ConfigError
    from minillm_serve.model.store import resolve_model

    try:
        resolve_model("smollm2-135m")
    except ConfigError as error:
        pytest.skip(str(error))
    monkeypatch.delenv("MINILAB_MODELO", raising=False)
    monkeypatch.setenv("MINILAB_RAPIDO", "1")
    monkeypatch.setenv("MINILLM_REPORTS", str(tmp_path))
    text, cells = execute(tmp_path, 300)
    review(text, cells, tmp_path, 10)
    assert "Modelo real: smollm2-135m" in text

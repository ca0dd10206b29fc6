"""The solved notebook runs from top to bottom, offline, without a word on stderr."""

from __future__ import annotations

import csv

import pytest
from nbclient import NotebookClient

from minilab import construir

TAREA = "P_sirve_y_demuestralo"


def ejecuta(carpeta, timeout: int) -> tuple[str, list]:
    """Execute in ``carpeta``; returns everything shown as text, and the cells."""
    cuaderno = construir.instructor(construir.FUENTE / f"{TAREA}.py")
    cliente = NotebookClient(
        cuaderno, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(carpeta)}}
    )
    cliente.execute()
    salidas = [o for c in cuaderno.cells for o in c.get("outputs", [])]
    assert [o.text for o in salidas if o.get("name") == "stderr"] == []
    textos = [o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in salidas]
    return "\n".join(textos), cuaderno.cells


def revisa(texto: str, celdas: list, carpeta, json_esperados: int) -> None:
    assert texto.count("públicas superadas") == 7
    assert f"JSON válidos: {json_esperados} de {json_esperados}" in texto
    assert "HTTP 400" in texto and "response_format" in texto
    imagenes = [o.data["text/html"] for c in celdas for o in c.get("outputs", []) if "text/html" in o.get("data", {})]
    assert len(imagenes) == 2 and all('<img alt="' in i for i in imagenes)
    with (carpeta / "bitacora.csv").open(encoding="utf-8") as bitacora:
        filas = list(csv.DictReader(bitacora))
    assert [f["que"] for f in filas] == ["razón contra una a una", "razón contra el lote"]
    assert all(float(f["medido"]) > 0 for f in filas)


def test_solved_notebook_runs_on_the_tiny_model(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILAB_MODELO", "mini")
    monkeypatch.setenv("MINILLM_REPORTS", str(tmp_path))
    texto, celdas = ejecuta(tmp_path, 120)
    revisa(texto, celdas, tmp_path, 10)
    assert "Modelo diminuto" in texto and "no demuestran nada" in texto


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
    texto, celdas = ejecuta(tmp_path, 300)
    revisa(texto, celdas, tmp_path, 10)
    assert "Modelo real: smollm2-135m" in texto

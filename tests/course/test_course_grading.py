"""The nbgrader cycle on a course of its own: honest work gets its marks, feedback is Spanish and leaks nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import nbformat
import pytest

from minilab import construir
from minilab_grading.__main__ import main
from minilab_grading.casos import casos_de
from minilab_grading.ciclo import Curso, ErrorDeCiclo
from minilab_grading.registro import semilla_de

TAREA = "P_sirve_y_demuestralo"
MAXIMO = {
    "prueba_prediccion": 5,
    "prueba_percentil": 10,
    "prueba_resume": 15,
    "prueba_cliente": 20,
    "prueba_cuerpo_json": 15,
    "prueba_es_valida": 10,
    "prueba_veredicto": 10,
}
FALLIDA = {
    "percentil": "def percentil(valores, p):\n    return sum(valores) / len(valores)",
    "cuerpo_json": (
        "def cuerpo_json(p, e):\n    return {'messages': [{'role': 'user', 'content': p}], 'max_tokens': 64,"
        " 'extra_body': {'guided_json': e}}"
    ),
    "es_valida": "def es_valida(texto, esquema, fin):\n    return True",
}


def guarda(cuaderno, ruta):
    ruta.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(cuaderno, ruta)


@pytest.fixture
def curso(tmp_path):
    """A released course; isolation is used where the machine has it."""
    curso = Curso(tmp_path / "curso", sin_aislar=True)
    curso.genera(TAREA)
    return curso


def test_honest_and_failing_submission_through_the_whole_cycle(tmp_path, entrega, soluciones, capsys):
    guarda(entrega(soluciones), tmp_path / "entregas" / "honesta.ipynb")
    guarda(entrega(FALLIDA), tmp_path / "entregas" / "fallida.ipynb")
    orden = ["ciclo", TAREA, str(tmp_path / "entregas"), "--curso", str(tmp_path / "curso"), "--sin-aislar"]
    assert main(orden) == 0
    assert "honesta: 85 puntos automáticos; por leer: explica" in capsys.readouterr().out
    notas = Curso(tmp_path / "curso").notas(TAREA)
    assert notas["honesta"] == {**MAXIMO, "explica": None}
    bajas = notas["fallida"]
    assert bajas["prueba_cuerpo_json"] == bajas["prueba_cliente"] == bajas["prueba_prediccion"] == 0
    assert bajas["prueba_es_valida"] == pytest.approx(10 * 2 / 11, abs=0.01)
    assert bajas["explica"] == 0 and sum(bajas.values()) < 10
    for alumno, nota in (("honesta", "85"), ("fallida", f"{sum(bajas.values()):g}".replace(".", ","))):
        pagina = tmp_path / "curso" / "feedback" / alumno / TAREA / f"{TAREA}.html"
        _revisa_pagina(pagina, nota, _secretos(tmp_path / "curso", alumno))


def _revisa_pagina(ruta, nota: str, secretos: list[str]) -> None:
    assert len(secretos) > 100
    pagina = ruta.read_text(encoding="utf-8")
    assert pagina.startswith("<!DOCTYPE html>") and '<html lang="es">' in pagina
    assert f"<strong>{nota}</strong> de 100" in pagina
    assert "Puntos por apartado" in pagina and "comprobaciones superadas" in pagina
    assert not re.search(r"\b(Score|Comments|Student's|Grade cell)\b", pagina)
    assert not re.search(r"(src|href)=.https?:", pagina), "a feedback page loads nothing from the network"
    texto = _texto(pagina)
    assert "esperaba" not in texto and not [secreto for secreto in secretos if secreto in texto]


def _secretos(raiz, alumno: str) -> list[str]:
    """What only the hidden cases drawn for this student hold: prompts, numbers, texts to judge, schema keys."""
    _, _, pruebas = casos_de(TAREA, semilla_de(raiz, alumno, TAREA))
    secretos = [prompt for caso in pruebas["prueba_cliente"].casos for prompt in caso.guiones]
    secretos += [repr(v) for caso in pruebas["prueba_percentil"].casos for v in caso.args[0] if isinstance(v, float)]
    secretos += [clave for caso in pruebas["prueba_cuerpo_json"].casos for clave in caso.args[1]["required"]]
    secretos += [caso.args[0] for caso in pruebas["prueba_es_valida"].casos]
    return [s for s in secretos if len(s) > 5]


def _texto(pagina: str) -> str:
    class Lector(HTMLParser):
        trozos: list[str] = []  # noqa: RUF012

        def handle_data(self, data: str) -> None:
            self.trozos.append(data)

    lector = Lector()
    lector.trozos = []
    lector.feed(pagina)
    return "".join(lector.trozos)


def test_honest_work_that_writes_to_stderr_keeps_its_marks(tmp_path, entrega, soluciones):
    ruidosa = dict(soluciones)
    ruidosa["percentil"] = soluciones["percentil"].replace(
        "    if not valores:", "    import sys\n    sys.stderr.write('midiendo…\\n')\n    if not valores:"
    )
    assert "midiendo" in ruidosa["percentil"]
    curso = Curso(tmp_path / "curso", ejecutar=True, sin_aislar=True)
    curso.genera(TAREA)
    guarda(entrega(ruidosa), tmp_path / "curso" / "submitted" / "ruidosa" / TAREA / f"{TAREA}.ipynb")
    curso.califica(TAREA)
    assert curso.notas(TAREA)["ruidosa"] == {**MAXIMO, "explica": None}
    calificado = nbformat.read(tmp_path / "curso" / "autograded" / "ruidosa" / TAREA / f"{TAREA}.ipynb", 4)
    salidas = [o for c in calificado.cells for o in c.get("outputs", [])]
    assert any("JSON válidos: 10 de 10" in o.get("text", "") for o in salidas), "the notebook was really executed"


def test_dead_kernel_does_not_lose_the_submission(tmp_path, entrega, soluciones):
    mortal = {**soluciones, "prediccion": soluciones["prediccion"] + "\nimport os\nos._exit(0)"}
    curso = Curso(tmp_path / "curso", ejecutar=True, sin_aislar=True)
    curso.genera(TAREA)
    cuaderno = entrega(mortal)
    cuaderno.cells = [c for c in cuaderno.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "preparacion"]
    guarda(cuaderno, tmp_path / "curso" / "submitted" / "mortal" / TAREA / f"{TAREA}.ipynb")
    curso.califica(TAREA)
    notas = curso.notas(TAREA)["mortal"]
    assert notas == {**MAXIMO, "prueba_prediccion": 0, "explica": None}


def test_edited_deleted_and_duplicated_check_cells_change_nothing(curso, entrega, soluciones):
    editada, borrada = entrega(FALLIDA), entrega(soluciones)
    for celda in editada.cells:
        if celda.metadata.get("nbgrader", {}).get("grade"):
            celda.source = "100.0" if celda.cell_type == "code" else celda.source
            celda.metadata.nbgrader["points"] = 100
    borrada.cells = [c for c in borrada.cells if c.id not in ("prueba_percentil", "prueba_resume")]
    for alumno, cuaderno in (("editada", editada), ("borrada", borrada)):
        guarda(cuaderno, curso.raiz / "submitted" / alumno / TAREA / f"{TAREA}.ipynb")
    curso.califica(TAREA)
    notas = curso.notas(TAREA)
    assert notas["editada"]["prueba_cuerpo_json"] == 0 and sum(notas["editada"].values()) < 10
    assert notas["borrada"] == {**MAXIMO, "explica": None}


def test_regrading_gives_the_same_record_byte_for_byte(curso, entrega, soluciones):
    guarda(entrega(soluciones), curso.raiz / "submitted" / "ana" / TAREA / f"{TAREA}.ipynb")
    registros = []
    for _ in range(2):
        curso.califica(TAREA, "ana")
        registros.append((curso.raiz / "autograded" / "ana" / TAREA / "nota.json").read_bytes())
    assert registros[0] == registros[1]
    nota = json.loads(registros[0])
    assert nota["alumno"] == "ana" and nota["aislamiento"] in ("espacios+montajes", "espacios", "ninguno")
    assert {p["id"]: p["puntos"] for p in nota["pruebas"]} == MAXIMO


def test_unknown_assignment_and_empty_folder_are_said_clearly(tmp_path):
    curso = Curso(tmp_path / "curso")
    with pytest.raises(ErrorDeCiclo, match=construir.fuentes()[0].stem):
        curso.genera("no_existe")
    with pytest.raises(ErrorDeCiclo, match=r"alumno\.ipynb"):
        curso.recibe(TAREA, tmp_path)

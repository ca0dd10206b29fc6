"""Grade a notebook: sources of its solution cells in, verdicts out. Works without nbgrader's database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from minilab.casos import Prueba, Resultado, juzga
from minilab_grading.arnes.aislamiento import Aislamiento, elige_aislamiento
from minilab_grading.arnes.sesion import Sesion, TrabajadorCaido
from minilab_grading.casos import casos_de

RAIZ = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class NotaDePrueba:
    """Verdict of one check: ``fraccion`` in [0, 1] of its cases passed; ``aviso`` when its cells did not even load."""

    resultados: tuple[Resultado, ...]
    aviso: str = ""

    @property
    def fraccion(self) -> float:
        return sum(r.superado for r in self.resultados) / len(self.resultados)


@dataclass(frozen=True)
class Calificacion:
    """aislamiento: the rung used. pruebas: grade id of each check cell -> its verdict."""

    aislamiento: str
    pruebas: dict[str, NotaDePrueba]


def califica(
    cuaderno: NotebookNode,
    nombre: str,
    semilla: int,
    ocultas: Sequence[Path] = (),
    permitir_sin_aislar: bool = False,
) -> Calificacion:
    """Grade ``cuaderno``, an instance of the lab called ``nombre``, with the hidden cases drawn by ``semilla``.

    ocultas: more folders that the student's code must not see (the course root). Raises ``SinAislamiento`` and, for
    a lab without hidden cases, KeyError.
    """
    preludio, importes, pruebas = casos_de(nombre, semilla)
    aislamiento = elige_aislamiento([*carpetas_del_docente(), *ocultas], permitir_sin_aislar)
    fuentes = fuentes_de(cuaderno)
    notas = {grade_id: calificar_prueba(p, fuentes, preludio, importes, aislamiento) for grade_id, p in pruebas.items()}
    return Calificacion(aislamiento.nivel, notas)


def carpetas_del_docente() -> list[Path]:
    """Hidden cases, reference solutions and the history that holds both."""
    return [RAIZ / "grading", RAIZ / "labs" / "fuente", RAIZ / ".git", Path(__file__).resolve().parents[1]]


def fuentes_de(cuaderno: NotebookNode) -> dict[str, str]:
    """Grade id -> source of each solution code cell; the first one where a student duplicated a cell."""
    fuentes: dict[str, str] = {}
    for celda in cuaderno.cells:
        meta = celda.metadata.get("nbgrader", {})
        if celda.cell_type == "code" and meta.get("solution") and meta.get("grade_id"):
            fuentes.setdefault(meta["grade_id"], celda.source)
    return fuentes


def calificar_prueba(
    prueba: Prueba, fuentes: dict[str, str], preludio: str, importes: Sequence[str], aislamiento: Aislamiento
) -> NotaDePrueba:
    if faltan := [c for c in prueba.celdas if c not in fuentes]:
        return _todo_mal(prueba, f"falta la celda {', '.join(faltan)}")
    celdas = [(c, fuentes[c]) for c in prueba.celdas]
    celdas.insert(0, ("preparacion", preludio + _importes(celdas, importes)))
    resultados: list[Resultado] = []
    try:
        with Sesion(aislamiento) as sesion:
            carga = sesion.carga(celdas)
            if carga.error:
                return _todo_mal(prueba, f"la celda no se ejecuta: {carga.error}: {carga.mensaje}")
            for caso in prueba.casos:
                resultados.append(juzga(caso, sesion.llama(prueba.funcion, caso)))
    except TrabajadorCaido as error:
        resto = [Resultado(c.nombre, False, pista=c.pista) for c in prueba.casos[len(resultados) :]]
        return NotaDePrueba((*resultados, *resto), aviso=str(error))
    return NotaDePrueba(tuple(resultados))


def _importes(celdas: list[tuple[str, str]], importes: Sequence[str]) -> str:
    """The slow imports of the notebook's preparation, only where a cell names them."""
    return "".join(f"import {m}\n" for m in importes if any(m in codigo for _, codigo in celdas))


def _todo_mal(prueba: Prueba, aviso: str) -> NotaDePrueba:
    return NotaDePrueba(tuple(Resultado(c.nombre, False, pista=c.pista) for c in prueba.casos), aviso)

"""Real systems beside ours: live where they are, otherwise a recorded measurement, shown as recorded.

``python -m minilab.comparar graba NOMBRE`` writes the recorded files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilab.comparar.archivos import recorded_rows
from minilab.comparar.catalogo import COMPARISONS, EAGER
from minilab.comparar.tabla import ABSENT, LIVE, OWN, RECORDED, Comparativa, Fila, Origen
from minilab.comparar.tarea import Comparison, Part, Row, Task, Unavailable
from minilab.modelo import LabModel
from minillm_serve.config import ConfigError

__all__ = ["Comparativa", "Fila", "Origen", "compara"]

ADDRESSES = {"vLLM": "MINILAB_VLLM_URL", "TGI": "MINILAB_TGI_URL"}
SWITCHES = {"vLLM": "MINILAB_VLLM", "llama.cpp": "MINILAB_LLAMACPP"}
TINY = "Las filas en vivo usan el modelo diminuto: enseñan el mecanismo, sus velocidades no valen como medida."
FEWER = "En modo rápido las filas en vivo hacen menos peticiones, y más cortas, que las grabadas."
NO_TGI = "no hay MINILAB_TGI_URL, la dirección de un servidor"
HOW_LIVE = "Para medir vLLM en este equipo: MINILAB_VLLM=vivo (tarda en arrancar), o MINILAB_VLLM_URL=http://…/v1."


def compara(
    nombre: str,
    modelo: LabModel,
    *,
    tuyas: Mapping[str | tuple[str, str], Mapping[str, Any]] | None = None,
    url: str | None = None,
) -> Comparativa:
    """The comparison ``nombre`` as a table; see :mod:`.catalogo` for the names.

    transformers and minillm are measured now; vLLM, llama.cpp and TGI only where the environment asks for it, else the
    recorded rows stand in. tuyas: the student's own rows, system (or system and case) -> column -> figure. url: our own
    server that already runs (``…/v1``). Nothing that is missing raises; an unknown name does: KeyError.
    """
    if nombre not in COMPARISONS:
        raise KeyError(f"no existe la comparación {nombre!r}; las que hay: {', '.join(COMPARISONS)}")
    comparison = COMPARISONS[nombre]
    task = Task(Path(modelo.carpeta), modelo.rapido, url)
    rows = _own_rows(tuyas or {})
    for part in comparison.parts:
        rows += _rows_now(part, task)
    rows += _stored_rows(nombre, comparison, rows)
    kinds = {row.origen.clase for row in rows}
    figures = {row.sistema for row in rows if row.origen.clase != ABSENT}
    notes = [note for note in comparison.notes if note is not EAGER or "vLLM" in figures]
    if LIVE in kinds and not modelo.real:
        notes.append(TINY)
    elif {LIVE, RECORDED} <= kinds and modelo.rapido:
        notes.append(FEWER)
    if any(part.system == "vLLM" for part in comparison.parts) and not _asked("vLLM"):
        notes.append(HOW_LIVE)
    return Comparativa(nombre, comparison.title, comparison.columns, tuple(rows), tuple(notes))


def _own_rows(given: Mapping[str | tuple[str, str], Mapping[str, Any]]) -> list[Fila]:
    origin = Origen(OWN, "medido en este cuaderno")
    pairs = [(key if isinstance(key, tuple) else (key, ""), values) for key, values in given.items()]
    return [Fila(system, case, dict(values), origin) for (system, case), values in pairs]


def _asked(system: str) -> bool:
    """Whether this system is to be measured now."""
    by_switch = os.environ.get(SWITCHES.get(system, ""), "").strip() == "vivo"
    return system in ("transformers", "minillm") or by_switch or bool(_address(system))


def _address(system: str) -> str:
    return os.environ.get(ADDRESSES.get(system, ""), "").strip().rstrip("/")


def _rows_now(part: Part, task: Task) -> list[Fila]:
    """This part's live rows; none where it is not asked for or too slow; one that says why where it fails."""
    if not _asked(part.system) or (part.slow and task.quick):
        return []
    try:
        return [_live(row) for row in measure_part(part, task)]
    except Unavailable as error:
        return [_absent(part.system, str(error))]


def measure_part(part: Part, task: Task) -> list[Row]:
    """Its rows from this machine, or from the server that an environment variable names. Raises Unavailable."""
    address = _address(part.system)
    try:
        if address and part.by_url:
            return part.by_url(task, address, f"servidor en {address}")
        return part.measure(task)
    except (ConfigError, ImportError, OSError) as error:
        raise Unavailable(f"falló: {str(error).splitlines()[0][:200]}") from error


def _live(row: Row) -> Fila:
    return Fila(row["sistema"], row["caso"], row["valores"], Origen(LIVE, "en vivo, este equipo"), row["detalle"])


def _stored_rows(name: str, comparison: Comparison, now: list[Fila]) -> list[Fila]:
    """Recorded rows, of all systems of one recording, so that they can be compared with one another.

    A system that is neither live nor recorded has one row that says why.
    """
    seen = {row.sistema for row in now}
    systems = [part.system for part in comparison.parts]
    rows, reason = [], "no está en el archivo grabado"
    try:
        if comparison.stored:
            rows = comparison.stored()
        elif any(row.origen.clase == ABSENT for row in now) or not seen.issuperset(systems):
            rows = recorded_rows(name, systems)
    except Unavailable as error:
        reason = str(error)
        systems = systems or ["grabado"]
    silent = [system for system in systems if system not in seen | {row.sistema for row in rows}]
    return [*rows, *(_absent(system, NO_TGI if system == "TGI" else reason) for system in silent)]


def _absent(system: str, reason: str) -> Fila:
    return Fila(system, "", {}, Origen(ABSENT, f"no medido: {reason}"))

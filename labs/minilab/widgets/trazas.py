"""Viewers that replay something step by step: block tables, the scheduler, QKᵀ, the mask, drafts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from minilab.vistas.bloques import bloques_a_mano, bloques_de_traza, dibuja_bloques
from minilab.vistas.borradores import borradores_de, dibuja_borradores
from minilab.vistas.gantt import dibuja_gantt
from minilab.vistas.linea import LineaTiempo, linea_de_filas, linea_de_traza
from minilab.vistas.mascara import dibuja_mascara, mascara_de_gramatica, recorre_mascara
from minilab.vistas.qkt import MAX_POSICIONES, EstadoQKT, dibuja_qkt
from minilab.widgets.panel import Panel, desliza

MARCAS = 100


def ver_bloques(
    traza: dict[str, Any] | None = None,
    paso: int | None = None,
    *,
    fotogramas: Sequence[Mapping[str, Any]] | None = None,
    num_bloques: int = 0,
    tam_bloque: int = 0,
    costuras: Any = None,
) -> Panel:
    """The block tables of an engine trace, step by step, or of frames written by hand.

    paso: number of the step shown first (default: the one that holds most blocks). costuras: the Seams that recorded
    the trace, for the prefix cache of a student's own pool. See :mod:`minilab.vistas.bloques`.
    """
    if (traza is None) == (fotogramas is None):
        raise ValueError("da una traza, o bien fotogramas con num_bloques y tam_bloque")
    if traza is not None:
        states = bloques_de_traza(traza, costuras)
    else:
        states = bloques_a_mano(fotogramas or (), num_bloques, tam_bloque)
    numbers = [state.paso for state in states]
    if paso is not None and paso not in numbers:
        raise ValueError(f"no hay paso {paso}: van del {numbers[0]} al {numbers[-1]}")
    first = max(range(len(states)), key=lambda i: states[i].ocupados) if paso is None else numbers.index(paso)
    by_number = dict(zip(numbers, states, strict=True))
    slider = desliza("paso", numbers[first], numbers[0], numbers[-1])
    return Panel(lambda paso: _at(by_number, paso), dibuja_bloques, {"paso": slider}, "paso")


def _at(states: Mapping[int, Any], number: int) -> Any:
    """The state of a step; a step that left no record looks like the one before it."""
    return states[max(known for known in states if known <= number)]


def ver_gantt(
    traza: Any,
    *,
    lugares: int | None = None,
    llegadas: Mapping[Any, float] | None = None,
    hueco: float | None = None,
    por: str = "peticion",
    con_id: bool = False,
) -> Panel:
    """Who ran when: an engine trace, rows ``(petición, inicio, fin[, clase])`` in steps, or a dict name -> one of both.

    con_id: the rows of a trace carry the ids of its requests. Idle places are shaded; TTFT and decode gaps are marked.
    The slider shows the run up to a moment. See
    :mod:`minilab.vistas.linea` and :mod:`minilab.vistas.gantt`.
    """
    named = traza if isinstance(traza, Mapping) and "schema" not in traza else {"": traza}
    lines = [_line(run, str(name), lugares, llegadas, hueco, con_id) for name, run in named.items()]
    end = max(line.final for line in lines)
    whole = lines[0].unidad == "paso"
    marks = int(end) if whole else MARCAS

    def until(hasta: int) -> list[LineaTiempo]:
        moment = float(hasta) if whole else end * hasta / marks
        return [replace(line, hasta=None if hasta == marks else moment) for line in lines]

    slider = desliza("hasta el paso" if whole else "hasta el %", marks, 1, marks)
    return Panel(until, lambda state: dibuja_gantt(state, por), {"hasta": slider}, "hasta")


def _line(
    run: Any, name: str, lugares: int | None, llegadas: Mapping[Any, float] | None, hueco: float | None, con_id: bool
) -> LineaTiempo:
    if isinstance(run, Mapping):
        return linea_de_traza(dict(run), name, lugares, hueco, con_id)
    return linea_de_filas(run, name, lugares, llegadas, hueco)


def ver_qkt(prompt: str | Sequence[str], nuevos: int | Sequence[str]) -> Panel:
    """QKᵀ without and with a KV cache, a step per new token; step 1 is the prefill. nuevos: texts, or how many."""
    words = tuple(prompt.split()) if isinstance(prompt, str) else tuple(prompt)
    new = tuple(f"t{i + 1}" for i in range(nuevos)) if isinstance(nuevos, int) else tuple(nuevos)
    if not words:
        raise ValueError("el prompt está vacío: da al menos un token")
    if not new:
        raise ValueError("no hay tokens nuevos: da al menos uno")
    if (positions := len(words) + len(new) - 1) > MAX_POSICIONES:
        raise ValueError(f"son {positions} posiciones: aquí caben {MAX_POSICIONES}; acorta el ejemplo")
    slider = desliza("paso", len(new), 1, len(new))
    return Panel(lambda paso: EstadoQKT(words, new, paso), dibuja_qkt, {"paso": slider}, "paso")


def ver_mascara(
    mascara: Any = None,
    ids: Sequence[int] = (),
    textos: Sequence[str | None] = (),
    probabilidades: Any = None,
    estado: Callable[[Any], str] | None = None,
    candidatos: int = 10,
    *,
    filas: Sequence[Any] | None = None,
    vocabulario: int = 0,
) -> Panel:
    """A token mask step by step: a fresh ``Mascara`` run through ``ids``, or the ``filas`` of our own grammar's trace.

    See :func:`minilab.vistas.mascara.recorre_mascara`. The step shown first is the one that removes most.
    """
    if (mascara is None) == (filas is None):
        raise ValueError("da una máscara con ids y textos, o bien las filas de una gramática")
    if filas is not None:
        states = mascara_de_gramatica(filas, vocabulario)
    else:
        states = recorre_mascara(mascara, ids, textos, probabilidades, estado, candidatos)
    first = max(range(len(states)), key=lambda i: (states[i].quitada or 0.0, -i))
    slider = desliza("paso", first, 0, len(states) - 1)
    return Panel(lambda paso: states[paso], dibuja_mascara, {"paso": slider}, "paso")


def ver_borradores(traza: Any, *, k: int | None = None, coste: float = 0.0) -> Panel:
    """Accepted and rejected drafts, the running acceptance, the expected gain. traza: or ``(borradores, aceptados)``.

    See :func:`minilab.vistas.borradores.borradores_de`.
    """
    whole = borradores_de(traza, k, coste)
    slider = desliza("hasta el paso", whole.hasta, 1, whole.hasta)
    return Panel(lambda hasta: replace(whole, hasta=hasta), dibuja_borradores, {"hasta": slider}, "hasta")

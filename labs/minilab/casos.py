"""A check is a list of cases; public and hidden checks share these types and this judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilab.planos import iguales
from minilab.servidor_simulado import Guion


@dataclass(frozen=True)
class Respuesta:
    """What came back from one call: a plain value, or the name and message of the exception.

    grupos: for client cases, the request bodies in the groups in which they reached the simulated server.
    """

    valor: Any = None
    error: str | None = None
    mensaje: str = ""
    grupos: tuple[tuple[dict[str, Any], ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Caso:
    """One call of the student's function. Exactly one of ``espera``, ``error`` or ``juez`` decides.

    nombre, pista: what the student reads, in Spanish; they must not give the answer away.
    error: name of the exception that must be raised.
    juez: receives the :class:`Respuesta`, returns None when it is right or one Spanish sentence.
    guiones: set for client cases: prompt -> script of the simulated server's answer; the function is then called
    as ``await f(cliente, *args, reloj)``.
    """

    nombre: str
    args: tuple[Any, ...]
    pista: str
    espera: Any = None
    error: str | None = None
    juez: Callable[[Respuesta], str | None] | None = None
    guiones: dict[str, Guion] | None = None


@dataclass(frozen=True)
class Prueba:
    """A check: the function it calls, the solution cells (grade ids) that define it, and its cases."""

    nombre: str
    funcion: str
    celdas: tuple[str, ...]
    casos: tuple[Caso, ...]


@dataclass(frozen=True)
class Resultado:
    nombre: str
    superado: bool
    esperaba: str = ""
    obtuve: str = ""
    pista: str = ""


def corto(valor: Any, limite: int = 160) -> str:
    texto = json.dumps(valor, ensure_ascii=False, default=repr)
    return texto if len(texto) <= limite else texto[: limite - 1] + "…"


def juzga(caso: Caso, respuesta: Respuesta) -> Resultado:
    """Compare plain values in the caller's process; nothing of the student runs here."""
    esperaba = f"una excepción {caso.error}" if caso.error else corto(caso.espera)
    obtuve = f"{respuesta.error}: {respuesta.mensaje}" if respuesta.error else corto(respuesta.valor)
    if caso.error:
        superado = respuesta.error == caso.error
    elif respuesta.error:
        superado = False
        esperaba = "un resultado sin excepción" if caso.juez else esperaba
    elif caso.juez:
        queja = caso.juez(respuesta)
        superado = queja is None
        esperaba = queja or ""
    else:
        superado = iguales(caso.espera, respuesta.valor)
    return Resultado(caso.nombre, superado, esperaba, obtuve, "" if superado else caso.pista)


def responde_con(caso: Caso, grupos: list) -> Callable[[list[dict[str, Any]]], list[Guion]]:
    """The server side of a client case: looks each prompt up, and records the group in ``grupos``."""

    def responde(cuerpos: list[dict[str, Any]]) -> list[Guion]:
        grupos.append(tuple(cuerpos))
        guiones = caso.guiones or {}
        return [guiones.get(pregunta_de(cuerpo), [{"t": 0.1, "uso": 0}]) for cuerpo in cuerpos]

    return responde


def pregunta_de(cuerpo: dict[str, Any]) -> str:
    """The text of the last message of a chat request, or an empty string."""
    mensajes = cuerpo.get("messages")
    ultimo = mensajes[-1] if isinstance(mensajes, list) and mensajes else {}
    contenido = ultimo.get("content") if isinstance(ultimo, dict) else None
    return contenido if isinstance(contenido, str) else ""

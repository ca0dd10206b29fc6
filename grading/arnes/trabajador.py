"""The worker: runs the student's cells and answers calls, one JSON line each. Started in a folder of its own.

It holds no expected value and no hidden case: it gets the arguments of one call at a time. Its neighbours in that
folder are ``planos.py`` and ``servidor_simulado.py``, copies of the public ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from planos import ValorNoPlano, a_plano
from servidor_simulado import ServidorSimulado


def limita(limites: dict[str, int]) -> None:
    """CPU seconds, address space in bytes and largest file in bytes; nothing where the platform has no rlimits."""
    try:
        import resource
    except ImportError:
        return
    for nombre, valor in limites.items():
        # macOS refuses RLIMIT_AS; the other limits still hold there.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, nombre), (valor, valor))


class Canal:
    """JSON lines on the original stdin and stdout; the student's prints go to stderr instead."""

    def __init__(self) -> None:
        self._entrada = os.fdopen(os.dup(0), "r", encoding="utf-8")
        self._salida = os.fdopen(os.dup(1), "w", encoding="utf-8")
        vacio = os.open(os.devnull, os.O_RDONLY)
        os.dup2(vacio, 0)
        os.dup2(2, 1)

    def lee(self) -> dict | None:
        linea = self._entrada.readline()
        return json.loads(linea) if linea else None

    def escribe(self, mensaje: dict) -> None:
        self._salida.write(json.dumps(mensaje) + "\n")
        self._salida.flush()


def carga(espacio: dict, fuentes: list[list[str]]) -> None:
    for nombre, codigo in fuentes:
        exec(compile(codigo, f"<{nombre}>", "exec"), espacio)


def llama(espacio: dict, orden: dict, canal: Canal) -> dict:
    funcion = espacio.get(orden["funcion"])
    if not callable(funcion):
        return {"error": "NameError", "mensaje": f"no existe la función {orden['funcion']}"}
    if orden["modo"] == "cliente":
        return {"valor": a_plano(asyncio.run(_conduce(funcion, orden, canal)))}
    return {"valor": a_plano(funcion(*orden["args"]))}


async def _conduce(funcion: object, orden: dict, canal: Canal) -> object:
    def responde(cuerpos: list[dict]) -> list:
        canal.escribe({"n": orden["n"], "llegan": a_plano(cuerpos)})
        respuesta = canal.lee()
        if respuesta is None:
            raise SystemExit(0)
        return respuesta["guiones"]

    servidor = ServidorSimulado(responde)
    return await servidor.conduce(funcion(servidor.cliente, *orden["args"], servidor.reloj))


def main() -> None:
    canal = Canal()
    espacio: dict = {"__name__": "cuaderno"}
    while (orden := canal.lee()) is not None:
        try:
            if orden["op"] == "carga":
                limita(orden["limites"])
                carga(espacio, orden["fuentes"])
                respuesta: dict = {"valor": None}
            else:
                respuesta = llama(espacio, orden, canal)
        except ValorNoPlano as error:
            respuesta = {"error": "TypeError", "mensaje": str(error)}
        except Exception as error:
            respuesta = {"error": type(error).__name__, "mensaje": str(error)[:300]}
        canal.escribe({"n": orden["n"], **respuesta})


if __name__ == "__main__":
    main()

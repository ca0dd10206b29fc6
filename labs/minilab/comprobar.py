"""``comprobar("percentil", percentil)``: the public checks, in the student's notebook, with answers in Spanish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilab.asincrono import corre
from minilab.casos import Caso, Prueba, Respuesta, Resultado, juzga, responde_con
from minilab.planos import ValorNoPlano, a_plano
from minilab.publicas import PRUEBAS
from minilab.servidor_simulado import ServidorSimulado


class ComprobacionFallida(Exception):
    """A public check that did not pass. IPython shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Superada:
    """What a check that passed shows."""

    mensaje: str

    def __repr__(self) -> str:
        return self.mensaje


def comprobar(nombre: str, funcion: Callable[..., Any]) -> Superada:
    """Run the public cases of ``nombre`` on ``funcion``. Raises :class:`ComprobacionFallida` with what to fix."""
    if nombre not in PRUEBAS:
        raise ComprobacionFallida(f"No existe la comprobación «{nombre}». Las que hay: {', '.join(PRUEBAS)}.")
    prueba = PRUEBAS[nombre]
    resultados = [juzga(caso, _llama(caso, funcion)) for caso in prueba.casos]
    if all(r.superado for r in resultados):
        return Superada(f"✔ {nombre}: {len(resultados)} de {len(resultados)} comprobaciones públicas superadas.")
    raise ComprobacionFallida(_informe(prueba, resultados))


def _informe(prueba: Prueba, resultados: list[Resultado]) -> str:
    if all("NotImplementedError" in r.obtuve for r in resultados if not r.superado):
        return f"✘ {prueba.nombre}: falta implementar {prueba.funcion}. Completa la celda y vuelve a ejecutarla."
    bien = sum(r.superado for r in resultados)
    lineas = [f"✘ {prueba.nombre}: {bien} de {len(resultados)} comprobaciones públicas superadas."]
    for r in resultados:
        if r.superado:
            lineas.append(f"  ✔ {r.nombre}")
        else:
            lineas += [f"  ✘ {r.nombre}", f"      esperaba: {r.esperaba}", f"      obtuve:   {r.obtuve}"]
            lineas.append(f"      pista:    {r.pista}")
    return "\n".join(lineas)


def _llama(caso: Caso, funcion: Callable[..., Any]) -> Respuesta:
    grupos: list = []
    try:
        if caso.guiones is None:
            valor = funcion(*caso.args)
        else:
            servidor = ServidorSimulado(responde_con(caso, grupos))
            valor = corre(servidor.conduce(funcion(servidor.cliente, *caso.args, servidor.reloj)))
        return Respuesta(valor=a_plano(valor), grupos=tuple(grupos))
    except ValorNoPlano as error:
        return Respuesta(error="TypeError", mensaje=str(error))
    except Exception as error:
        return Respuesta(error=type(error).__name__, mensaje=str(error))

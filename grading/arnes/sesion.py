"""The trusted end of the pipe: starts a worker, sends one call at a time, and never believes more than JSON."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minilab.planos
import minilab.servidor_simulado
from minilab.casos import Caso, Respuesta, responde_con
from minilab.planos import ValorNoPlano, a_plano
from minilab_grading.arnes.aislamiento import Aislamiento

TRABAJADOR = Path(__file__).with_name("trabajador.py")
LLAMADA_S = 20.0
RESPUESTA_MAX = 1 << 20
LIMITES = {"RLIMIT_CPU": 30, "RLIMIT_AS": 2 << 30, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CORE": 0}


class TrabajadorCaido(RuntimeError):
    """The worker ended, fell silent or broke the protocol; the message is for the student."""


class Sesion:
    """One worker process with the student's cells loaded. Use as a context manager.

    Every wait is bounded by ``llamada_s`` wall-clock seconds and every reply by 1 MiB; on either limit the whole
    process group is killed and :class:`TrabajadorCaido` is raised.
    """

    def __init__(self, aislamiento: Aislamiento, llamada_s: float = LLAMADA_S):
        self._aislamiento, self._llamada_s = aislamiento, llamada_s
        self._pendiente = b""

    def __enter__(self) -> Sesion:
        self._carpeta = Path(tempfile.mkdtemp(prefix="arnes-"))
        for archivo in (TRABAJADOR, minilab.planos.__file__, minilab.servidor_simulado.__file__):
            shutil.copy(archivo, self._carpeta)
        orden = [*self._aislamiento.orden, sys.executable, "-I", str(self._carpeta / TRABAJADOR.name)]
        self._proceso = subprocess.Popen(
            orden,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._carpeta,
            env=self._entorno(),
            start_new_session=True,
            bufsize=0,
        )
        os.set_blocking(self._proceso.stdin.fileno(), False)
        os.set_blocking(self._proceso.stdout.fileno(), False)
        return self

    def _entorno(self) -> dict[str, str]:
        """Nothing of the grader's environment goes in; PATH is what the sandbox commands need."""
        fijo = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self._carpeta), "LANG": "C.UTF-8"}
        return {**fijo, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._proceso.pid, signal.SIGKILL)
        self._proceso.wait()
        for tubo in (self._proceso.stdin, self._proceso.stdout):
            tubo.close()
        shutil.rmtree(self._carpeta, ignore_errors=True)

    def carga(self, fuentes: list[tuple[str, str]]) -> Respuesta:
        """Run the cells (name, source) in order in one namespace."""
        return self._pide({"op": "carga", "fuentes": fuentes, "limites": LIMITES}, None)

    def llama(self, funcion: str, caso: Caso) -> Respuesta:
        """Call the student's function with the case's arguments; a client case talks to the simulated server here."""
        grupos: list = []
        modo = "normal" if caso.guiones is None else "cliente"
        orden = {"op": "llama", "funcion": funcion, "args": list(caso.args), "modo": modo}
        respuesta = self._pide(orden, responde_con(caso, grupos))
        return Respuesta(respuesta.valor, respuesta.error, respuesta.mensaje, tuple(grupos))

    def _pide(self, orden: dict[str, Any], responde: Callable[[list], list] | None) -> Respuesta:
        limite, nonce = time.monotonic() + self._llamada_s, secrets.token_hex(8)
        self._escribe({"n": nonce, **orden}, limite)
        while True:
            mensaje = self._lee(limite)
            if mensaje.get("n") != nonce:
                raise TrabajadorCaido("el proceso respondió fuera de turno")
            if "llegan" not in mensaje:
                return _respuesta(mensaje)
            if responde is None or not _son_cuerpos(mensaje["llegan"]):
                raise TrabajadorCaido("el proceso rompió el protocolo")
            self._escribe({"n": nonce, "guiones": responde(mensaje["llegan"])}, limite)

    def _escribe(self, mensaje: dict[str, Any], limite: float) -> None:
        datos = memoryview((json.dumps(mensaje) + "\n").encode())
        while datos:
            self._espera(self._proceso.stdin, selectors.EVENT_WRITE, limite)
            try:
                datos = datos[os.write(self._proceso.stdin.fileno(), datos) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise TrabajadorCaido("el proceso terminó antes de tiempo") from error

    def _lee(self, limite: float) -> dict[str, Any]:
        while b"\n" not in self._pendiente:
            self._espera(self._proceso.stdout, selectors.EVENT_READ, limite)
            trozo = os.read(self._proceso.stdout.fileno(), 1 << 16)
            if not trozo:
                raise TrabajadorCaido("el proceso terminó antes de tiempo")
            self._pendiente += trozo
            if len(self._pendiente) > RESPUESTA_MAX:
                raise TrabajadorCaido("la respuesta es demasiado grande")
        linea, _, self._pendiente = self._pendiente.partition(b"\n")
        try:
            mensaje = json.loads(linea)
        except (ValueError, RecursionError) as error:
            raise TrabajadorCaido("el proceso rompió el protocolo") from error
        if not isinstance(mensaje, dict):
            raise TrabajadorCaido("el proceso rompió el protocolo")
        return mensaje

    def _espera(self, tubo: Any, evento: int, limite: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(tubo, evento)
            if not selector.select(max(0.0, limite - time.monotonic())):
                raise TrabajadorCaido(f"no respondió en {self._llamada_s:.0f} s")


def _respuesta(mensaje: dict[str, Any]) -> Respuesta:
    if error := mensaje.get("error"):
        return Respuesta(error=str(error)[:80], mensaje=str(mensaje.get("mensaje", ""))[:300])
    try:
        return Respuesta(valor=a_plano(mensaje.get("valor")))
    except ValorNoPlano as error:
        return Respuesta(error="TypeError", mensaje=str(error))


def _son_cuerpos(valor: Any) -> bool:
    return isinstance(valor, list) and all(isinstance(cuerpo, dict) for cuerpo in valor)

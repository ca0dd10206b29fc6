"""How the worker is kept apart from the grader: the strongest rung of the ladder that works on this machine.

``espacios+montajes``: own user, network, process and mount namespaces; the given folders are covered by an empty
file system and every capability is dropped, so the cover cannot be lifted. ``espacios``: own user and network
namespaces only. ``ninguno``: a plain process with limits; refused unless the caller allows it. The rung that was
used is written on every record.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FUERTE, MEDIO, NINGUNO = "espacios+montajes", "espacios", "ninguno"
PRUEBA_S = 20
TAPA_Y_EJECUTA = (
    'while [ "$1" != "--" ]; do mount -t tmpfs -o ro,size=4k none "$1" || exit 97; shift; done; shift; '
    'exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"'
)


class SinAislamiento(RuntimeError):
    """This machine offers no isolation and the caller did not allow grading without it."""


@dataclass(frozen=True)
class Aislamiento:
    """nivel: the rung's name, for the record. orden: what stands before the worker's own command."""

    nivel: str
    orden: tuple[str, ...]


def elige_aislamiento(ocultas: Sequence[Path], permitir_ninguno: bool = False) -> Aislamiento:
    """The strongest rung that works here, covering the folders ``ocultas``. Raises :class:`SinAislamiento`."""
    tapadas = tuple(sorted({str(Path(o).resolve()) for o in ocultas if Path(o).is_dir()}))
    for aislamiento in (Aislamiento(FUERTE, _con_montajes(tapadas)), Aislamiento(MEDIO, _solo_espacios())):
        if _funciona(aislamiento.orden):
            return aislamiento
    if permitir_ninguno:
        return Aislamiento(NINGUNO, ())
    raise SinAislamiento(
        "Este equipo no permite aislar el código de los estudiantes (hace falta `unshare`, en Linux). "
        "Califica en otro equipo o acepta el riesgo con --sin-aislar: quedará escrito en cada nota."
    )


def _con_montajes(tapadas: tuple[str, ...]) -> tuple[str, ...]:
    espacios = ("--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ("unshare", *espacios, "sh", "-c", TAPA_Y_EJECUTA, "sh", *tapadas, "--")


def _solo_espacios() -> tuple[str, ...]:
    return ("unshare", "--user", "--map-root-user", "--net")


@lru_cache(maxsize=32)
def _funciona(orden: tuple[str, ...]) -> bool:
    if os.name != "posix" or any(shutil.which(p) is None for p in {orden[0], *({"setpriv"} if "sh" in orden else ())}):
        return False
    try:
        prueba = subprocess.run(
            [*orden, sys.executable, "-I", "-c", "pass"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PRUEBA_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return prueba.returncode == 0

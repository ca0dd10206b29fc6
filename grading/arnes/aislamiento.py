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

STRONG, MEDIUM, NONE = "espacios+montajes", "espacios", "ninguno"
TRIAL_S = 20
COVER_AND_RUN = (
    'while [ "$1" != "--" ]; do mount -t tmpfs -o ro,size=4k none "$1" || exit 97; shift; done; shift; '
    'exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"'
)


class NoIsolation(RuntimeError):
    """This machine offers no isolation and the caller did not allow grading without it."""


@dataclass(frozen=True)
class Isolation:
    """level: the rung's name, for the record. command: what stands before the worker's own command."""

    level: str
    command: tuple[str, ...]


def choose_isolation(hidden: Sequence[Path], allow_none: bool = False) -> Isolation:
    """The strongest rung that works here, covering the folders ``hidden``. Raises :class:`NoIsolation`."""
    covered = tuple(sorted({str(Path(h).resolve()) for h in hidden if Path(h).is_dir()}))
    for isolation in (Isolation(STRONG, _with_mounts(covered)), Isolation(MEDIUM, _namespaces_only())):
        if _works(isolation.command):
            return isolation
    if allow_none:
        return Isolation(NONE, ())
    raise NoIsolation(
        "Este equipo no permite aislar el código de los estudiantes (hace falta `unshare`, en Linux). "
        "Califica en otro equipo o acepta el riesgo con --sin-aislar: quedará escrito en cada nota."
    )


def _with_mounts(covered: tuple[str, ...]) -> tuple[str, ...]:
    namespaces = ("--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ("unshare", *namespaces, "sh", "-c", COVER_AND_RUN, "sh", *covered, "--")


def _namespaces_only() -> tuple[str, ...]:
    return ("unshare", "--user", "--map-root-user", "--net")


@lru_cache(maxsize=32)
def _works(command: tuple[str, ...]) -> bool:
    programs = {command[0], *({"setpriv"} if "sh" in command else ())}
    if os.name != "posix" or any(shutil.which(p) is None for p in programs):
        return False
    try:
        trial = subprocess.run(
            [*command, sys.executable, "-I", "-c", "pass"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TRIAL_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0

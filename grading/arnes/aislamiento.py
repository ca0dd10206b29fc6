"""How the worker is kept apart from the grader: the strongest rung of the ladder that works on this machine.

``podman`` (a container without an image), ``bwrap`` (Bubblewrap) and ``unshare`` (namespaces by hand) show the worker
the same allow-list of folders, :mod:`minilab_grading.arnes.recinto`. Docker is no rung: its daemon is root, and who
escapes from it is too. ``ninguno`` is a plain process with limits; refused unless the caller allows it. The rung that
was used is written on every record.

A rung counts as working when a trial with it kept every promise: see :data:`PROBE`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from minilab_grading.arnes import peldanos, recinto

PODMAN, BWRAP, UNSHARE, NONE = "podman", "bwrap", "unshare", "ninguno"
LADDER = {PODMAN: peldanos.podman, BWRAP: peldanos.bwrap, UNSHARE: peldanos.unshare}
TRIAL_S = 20
# Unused on every distribution that follows systemd's table of user ids.
FIRST_UID, UIDS = 61000, 180
TOOLS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PODMAN_NEEDS = ("HOME", "USER", "PATH", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
PROBE = """
import json, os, socket, subprocess, sys, threading
port, hidden = json.loads(sys.argv[1])
broken = []
def refused(promise, action, *errors):
    try:
        action()
        broken.append(promise)
    except errors or OSError:
        pass
refused("red", lambda: socket.create_connection(("127.0.0.1", port), 1).close())
for folder, allowed in hidden.items():
    if os.path.isdir(folder) and set(os.listdir(folder)) - set(allowed):
        broken.append("oculto " + folder)
pythons = [os.path.join(prefix, "lib") for prefix in (sys.prefix, sys.base_prefix)]
for folder in ("/", "/usr", *pythons, os.path.dirname(os.path.abspath(__file__))):
    refused("solo lectura " + folder, lambda: open(os.path.join(folder, "prueba"), "w").close())
open(os.path.join(os.getcwd(), "prueba"), "w").close()
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
if any(int(status[c], 16) for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
    broken.append("capacidades")
if status["NoNewPrivs"].strip() != "1":
    broken.append("privilegios")
if subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL).returncode == 0:
    broken.append("espacios de usuario")
if sum(name.isdigit() for name in os.listdir("/proc")) > 8:
    broken.append("procesos")
thread = threading.Thread(target=int)
thread.start()
thread.join()
print(json.dumps(broken))
"""


class NoIsolation(RuntimeError):
    """This machine offers no isolation and the caller did not allow grading without it, or the worker did not start."""


@dataclass(frozen=True)
class Launch:
    """How to start one worker: ``command`` runs in the folder ``cwd`` with nothing but ``environment``."""

    command: tuple[str, ...]
    environment: dict[str, str]
    cwd: Path


@dataclass(frozen=True)
class Isolation:
    """level: the rung's name, for the record. hidden: folders that the worker must not see."""

    level: str
    hidden: tuple[Path, ...] = ()

    def launch(self, base: Path, program: str, *args: str) -> Launch:
        """The command that runs the Python file ``program`` of the folder ``base/programa``.

        base: a folder made by :func:`session_folder`. Raises OSError where it cannot be prepared.
        """
        fixed = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "USER": "estudiante"}
        fixed |= {"PYTHONDONTWRITEBYTECODE": "1"}
        python = [sys.executable, "-I"]
        if self.level == NONE:
            scratch = base / "cuaderno"
            scratch.mkdir()
            command = [*python, str(base / "programa" / program), *args]
            return Launch(tuple(command), {**fixed, "PATH": TOOLS_PATH, "HOME": str(scratch)}, scratch)
        inside = {**fixed, "PATH": TOOLS_PATH, "HOME": recinto.SCRATCH, "TMPDIR": recinto.TEMPORARY}
        room = recinto.enclosure(base, self.hidden, FIRST_UID + secrets.randbelow(UIDS))
        command = LADDER[self.level](room, inside, [*python, f"{recinto.PROGRAM}/{program}", *args])
        outside = {k: os.environ[k] for k in PODMAN_NEEDS if k in os.environ} if self.level == PODMAN else inside
        return Launch(tuple(command), outside, base)


@contextlib.contextmanager
def session_folder(files: Sequence[Path]) -> Iterator[Path]:
    """A folder for one worker, with copies of the Python ``files`` as its program; gone at the end.

    It is open to other users, because the worker may be one; it never holds anything of a student or of the teacher.
    """
    base = Path(tempfile.mkdtemp(prefix="arnes-"))
    try:
        base.chmod(0o755)
        for name in ("programa", "vacio", "raiz"):
            (base / name).mkdir()
            (base / name).chmod(0o755)
        for file in files:
            (base / "programa" / file.name).write_bytes(file.read_bytes())
            (base / "programa" / file.name).chmod(0o644)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def choose_isolation(hidden: Sequence[Path], allow_none: bool = False, only: str | None = None) -> Isolation:
    """The strongest rung that works here, with the folders ``hidden`` out of the worker's sight.

    only: try this rung alone. Raises :class:`NoIsolation`.
    """
    folders = tuple(sorted({Path(h).resolve() for h in hidden if Path(h).is_dir()}))
    if only == NONE:
        return Isolation(NONE)
    if only is not None and only not in LADDER:
        raise NoIsolation(f"No existe el aislamiento «{only}». Los que hay: {', '.join(LADDER)}.")
    for level in [only] if only else LADDER:
        if _works(isolation := Isolation(level, folders)):
            return isolation
    if allow_none and only is None:
        return Isolation(NONE)
    tried = " ni ".join([only] if only else LADDER)
    raise NoIsolation(
        f"Este equipo no permite aislar el código de los estudiantes: no funciona {tried}. "
        "Instala `podman` o `bubblewrap` (Linux o WSL 2), califica en otro equipo, o acepta el riesgo con "
        "--sin-aislar: quedará escrito en cada nota."
    )


@lru_cache(maxsize=64)
def _works(isolation: Isolation) -> bool:
    if not sys.platform.startswith("linux") or shutil.which(isolation.level, path=TOOLS_PATH) is None:
        return False
    return broken_promises(isolation) == []


def broken_promises(isolation: Isolation) -> list[str]:
    """What a trial of the rung found wrong; empty where it keeps every promise."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        canary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arnes-canario-")))
        (canary / "secreto").write_text("x")
        canary.chmod(0o755)
        base = stack.enter_context(session_folder([]))
        (base / "programa" / "prueba.py").write_text(PROBE)
        trees = recinto.enclosure(base, (), FIRST_UID).trees
        unseen = {str(h): _steps_to(trees, h) for h in (canary, *isolation.hidden)}
        try:
            launch = isolation.launch(base, "prueba.py", json.dumps([listener.getsockname()[1], unseen]))
            trial = subprocess.run(
                launch.command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=launch.cwd,
                env=launch.environment,
                start_new_session=True,
                timeout=TRIAL_S,
            )
            return json.loads(trial.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return [f"no arranca: {error}"]


def _steps_to(trees: Sequence[Path], folder: Path) -> list[str]:
    """What a hidden folder may show: the way to a Python kept inside it."""
    return [t.relative_to(folder).parts[0] for t in trees if folder in t.parents]

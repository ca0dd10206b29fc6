"""Compiles C++ on first use and keeps the library: one to a few seconds, once per machine. Needs no torch.

A plain C ABI called through ctypes needs no headers but the compiler's own.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 120


class BuildError(RuntimeError):
    """C++ sources could not be compiled or loaded; says why."""


def find_compiler() -> str | None:
    """``$CXX``, else g++ or clang++ from the path. None as well where ``MINILLM_COMPILE=0`` says not to compile, and
    on systems other than Linux."""
    if os.environ.get("MINILLM_COMPILE", "1") == "0" or not sys.platform.startswith("linux"):
        return None
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def build(compiler: str, folder: Path, flags: Sequence[str], name: str) -> Path:
    """Compile every ``.cpp`` in ``folder`` into one library, kept under a name that changes with what made it.

    Raises :class:`BuildError`. Several processes may build at once: each writes its own file, the last rename wins.
    """
    sources = sorted(folder.glob("*.cpp"))
    digest = hashlib.sha256(" ".join((compiler, _run(compiler, "--version"), *flags, _cpu_flags())).encode())
    for path in (*sources, *sorted(folder.glob("*.h"))):
        digest.update(path.read_bytes())
    kept = cache_folder("kernels")
    target = kept / f"{name}-{digest.hexdigest()[:20]}.so"
    if not target.is_file():
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            made = Path(scratch) / target.name
            _run(compiler, *flags, "-o", str(made), *map(str, sources))
            os.replace(made, target)
    return target


def cache_folder(name: str) -> Path:
    """A folder in the user's cache (``MINILLM_CACHE`` moves it); a private temporary one if that is read-only."""
    root = os.environ.get("MINILLM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minillm"
    )
    folder = Path(root).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _temporary_folder(name)


@functools.cache
def _temporary_folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"minillm-{name}-"))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BuildError(f"{command[0]} exited with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _cpu_flags() -> str:
    """What ``-march=native`` depends on: a home folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")

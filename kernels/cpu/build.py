"""Compiles the C++ kernels on first use and calls them through ctypes: one to two seconds, once per machine.

A plain C ABI and data pointers need no torch headers (an extension built against those takes 45 s). Where there is
no compiler, or the build fails, ``library()`` is None and the torch versions of the ops serve instead.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch  # noqa: F401  its OpenMP runtime must be in the process first: two thread pools would fight for the cores

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
TIMEOUT_S = 120


class BuildError(RuntimeError):
    """The C++ kernels could not be compiled or loaded; says why."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None. ``MINILLM_COMPILE=0`` says not to try; a failed build warns once."""
    if os.environ.get("MINILLM_COMPILE", "1") == "0":
        return None
    compiler = find_compiler()
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(str(build(compiler)))
    except (BuildError, OSError) as error:
        warnings.warn(f"the C++ kernels are not used, torch's are: {error}", RuntimeWarning, stacklevel=2)
        return None


def bind(name: str, argtypes: list[type]) -> Callable[..., int]:
    """A function of the compiled library. Raises RuntimeError where there is none."""
    if (lib := library()) is None:
        raise RuntimeError("the C++ kernels need a compiler (g++ or clang++); use the 'torch' backend without one")
    function = getattr(lib, name)
    function.argtypes, function.restype = argtypes, ctypes.c_int
    return function


def find_compiler() -> str | None:
    """``$CXX``, else g++ or clang++ from the path."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def build(compiler: str) -> Path:
    """Compile every ``.cpp`` beside this file into one library, kept under a name that changes with what made it.

    Raises :class:`BuildError`. Several processes may build at once: each writes its own file, the last rename wins.
    """
    sources = sorted(SOURCES.glob("*.cpp"))
    digest = hashlib.sha256(" ".join((compiler, _run(compiler, "--version"), *FLAGS, _cpu_flags())).encode())
    for path in (*sources, *sorted(SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    folder = _cache_folder()
    target = folder / f"kernels-{digest.hexdigest()[:20]}.so"
    if not target.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / target.name
            _run(compiler, *FLAGS, "-o", str(made), *map(str, sources))
            os.replace(made, target)
    return target


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


def _cache_folder() -> Path:
    """``kernels`` in the user's cache (``MINILLM_CACHE`` moves it); a private temporary folder if that is read-only."""
    root = os.environ.get("MINILLM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minillm"
    )
    folder = Path(root).expanduser() / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="minillm-kernels-"))

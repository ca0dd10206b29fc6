"""The compiled C++ kernels, called through ctypes.

A plain C ABI and data pointers need no torch headers (an extension built against those takes 45 s). Where there is
no compiler, or the build fails, ``library()`` is None and the torch versions of the ops serve instead.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Callable
from pathlib import Path

import torch  # noqa: F401  its OpenMP runtime must be in the process first: two thread pools would fight for the cores

from minillm_kernels.compiler import BuildError, build, find_compiler

SOURCES = Path(__file__).parent
# Tuned for some processors (AMD Zen, Sapphire Rapids), GCC leaves fused multiply-adds out of some loops and not out of
# others: a row's bits would then hang on how many rows share its block. The parameter says to fuse everywhere.
FUSE_EVERYWHERE = "--param=avoid-fma-max-bits=0"
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", FUSE_EVERYWHERE),
)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None. ``MINILLM_COMPILE=0`` says not to try; a failed build warns once."""
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(build(compiler, SOURCES, FLAGS, "kernels")))
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

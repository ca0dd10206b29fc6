"""The compiled library of the native machine: built on first use, called through ctypes."""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minillm_kernels.compiler import BuildError, build, find_compiler

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC")

_I, _L, _P = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
CALL_OF_STATE = ctypes.CFUNCTYPE(_I, _I)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "vocab": (_P, [_I, _I, _P, _P, _P, _P, _P, _P, _P, _P, _P, _I]),
    "vocab_load": (_I, [_P, _P, _L]),
    "vocab_prepare": (None, [_P]),
    "vocab_save": (_L, [_P, _P, _L]),
    "vocab_free": (None, [_P]),
    "machine": (_P, [_P, _I, CALL_OF_STATE, CALL_OF_STATE, _L]),
    "machine_free": (None, [_P]),
    "add_literals": (_I, [_P, _I, ctypes.c_char_p, _P, _P, _I]),
    "add_bytes": (_I, [_P, _I, _P, _I, _P, _I, _I]),
    "add_text": (_I, [_P, _I, _P, _P, _I, _P, _P, _I, _I, _I, _I, _I, ctypes.c_char_p, _P, _I]),
    "set_arcs": (_I, [_P, _I, _P, _L]),
    "start": (_I, [_P, _I]),
    "advance": (_I, [_P, _I, ctypes.c_char_p, _L]),
    "complete": (_I, [_P, _I]),
    "fill": (_I, [_P, _I, _P, _I]),
    "forced": (_I, [_P, _I, _P, _I]),
    "cost": (_I, [_P, _I]),
    "release": (None, [_P, _P, _I]),
    "nbytes": (_L, [_P]),
    "thread": (_I, [_P, _I, _I, _P, _I]),
}


class Library:
    """The functions of the compiled library, by name."""

    def __init__(self, library: ctypes.CDLL):
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, f"minillm_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"the library has no function {name!r}")


@functools.cache
def library() -> Library | None:
    """The library, compiled on first use, or None. ``MINILLM_COMPILE=0`` says not to try; a failed build warns once."""
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return Library(ctypes.CDLL(str(build(compiler, SOURCES, FLAGS, "guided"))))
    except (BuildError, OSError) as error:
        warnings.warn(f"guided decoding runs in Python, more slowly: {error}", RuntimeWarning, stacklevel=2)
        return None


def available() -> bool:
    """Is there a compiled library, or can one be made here?"""
    return library() is not None

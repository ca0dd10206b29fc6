"""Triton for the labs: its interpreter, on the CPU; where there is no Triton, a stand-in that says so in Spanish.

Import it before anything else that may load Triton: ``from minilab.bancos.con_triton import tl, triton``. Triton
decides once, while it is imported, whether kernels are interpreted. Imports nothing of ours: the grader's worker runs
this text.
"""

import os
import types

os.environ["TRITON_INTERPRET"] = "1"

SIN_TRITON = (
    "aquí no hay Triton, que solo existe para Linux. Usa Linux, WSL o un contenedor, e instala el paquete triton; "
    "los ejercicios de torch de este cuaderno funcionan igual"
)
TARDE = (
    "Triton ya estaba cargado sin su intérprete. Reinicia el kernel del cuaderno y ejecuta primero la celda de "
    "preparación."
)


class _Ausente:
    """A kernel where there is no Triton: launching it says why it cannot run."""

    def __init__(self, fn):
        self.fn = fn
        self.__name__ = fn.__name__

    def __getitem__(self, grid):
        return self

    def __call__(self, *args, **kwargs):
        raise RuntimeError(SIN_TRITON)


def _ausente():
    """As much of ``triton`` and ``triton.language`` as cells use while they are defined."""
    language = types.SimpleNamespace(constexpr=object)
    module = types.SimpleNamespace(
        jit=_Ausente,
        language=language,
        cdiv=lambda a, b: -(-a // b),
        next_power_of_2=lambda n: 1 << max(n - 1, 0).bit_length(),
    )
    return module, language


try:
    import triton
    import triton.language as tl

    HAY_TRITON = True
except ImportError:
    triton, tl = _ausente()
    HAY_TRITON = False

if HAY_TRITON:
    if isinstance(tl.sum, triton.JITFunction):
        raise RuntimeError(TARDE)
    # What goes wrong in a kernel is raised as it is, not as the repr of it in an InterpreterError.
    triton.knobs.compilation.front_end_debugging = True

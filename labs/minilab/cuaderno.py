"""The first cell of a notebook: quiet, forgiving, and clear about which model it runs on."""

from __future__ import annotations

import os
import sys
import warnings
from types import TracebackType
from typing import Any

from minilab.modelo import LabModel, elige_modelo
from minilab.plantilla import UNWRITTEN
from minilab.pruebas.casos import StudentError


def prepara(lab: str) -> LabModel:
    """Prepare the notebook of ``lab`` ("L01", or "P") and return the model it uses; prints both in Spanish.

    A solution that is not written yet answers with one sentence instead of a traceback, wherever it is called; so does
    a name that a cell before was to define.
    """
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    _explain()
    model = elige_modelo()
    print(f"{'Proyecto' if lab == 'P' else 'Lab'} {lab}. {model.aviso}")
    if model.rapido:
        print("Modo rápido: menos peticiones y más cortas. Para las medidas completas, quita MINILAB_RAPIDO.")
    return model


def _explain() -> None:
    """In IPython, what an unfinished notebook raises is shown as one sentence; elsewhere nothing changes."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.set_custom_exc((NotImplementedError, StudentError, NameError), _show)


def _show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> list[str]:
    if (sentence := _sentence(shell, error, trace)) is None:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)
    else:
        shell._showtraceback(kind, error, [sentence])
    return []  # shown already: IPython itself shows nothing of an exception with a handler


def _sentence(shell: Any, error: BaseException, trace: TracebackType | None) -> str | None:
    """What is missing, and where to go. None if it is another mistake: then its traceback says more."""
    frames = []
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    while frames and frames[0][0].f_globals is not shell.user_ns:
        del frames[0]  # IPython's own
    own = [frame.f_code.co_name for frame, _ in frames if frame.f_globals is shell.user_ns]
    if type(error) is NameError:
        # Only in a cell's own lines: inside a function the mistake is more likely the function's.
        if not frames or frames[-1][0].f_globals is not shell.user_ns or any(name.isidentifier() for name in own):
            return None
        return (
            f"No existe `{error.name}` (línea {frames[-1][1]}). Si no es una errata, lo define una celda anterior que "
            "falló o que no has ejecutado: complétala, ejecútala y vuelve a esta."
        )
    if UNWRITTEN not in (str(error), getattr(error, "message", "")):
        return None
    where = f" `{own[-1]}`" if own and own[-1].isidentifier() else ""
    return f"Falta implementar{where}: completa su celda, ejecútala y vuelve a esta."

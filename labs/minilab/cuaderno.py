"""The first cell of a notebook: quiet, forgiving, and clear about which model it runs on."""

from __future__ import annotations

import os
import sys
import warnings
from types import TracebackType
from typing import Any

from minilab.modelo import LabModel, elige_modelo
from minilab.plantilla import UNWRITTEN


def prepara(lab: str) -> LabModel:
    """Prepare the notebook of ``lab`` ("L01") and return the model it uses; prints both in Spanish.

    A solution that is not written yet answers with one sentence instead of a traceback, wherever it is called.
    """
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    _explain_stubs()
    model = elige_modelo()
    print(f"Lab {lab}. {model.aviso}")
    if model.rapido:
        print("Modo rápido: menos peticiones y más cortas. Para las medidas completas, quita MINILAB_RAPIDO.")
    return model


def _explain_stubs() -> None:
    """In IPython, a stub's NotImplementedError is shown as one sentence; elsewhere nothing changes."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.set_custom_exc((NotImplementedError,), _show_stub)


def _show_stub(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> list[str]:
    if str(error) != UNWRITTEN:
        return shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset)
    name, last = "", trace
    while last is not None:
        name, last = last.tb_frame.f_code.co_name, last.tb_next
    where = f" `{name}`" if name.isidentifier() else ""
    sentence = f"Falta implementar{where}: completa su celda, ejecútala y vuelve a esta."
    print(sentence)
    return [sentence]

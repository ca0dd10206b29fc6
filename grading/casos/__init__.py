"""The hidden cases, one module per notebook: ``PRELUDIO``, ``IMPORTES`` and ``pruebas(semilla)``."""

from __future__ import annotations

import importlib

from minilab.casos import Prueba


def casos_de(cuaderno: str, semilla: int) -> tuple[str, tuple[str, ...], dict[str, Prueba]]:
    """Prelude source, slow imports and checks (grade id of the check cell -> check). KeyError if it has no cases."""
    modulo = f"minilab_grading.casos.{cuaderno.lower()}"
    try:
        casos = importlib.import_module(modulo)
    except ModuleNotFoundError as error:
        if error.name != modulo:
            raise
        raise KeyError(f"no hidden cases for notebook {cuaderno!r}: expected a module {modulo}") from error
    return casos.PRELUDIO, casos.IMPORTES, casos.pruebas(semilla)

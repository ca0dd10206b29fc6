"""The hidden cases, one module per notebook: ``PRELUDE``, ``IMPORTS`` and ``checks(seed)``."""

from __future__ import annotations

import importlib

from minilab.pruebas.casos import Check


def cases_of(notebook: str, seed: int) -> tuple[str, tuple[str, ...], dict[str, Check]]:
    """Prelude source, slow imports and checks (grade id of the check cell -> check). KeyError if it has no cases."""
    module_name = f"minilab_grading.casos.{notebook.lower()}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise KeyError(f"no hidden cases for notebook {notebook!r}: expected a module {module_name}") from error
    return module.PRELUDE, module.IMPORTS, module.checks(seed)

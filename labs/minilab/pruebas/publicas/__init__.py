"""The public checks of all labs by name, one module per lab (``l01``, …, ``p``)."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from minilab.pruebas.casos import Check

LABS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def checks_of(lab: str) -> dict[str, Check]:
    """Check name -> check of one lab (``"l01"``). Raises ModuleNotFoundError for a lab without public checks."""
    return import_module(f"{__name__}.{lab}").CHECKS


def merged() -> dict[str, Check]:
    """One name, one check: two labs may hold the same check. Raises ValueError for two of the same name."""
    checks: dict[str, Check] = {}
    for lab in LABS:
        for name, check in checks_of(lab).items():
            if checks.setdefault(name, check) is not check:
                raise ValueError(f"two public checks are called {name!r}; the second is in {lab}")
    return checks


CHECKS = merged()

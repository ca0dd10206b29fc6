"""A student's parts from one lab to the next: kept as source beside the notebooks, plugged in again where they fit."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from minillm_serve.seams import SEAMS

FOLDER = "piezas"
CHOSEN = "PIEZA"  # the name that a stored file gives to its part


class PieceError(ValueError):
    """The part cannot be kept; says why in Spanish."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def guarda(costura: str, nombre: str, carpeta: str | Path = FOLDER) -> None:
    """Write the function or class ``nombre`` of this notebook, and what it uses, for later labs.

    Raises :class:`PieceError` for an unknown seam, or a name that no cell run so far defines.
    """
    _known(costura)
    cells = _cells_run(sys._getframe(1).f_globals.get(nombre))
    source = needed_source(cells, nombre)
    file = Path(carpeta) / f"{costura}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{source}\n\n{CHOSEN} = {nombre}\n", encoding="utf-8")
    print(f"Guardada {nombre} como pieza «{costura}» en {file}: los labs siguientes la usarán.")


def costuras(*nombres: str, carpeta: str | Path = FOLDER) -> dict[str, Callable[..., Any]]:
    """The student's stored parts for these seams; one that is not there, or does not load, is left to the reference.

    Prints whose each part is.
    """
    found: dict[str, Callable[..., Any]] = {}
    for name in nombres:
        _known(name)
        file = Path(carpeta) / f"{name}.py"
        if not file.is_file():
            print(f"{name}: de referencia (no guardaste la tuya).")
            continue
        try:
            found[name] = _load(file)
            print(f"{name}: tuya, de {file}.")
        except Exception as error:
            print(f"{name}: de referencia; la tuya no se pudo cargar ({type(error).__name__}: {error}).")
    return found


def needed_source(cells: Sequence[str], name: str) -> str:
    """The definitions that ``name`` leans on among ``cells``, the last of each name, in the order in which they ran.

    Definitions are imports, functions, classes and assignments at the top level. Raises :class:`PieceError`.
    """
    defined: dict[str, tuple[int, str, ast.stmt]] = {}
    for place, statement in enumerate(_statements(cells)):
        for bound in _names_bound(statement):
            defined[bound] = (place, ast.unparse(statement), statement)
    if name not in defined:
        raise PieceError(f"Ninguna celda ejecutada define {name}: ejecuta antes la suya.")
    wanted, kept = [name], {}
    while wanted:
        place, text, statement = defined[wanted.pop()]
        if place not in kept:
            kept[place] = text
            wanted += [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id in defined]
    return "\n\n\n".join(kept[place] for place in sorted(kept))


def _statements(cells: Sequence[str]) -> list[ast.stmt]:
    """Of all cells that are Python; one with a magic or a mistake in it defines nothing."""
    found: list[ast.stmt] = []
    for cell in cells:
        try:
            found += ast.parse(cell).body
        except (SyntaxError, ValueError):
            continue
    return found


def _names_bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).partition(".")[0] for alias in statement.names]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _cells_run(part: Any) -> Sequence[str]:
    """The cells of this IPython session; in a plain script, the file that defines ``part``."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        return shell.user_ns["In"]
    return [] if part is None else [Path(inspect.getfile(part)).read_text(encoding="utf-8")]


def _load(file: Path) -> Callable[..., Any]:
    module = ModuleType(f"pieza_{file.stem.replace('.', '_')}")
    sys.modules[module.__name__] = module  # dataclasses and typing look the module of a class up
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), vars(module))
    return vars(module)[CHOSEN]


def _known(seam: str) -> None:
    if seam not in SEAMS:
        raise PieceError(f"No existe la pieza «{seam}». Las que hay: {', '.join(SEAMS)}.")

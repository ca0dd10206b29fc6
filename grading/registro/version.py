"""What judged: the version of the cases, a hash of the code that judges, and the machine. No git is needed.

The hash covers the harness, the cases, the meters and every module of this course that they import, found by reading
their imports. The commit is left out: it changes with files that judge nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
from functools import lru_cache
from pathlib import Path

from minillm_serve import __version__

JUDGING = ("minilab_grading.arnes", "minilab_grading.casos", "minilab_grading.medidores")
OURS = ("minilab", "minilab_grading")
MEASURING = ("torch", "transformers")


def cases_version(assignment: str) -> str:
    """``VERSION`` of the module of hidden cases: raised when seeds must give other cases. KeyError if there is none."""
    name = f"minilab_grading.casos.{assignment.lower()}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise KeyError(f"no hidden cases for {assignment!r}: expected a module {name}") from error
    return str(getattr(module, "VERSION", 1))


@lru_cache(maxsize=1)
def harness_version() -> str:
    """SHA-256 over name and text of every module that judges."""
    digest = hashlib.sha256()
    for name, path in sorted(_closure().items()):
        text = path.read_bytes()
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def harness(assignment: str) -> dict[str, str]:
    return {"version": __version__, "version_casos": cases_version(assignment), "sha256": harness_version()}


def environment(measured: bool) -> dict[str, str | int]:
    """Python and processor; also the libraries of the meters where something was measured."""
    result: dict[str, str | int] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "plataforma": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "nucleos": os.cpu_count() or 0,
    }
    for package in MEASURING if measured else ():
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            result[package] = "no está"
    return result


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "desconocida"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "desconocida")


def _closure() -> dict[str, Path]:
    """Module name -> file, of the judging packages and of what they import from this course."""
    found: dict[str, Path] = {}
    waiting = [name for package in JUDGING for name in _modules(package)]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        found[name] = path
        waiting += _imports(path)
    return found


def _modules(package: str) -> list[str]:
    init = _file(package)
    if init is None:
        return []
    files = init.parent.rglob("*.py")
    relative = (f.relative_to(init.parent).with_suffix("").parts for f in files)
    return [".".join((package, *(p for p in parts if p != "__init__"))) for parts in relative]


def _file(name: str) -> Path | None:
    """Found by its path below the package's folder: nothing that is only hashed is imported."""
    top, *rest = name.split(".")
    folder = _package_folder(top).joinpath(*rest)
    return next((p for p in (folder / "__init__.py", folder.with_suffix(".py")) if p.is_file()), None)


@lru_cache
def _package_folder(top: str) -> Path:
    """Raises ModuleNotFoundError for a package that is not installed."""
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(top)
    return Path(spec.origin).parent


def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [n for n in names if n.split(".")[0] in OURS]

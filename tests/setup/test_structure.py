"""The shape of the house: who may import whom, how long a file may be, and nothing that runs code from data."""

from __future__ import annotations

import ast
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [
    {"errors", "speculative", "config", "params", "request", "plan", "seams"},
    *({name} for name in ("kv", "sched", "guided", "spec", "model", "quant", "attention", "sample", "runner")),
    *({name} for name in ("engine", "serve", "deploy", "compare", "bench", "distill", "cli")),
]
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}
STANDALONE = {"__init__", "setup_env"}  # the package's front door, and a script that the system's Python runs by path
NO_TORCH = ("kv", "sched", "guided", "spec", "errors", "speculative", "config", "params", "request", "plan", "seams")
MAX_LINES = 400
PACKAGES = {"minillm_serve": "minillm_serve", "kernels": "minillm_kernels"}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def all_sources() -> list[Path]:
    skipped = {".venv", ".git", "node_modules", "build", "dist", ".ipynb_checkpoints"}
    return [path for path in sorted(ROOT.rglob("*.py")) if not skipped & set(path.relative_to(ROOT).parts)]


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """Absolute dotted names of every import in a file, also inside functions; TYPE_CHECKING blocks count too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def room(dotted: str) -> str | None:
    """``kv`` for ``minillm_serve.kv.manager.KVManager``; None outside the package and for its front door."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "minillm_serve" and len(parts) > 1 and parts[1] in LAYER_OF else None


def own_room(path: Path) -> str:
    return path.relative_to(ROOT / "minillm_serve").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources("minillm_serve"), ids=short)
def test_a_module_imports_only_from_what_stands_above_it(path):
    own = own_room(path)
    if own in STANDALONE:
        return
    assert own in LAYER_OF, f"{own} has no place in the list of layers"
    for name in imported(path):
        other = room(name)
        if other is not None and other != own:
            assert LAYER_OF[other] <= LAYER_OF[own], f"{short(path)} imports {name}, which stands below it"
        elif other is None and name.partition(".")[0] == "minillm_serve":
            front_door = name.removeprefix("minillm_serve").removeprefix(".")
            assert own in ("serve", "deploy", "bench", "compare", "distill", "cli") or front_door == "__version__", (
                f"{short(path)} imports {name} from the package's front door; import it from its own module"
            )


def test_modules_of_the_first_layer_do_not_import_in_a_circle():
    order = {"errors": 0, "speculative": 1, "config": 2, "params": 2, "plan": 3, "request": 4, "seams": 5}
    for name in order:
        path = ROOT / "minillm_serve" / f"{name}.py"
        if path.exists():
            above = {room(dotted) for dotted in imported(path)} - {None}
            assert all(order[other] < order[name] for other in above), f"{name} imports {above}"


@pytest.mark.parametrize("path", sources("minillm_serve"), ids=short)
def test_the_policy_half_of_the_engine_does_without_torch(path):
    if own_room(path) in NO_TORCH:
        found = {name for name in imported(path) if name.split(".")[0] in ("torch", "minillm_kernels")}
        assert not {name for name in found if not name.startswith("minillm_kernels.compiler.")}


def test_the_compiler_of_kernels_does_without_torch():
    """Importing it, and the policy half that uses it, loads no torch."""
    code = "import sys, minillm_kernels.compiler, minillm_serve.guided; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_set_up_script_needs_nothing_but_the_standard_library():
    names = {name.partition(".")[0] for name in imported(ROOT / "minillm_serve" / "setup_env.py")}
    assert names <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sources("kernels"), ids=short)
def test_kernels_import_nothing_of_ours(path):
    ours = ("minillm_serve", "minilab", "minilab_grading")
    assert not {name for name in imported(path) if name.partition(".")[0] in ours}


@pytest.mark.parametrize("path", sources("minillm_serve"), ids=short)
def test_the_engine_knows_nothing_of_the_course(path):
    assert not {name for name in imported(path) if name.partition(".")[0] in ("minilab", "minilab_grading")}


@pytest.mark.parametrize("path", sources("minillm_serve"), ids=short)
def test_the_core_does_without_the_libraries_it_is_compared_with(path):
    compared = {"transformers", "xgrammar", "jsonschema", "openai", "vllm", "llguidance", "outlines"}
    if own_room(path) not in ("bench", "compare", "deploy"):
        assert not {name for name in imported(path) if name.partition(".")[0] in compared}


@pytest.mark.parametrize("path", sources("minillm_serve", "kernels"), ids=short)
def test_nothing_unpickles_or_evaluates(path):
    assert not {name for name in imported(path) if name.partition(".")[0] in ("pickle", "marshal", "shelve", "dill")}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "eval", "exec", "compile"), f"{short(path)} calls {called}"


def test_no_file_is_longer_than_a_reader_bears():
    for path in all_sources():
        parts = path.relative_to(ROOT).parts
        if parts[0] != "tests" and parts[:2] != ("labs", "fuente"):
            with tokenize.open(path) as file:
                lines = sum(1 for _ in file)
            assert lines <= MAX_LINES, f"{short(path)} has {lines} lines"


def test_every_package_folder_is_in_pyproject(pyproject):
    tool = pyproject["tool"]["setuptools"]
    moved = {folder: name for name, folder in tool["package-dir"].items()}
    found = set()
    for top in ("minillm_serve", "kernels", "labs/minilab", "grading"):
        for marker in (ROOT / top).rglob("__init__.py"):
            folder = marker.parent.relative_to(ROOT)
            rest = folder.relative_to(top).parts
            found.add(".".join([moved.get(top, top.replace("/", ".")), *rest]))
    assert found == set(tool["packages"])


def test_every_module_lies_in_a_package_that_is_installed():
    for path in sources("minillm_serve", "kernels", "labs/minilab"):
        assert (path.parent / "__init__.py").exists(), f"{short(path)} lies in a folder without __init__.py"

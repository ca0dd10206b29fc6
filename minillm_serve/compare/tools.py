"""nginx, prometheus and promtool for tests and labs: those on PATH, else Debian's packages, unpacked without root.

``minillm compare setup tools`` asks apt for the packages of this system's own release, unpacks them into the user's
cache and runs the programs from there: nothing is installed, no service is started, no file of the system changes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from minillm_serve.compare.environments import RECORD, Say, SetupFailed, folder_of
from minillm_serve.model.atomic import clear_disk_errors, exclusive_lock, need_space

NAME = "tools"
PACKAGES = ("nginx", "prometheus")
# Each program: where its package keeps it, and how it is made to say its version.
PROGRAMS = {
    "nginx": ("usr/sbin/nginx", "-v"),
    "prometheus": ("usr/bin/prometheus", "--version"),
    "promtool": ("usr/bin/promtool", "--version"),
}
NEEDS = 6 * 10**8
_NEW_PACKAGE = re.compile(r"^Inst (\S+) \(", re.MULTILINE)  # one that is there already has its version in brackets
_LIBRARY = re.compile(r"lib(?!js-)")


def tool_path(name: str) -> Path | None:
    """The program ``nginx``, ``prometheus`` or ``promtool``, ready to be run; None where it is absent."""
    if (found := shutil.which(name)) is not None:
        return Path(found)
    wrapper = folder_of(NAME) / "bin" / name
    return wrapper if wrapper.exists() and (folder_of(NAME) / RECORD).exists() else None


def missing_tools() -> list[str]:
    return [name for name in PROGRAMS if tool_path(name) is None]


def set_up_tools(say: Say) -> None:
    """Unpack what is missing; does nothing when all is there. Raises :class:`SetupFailed`."""
    folder = folder_of(NAME)
    with clear_disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(folder.parent / f"{NAME}.lock", lambda: say("another process is at it; waiting for it")):
            if not missing_tools():
                say(f"{', '.join(f'{name}: {tool_path(name)}' for name in PROGRAMS)}")
                return
            _check_system()
            need_space(folder.parent, NEEDS, "the unpacked packages")
            _make(folder, say)


def _check_system() -> None:
    absent = [command for command in ("apt-get", "dpkg-deb") if shutil.which(command) is None]
    if absent:
        raise SetupFailed(
            f"{', '.join(PROGRAMS)} are unpacked from Debian packages and this system has no {' or '.join(absent)}; "
            "install them in your system's own way, so that they are on PATH"
        )


def _make(folder: Path, say: Say) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    packages, root = folder / "packages", folder / "root"
    packages.mkdir(parents=True)
    apt = _Apt(folder)
    say("asking apt for the packages")
    wanted = apt.needed(say)
    say(f"downloading {', '.join(wanted)}")
    apt.run(["download", *wanted], "the packages could not be downloaded", packages)
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)], f"{package.name} could not be unpacked")
    versions = {name: _install(name, folder) for name in PROGRAMS}
    shutil.rmtree(packages)
    apt.clean()
    (folder / RECORD).write_text(json.dumps({"packages": wanted, "versions": versions}) + "\n", encoding="utf-8")
    say("; ".join(versions.values()))


def _install(name: str, folder: Path) -> str:
    """A wrapper that lets the program find the libraries beside it; returns what the program says of its version."""
    program, ask = PROGRAMS[name]
    libraries = sorted((folder / "root").glob("**/lib/*-linux-gnu*"))
    lines = ["#!/bin/sh", f'exec {shlex.quote(str(folder / "root" / program))} "$@"']
    if libraries:
        found = shlex.quote(":".join(map(str, libraries)))
        lines.insert(1, f"export LD_LIBRARY_PATH={found}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}")
    wrapper = folder / "bin" / name
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text("\n".join(lines) + "\n", encoding="utf-8")
    wrapper.chmod(0o755)
    return _run([str(wrapper), ask], f"{name} was unpacked and does not start").strip().splitlines()[0]


class _Apt:
    """apt-get without root: the system's package lists where it has them, else lists of our own."""

    def __init__(self, folder: Path):
        self._private = folder / "apt"
        self._options: list[str] = []

    def needed(self, say: Say) -> list[str]:
        """The packages, and of what they depend on the libraries that this system lacks."""
        simulate = ["--simulate", "--no-install-recommends", "install", *PACKAGES]
        try:
            plan = self.run(simulate, "")
        except SetupFailed:
            say("the system's package lists do not know them; fetching lists of our own")
            self._use_private_lists()
            plan = self.run(simulate, "apt does not find the packages")
        new = _NEW_PACKAGE.findall(plan)
        return [*PACKAGES, *(name for name in new if name not in PACKAGES and _LIBRARY.match(name))]

    def _use_private_lists(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._private / folder).mkdir(parents=True, exist_ok=True)
        self._options = [
            *("-o", f"Dir::State::lists={self._private / 'lists'}"),
            *("-o", f"Dir::Cache={self._private / 'cache'}"),
            *("-o", "APT::Sandbox::User="),
        ]
        self.run(["update"], "the package lists could not be fetched")

    def run(self, arguments: list[str], failure: str, folder: Path | None = None) -> str:
        return _run(["apt-get", *self._options, *arguments], failure, folder)

    def clean(self) -> None:
        shutil.rmtree(self._private, ignore_errors=True)


def _run(command: list[str], failure: str, folder: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise SetupFailed(f"{failure}: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("E:")]
        raise SetupFailed(f"{failure}: {(errors or lines or ['it gave no reason'])[-1]}")
    return done.stdout + done.stderr

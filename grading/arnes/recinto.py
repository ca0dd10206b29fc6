"""What a worker may see: an allow-list of folders of this machine, the same for every rung of the ladder.

A worker's root is new and empty. It gets, read-only, the system's programs and libraries, the Python that runs the
grader, the devices that every program expects, and the worker's program; it writes in two small file systems in memory.
What is the teacher's inside those folders (an installed copy of the grader, a course kept in the virtual environment)
is covered by an empty folder.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/etc/localtime")
SYSTEM += ("/etc/alternatives",)
PYTHON_PARTS = ("bin", "lib", "lib64", "pyvenv.cfg")
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
PROGRAM, SCRATCH, TEMPORARY = "/arnes/programa", "/arnes/cuaderno", "/tmp"
SCRATCH_BYTES, SCRATCH_FILES = 16 << 20, 1024
TEACHERS_PACKAGES = ("minilab_grading", "minilab", "minillm_serve", "minillm_kernels")


@dataclass(frozen=True)
class Enclosure:
    """One worker's world. base: the session's own folder, which holds ``programa``, ``vacio`` and ``raiz``.

    trees: folders and files shown read-only where they are. links: symbolic links to make anew, as (place, target).
    covers: folders inside the trees that look empty. uid: the user that the worker becomes (inside its user namespace).
    as_root: the grader is root, so that outside too the worker must be that user.
    """

    base: Path
    trees: tuple[Path, ...]
    links: tuple[tuple[Path, str], ...]
    covers: tuple[Path, ...]
    uid: int
    as_root: bool

    @property
    def program(self) -> Path:
        return self.base / "programa"

    @property
    def empty(self) -> Path:
        return self.base / "vacio"

    @property
    def root(self) -> Path:
        return self.base / "raiz"

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Folders that the new root needs before anything is mounted, as absolute paths inside it."""
        needed = {"/dev", "/proc", PROGRAM, SCRATCH, TEMPORARY}
        needed |= {str(t if t.is_dir() else t.parent) for t in self.trees}
        needed |= {str(place.parent) for place, _ in self.links}
        return tuple(sorted(needed))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Empty files that the new root needs to mount devices and single files on."""
        return (*DEVICES, *(str(t) for t in self.trees if not t.is_dir()))

    def make_root(self) -> None:
        """The new root as a folder on disk, with the places to mount on."""
        for folder in self.folders:
            (self.root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for file in self.files:
            (self.root / file.lstrip("/")).touch()
        for place, target in self.links:
            (self.root / str(place).lstrip("/")).symlink_to(target)


def enclosure(base: Path, hidden: Iterable[Path], uid: int) -> Enclosure:
    """The enclosure of a session in the folder ``base``, with ``hidden`` out of sight."""
    wanted = _outermost([*(Path(p) for p in SYSTEM), *_pythons()])
    trees = tuple(p for p in wanted if not p.is_symlink())
    links = tuple((p, os.readlink(p)) for p in wanted if p.is_symlink())
    return Enclosure(base, trees, links, _covers(trees, [*hidden, *_installed()]), uid, os.geteuid() == 0)


def _pythons() -> Iterator[Path]:
    """What this interpreter is made of: its environment, its base, and each stop of the chain of links to it.

    Only the parts of a prefix that Python reads: a prefix may be somebody's home.
    """
    for prefix in {Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)}:
        for place in (prefix, prefix.resolve()):
            yield from (place / part for part in PYTHON_PARTS)
    stop = Path(sys.executable)
    yield stop
    while stop.is_symlink():
        stop = Path(os.path.normpath(stop.parent / os.readlink(stop)))
        yield stop


def _outermost(places: Iterable[Path]) -> list[Path]:
    """Those of ``places`` that exist, without the ones inside another."""
    unique = {p for p in places if p.exists()}
    return sorted(p for p in unique if not any(other in p.parents for other in unique if not other.is_symlink()))


def _installed() -> Iterator[Path]:
    """Where this Python keeps the teacher's packages."""
    for name in TEACHERS_PACKAGES:
        spec = importlib.util.find_spec(name)
        yield from (Path(p) for p in (spec.submodule_search_locations or () if spec else ()))


def _covers(trees: Sequence[Path], hidden: Iterable[Path]) -> tuple[Path, ...]:
    covers = set()
    for folder in {Path(h).resolve() for h in hidden if Path(h).is_dir()}:
        for tree in trees:
            if folder.is_relative_to(tree.resolve()):
                covers.add(tree / folder.relative_to(tree.resolve()))
    return tuple(sorted(covers))

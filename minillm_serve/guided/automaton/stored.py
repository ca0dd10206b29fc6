"""What is computed once per vocabulary and kept on disk: named numpy arrays, in the user's cache.

A file that is missing, damaged or of another version is as good as none: what it held is computed again. Archives of
numpy hold a checksum of each array and are read without unpickling anything.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minillm_kernels.compiler import cache_folder

VERSION = 1  # of what the arrays mean; part of every file's name
MAX_FILES = 32  # of one kind; the oldest go


def load(kind: str, key: str) -> dict[str, np.ndarray] | None:
    """The arrays that were saved under ``kind`` and ``key``; None if there are none that can be read."""
    try:
        with np.load(_path(kind, key), allow_pickle=False) as arrays:
            return dict(arrays.items())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def save(kind: str, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays for the next process. The last of several that save at once wins; a full disk does no harm."""
    _save(_path(kind, key), lambda made: np.savez(made, **arrays))


def load_bytes(kind: str, key: str) -> np.ndarray | None:
    """What :func:`save_bytes` has kept, uint8; None if there is nothing. Whoever wrote it checks what it holds."""
    try:
        return np.fromfile(_path(kind, key, "bin"), dtype=np.uint8)
    except (OSError, ValueError):
        return None


def save_bytes(kind: str, key: str, data: np.ndarray) -> None:
    """Keep a single uint8 array, as it stands."""
    _save(_path(kind, key, "bin"), data.tofile)


def _save(target: Path, write: Callable[[Path], None]) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / target.name
            write(made)
            os.replace(made, target)
        files = sorted(target.parent.glob(f"{target.name.split('-')[0]}-*"), key=lambda path: path.stat().st_mtime)
        for path in files[:-MAX_FILES]:
            path.unlink(missing_ok=True)
    except OSError:
        return


def _path(kind: str, key: str, ending: str = "npz") -> Path:
    return cache_folder("guided") / f"{kind}-{VERSION}-{key}.{ending}"

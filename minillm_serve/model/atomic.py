"""Files and folders that appear whole or not at all: staging, hashing, publishing, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from minillm_serve.model.store import ModelStoreError

CHUNK = 1 << 20
STAGING_PREFIX = ".partial-"
DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def clear_disk_errors(where: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below ``where`` into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ModelStoreError(
                f"the disk that holds {where} is full; free some space or set MINILLM_CACHE to a folder on another disk"
            ) from error
        if error.errno in NOT_WRITABLE:
            raise ModelStoreError(
                f"{error.filename or where} cannot be written; set MINILLM_CACHE to a folder of your own"
            ) from error
        raise ModelStoreError(f"writing below {where} failed: {error}") from error


def need_space(where: Path, wanted: int, purpose: str) -> None:
    """Refuse before the first byte when fewer than ``wanted`` bytes are free. Raises :class:`ModelStoreError`."""
    free = shutil.disk_usage(where).free
    if free < wanted:
        raise ModelStoreError(
            f"{purpose} needs {wanted / 1e6:.0f} MB but the disk that holds {where} has {free / 1e6:.0f} MB free; "
            "free some space or set MINILLM_CACHE to a folder on another disk"
        )


@contextlib.contextmanager
def exclusive_lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an advisory lock on ``path``; calls ``waiting()`` once if another process has it. Freed if we die."""
    with open(path, "a+b") as file:
        try:
            _lock(file, block=False)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise ModelStoreError(
                    f"{path} cannot be locked ({error}); set MINILLM_CACHE to a folder on a local disk"
                ) from error
            waiting()
            _lock(file, block=True)
        yield


if sys.platform == "win32":

    def _lock(file: BinaryIO, block: bool) -> None:
        import msvcrt
        import time

        file.seek(0)
        while True:
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                if not block:
                    raise
                time.sleep(0.5)

else:

    def _lock(file: BinaryIO, block: bool) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))


@contextlib.contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """A folder beside the final one (same disk: renaming is atomic), gone on every way out."""
    folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Delete what a killed process left behind. Only for the holder of the lock: no live staging folder exists."""
    for folder in parent.glob(STAGING_PREFIX + "*"):
        shutil.rmtree(folder, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_synced(path: Path, data: bytes | memoryview) -> dict[str, int | str]:
    """Write ``data`` through to the disk; returns its size and SHA-256 for the provenance record."""
    view = memoryview(data)
    with open(path, "wb") as file:
        for start in range(0, len(view), CHUNK):
            file.write(view[start : start + CHUNK])
        file.flush()
        os.fsync(file.fileno())
    return {"size": len(view), "sha256": hashlib.sha256(view).hexdigest()}


def publish(staged: Path, target: Path) -> None:
    """Give ``staged`` its final name. A file replaces in one step; an old folder is moved away first."""
    if not target.is_dir():
        os.replace(staged, target)
    else:
        with staging_folder(target.parent) as grave:
            os.replace(target, grave / "old")
            os.replace(staged, target)
    if sys.platform != "win32":
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

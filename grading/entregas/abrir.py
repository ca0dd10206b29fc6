"""The files inside a folder or a zip that someone else made. Each entry is read within limits, or refused by itself."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from minilab.entrega.lectura import MAX_BYTES
from minilab_grading.entregas.errores import IntakeError

MAX_ENTRIES = 20_000
MAX_TOTAL = 1 << 30
MAX_RATIO = 200
RATIO_FROM = 8 << 20
DAMAGE = (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error)
NOISE = re.compile(r"(^|/)(__MACOSX|\.(?!\.?(/|$))[^/]*)(/|$)|(^|/)(Thumbs\.db|desktop\.ini)$")


@dataclass(frozen=True)
class Entry:
    """One file: its path with ``/``, when it was written (UTC), and its bytes or why there are none."""

    path: str
    when: datetime
    data: bytes = b""
    problem: str = ""


class Refused(Exception):
    """Why one entry is not taken, in Spanish."""


class Budget:
    """Bytes that may still be unpacked, in all of one intake."""

    def __init__(self, total: int = MAX_TOTAL):
        self._left = total

    def take(self, size: int) -> None:
        if size > MAX_BYTES:
            raise Refused(f"pesa {size >> 20} MiB y el máximo es {MAX_BYTES >> 20}")
        if size > self._left:
            raise Refused(f"el conjunto desempaquetado pasa de {MAX_TOTAL >> 20} MiB")
        self._left -= size


def entries_of(path: Path, wanted: Callable[[str], bool], budget: Budget) -> Iterator[Entry]:
    """Every file of a folder or zip but for the litter of operating systems, sorted by path.

    Only where ``wanted`` says so of its path is a file read. A zip keeps local times without a zone: they are taken as
    UTC; an entry without a date has the zip's own. Raises :class:`IntakeError` where the whole cannot be opened.
    """
    if path.is_dir():
        yield from _folder(path, wanted, budget)
    elif zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield from zip_entries(file, wanted, budget, _modified(path.stat()))
    elif path.exists():
        raise IntakeError(
            f"{path.name} no es una carpeta ni un zip que se pueda abrir: usa el zip tal como se descargó."
        )
    else:
        raise IntakeError(f"No existe {path}.")


def zip_entries(file: io.BufferedIOBase, wanted: Callable, budget: Budget, default: datetime) -> Iterator[Entry]:
    """The entries of an open zip; ``default`` dates those without a date."""
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGE as error:
        raise IntakeError("El zip está dañado o cortado: descárgalo otra vez.") from error
    with archive:
        infos = archive.infolist()
        if len(infos) > MAX_ENTRIES:
            raise IntakeError(f"El zip tiene {len(infos)} entradas y el máximo es {MAX_ENTRIES}.")
        seen: set[str] = set()
        for info in sorted(infos, key=lambda info: (_readable(info), info.header_offset)):
            name = _readable(info)
            if name.endswith("/") or NOISE.search(name):
                continue
            entry = Entry(name, _date(info, default))
            try:
                _check_name(name, seen)
                _check_kind(info)
                data = _unpack(archive, info, budget) if wanted(name) else b""
                yield Entry(entry.path, entry.when, data)
            except Refused as refused:
                yield Entry(shown(name), entry.when, problem=str(refused))


def shown(name: str) -> str:
    """A file name as it may be printed."""
    return "".join(c if c.isprintable() else "�" for c in name)[:200]


def _readable(info: zipfile.ZipInfo) -> str:
    """The path in NFC with ``/``; UTF-8 that was not declared as such (macOS) is recognised."""
    name = info.filename
    if not info.flag_bits & 0x800:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = info.filename
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _check_name(name: str, seen: set[str]) -> None:
    parts = name.split("/")
    if not name.isprintable():
        raise Refused("el nombre lleva caracteres de control")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise Refused("la ruta es absoluta")
    if ".." in parts or "." in parts or "" in parts:
        raise Refused("la ruta sale de su carpeta")
    if len(name) > 1000:
        raise Refused("la ruta es demasiado larga")
    if name.casefold() in seen:
        raise Refused("otra entrada tiene el mismo nombre, o solo cambian las mayúsculas")
    seen.add(name.casefold())


def _check_kind(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise Refused("es un enlace simbólico")
    if kind not in (0, stat.S_IFREG):
        raise Refused("no es un archivo normal")
    if info.flag_bits & 0x1:
        raise Refused("está cifrada con contraseña")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused("usa una compresión que no se admite: vuelve a crear el zip")
    if info.file_size > RATIO_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise Refused("se expande demasiado al desempaquetar")


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> bytes:
    """The entry's bytes; zipfile never gives more than the declared size, which the budget has allowed."""
    budget.take(info.file_size)
    try:
        return archive.read(info)
    except (*DAMAGE, zlib.error, EOFError, RuntimeError) as error:
        raise Refused("está dañada") from error


def _date(info: zipfile.ZipInfo, default: datetime) -> datetime:
    try:
        when = datetime(*info.date_time, tzinfo=UTC)
    except ValueError:
        return default
    return default if when.year <= 1980 else when


def _folder(root: Path, wanted: Callable[[str], bool], budget: Budget) -> Iterator[Entry]:
    found: list[Path] = []
    for folder, names, files in os.walk(root, followlinks=False):
        found += [Path(folder, name) for name in files]
        found += [Path(folder, name) for name in names if Path(folder, name).is_symlink()]
        if len(found) > MAX_ENTRIES:
            raise IntakeError(f"La carpeta tiene más de {MAX_ENTRIES} archivos.")
    seen: set[str] = set()
    for file in sorted(found):
        name = unicodedata.normalize("NFC", os.fsencode(file.relative_to(root)).decode("utf-8", "replace"))
        if NOISE.search(name):
            continue
        status = file.lstat()
        when = _modified(status)
        try:
            _check_name(name, seen)
            if not stat.S_ISREG(status.st_mode):
                raise Refused("es un enlace simbólico" if stat.S_ISLNK(status.st_mode) else "no es un archivo normal")
            yield Entry(name, when, _read(file, budget) if wanted(name) else b"")
        except Refused as refused:
            yield Entry(shown(name), when, problem=str(refused))


def _read(file: Path, budget: Budget) -> bytes:
    """The bytes of a regular file, even where another is put in its place meanwhile."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            budget.take(size)
            return opened.read(size)
    except OSError as error:
        raise Refused(f"no se puede leer ({error.strerror})") from error


def _modified(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(int(status.st_mtime), UTC)

"""The course's secret and what is derived from it: seeds of hidden cases, their public ids, and signatures."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from pathlib import Path

from minilab_grading.curso import CycleError
from minilab_grading.registro.version import cases_version

SECRET_FILE = "secreto.txt"
SECRET_MIN = 32


def seed_of(root: Path, student: str, assignment: str, version: str | None = None) -> int:
    """Seed of a student's hidden cases: the same on every re-grade, different for each student and assignment.

    version: that of the cases; None for the present one. Raises :class:`CycleError` for a secret that is not one.
    """
    return int.from_bytes(_derive(root, "semilla", *_subject(student, assignment, version))[:8], "big")


def seed_id(root: Path, student: str, assignment: str, version: str | None = None) -> str:
    """Public name of that seed, 16 hex digits: tells two seeds apart and gives neither away."""
    return _derive(root, "semilla-publica", *_subject(student, assignment, version)).hex()[:16]


def signature(root: Path, data: bytes) -> str:
    """HMAC-SHA256 of ``data``, 64 hex digits, with a key that no seed shares."""
    return hmac.new(_derive(root, "firma"), data, hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two signatures in constant time, whatever characters a forged one has."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def make_secret(root: Path) -> Path:
    """Write the course's key, if it has none, for its owner alone; two processes that try at once agree on one."""
    path = root / SECRET_FILE
    if not path.exists():
        temporary = root / f".{SECRET_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            output.write(secrets.token_hex(32).encode() + b"\n")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    return path


def _subject(student: str, assignment: str, version: str | None) -> tuple[str, str, str]:
    return student, assignment, cases_version(assignment) if version is None else version


def _derive(root: Path, *purpose: str) -> bytes:
    """A key of its own for each purpose. The parts are a JSON list, so that no two lists read the same."""
    return hmac.new(_secret(root), json.dumps(["minilab", *purpose]).encode(), hashlib.sha256).digest()


def _secret(root: Path) -> bytes:
    path = make_secret(root)
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise CycleError(
            f"{SECRET_FILE} lo puede leer o cambiar cualquiera: con él se saben los casos ocultos y se falsifican "
            f"notas. Ejecuta: chmod 600 {path}"
        )
    secret = path.read_bytes().strip()
    if len(secret) < SECRET_MIN:
        raise CycleError(
            f"{SECRET_FILE} está dañado (tiene {len(secret)} caracteres; hacen falta {SECRET_MIN}). Recupéralo de una "
            "copia: con otro secreto cambian todos los casos ocultos y ninguna firma anterior vale."
        )
    return secret

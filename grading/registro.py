"""The record of a mark: what was graded, with which cases, how isolated, and the verdict of each check."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

SECRET_FILE = "secreto.txt"
SCHEMA = "minilab-nota/1"


def seed_of(root: Path, student: str, assignment: str) -> int:
    """Seed of a student's hidden cases: the same on every re-grade, different for each student and assignment."""
    key = _secret(root)
    return int.from_bytes(hmac.new(key, f"{student}|{assignment}".encode(), hashlib.sha256).digest()[:8], "big")


def _secret(root: Path) -> bytes:
    """The course's key, made on first use beside the gradebook, readable by its owner alone."""
    path = root / SECRET_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as output:
        output.write(secrets.token_hex(32).encode())
    return path.read_bytes()


def write_mark(
    folder: Path, data: dict[str, Any], fingerprint: str, isolation: str, checks: list[dict[str, Any]]
) -> Path:
    """Write ``nota.json`` beside the autograded notebook. Same submission and cases, same bytes."""
    mark = {
        "esquema": SCHEMA,
        "alumno": data["student"],
        "tarea": data["assignment"],
        "cuaderno": data["notebook"],
        "sha256_fuentes": fingerprint,
        "aislamiento": isolation,
        "pruebas": checks,
    }
    path = folder / "nota.json"
    path.write_text(json.dumps(mark, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path

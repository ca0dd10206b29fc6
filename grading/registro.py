"""The record of a mark: what was graded, with which cases, how isolated, and the verdict of each check."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

ARCHIVO_SECRETO = "secreto.txt"
ESQUEMA = "minilab-nota/1"


def semilla_de(raiz: Path, alumno: str, tarea: str) -> int:
    """Seed of a student's hidden cases: the same on every re-grade, different for each student and assignment."""
    clave = _secreto(raiz)
    return int.from_bytes(hmac.new(clave, f"{alumno}|{tarea}".encode(), hashlib.sha256).digest()[:8], "big")


def _secreto(raiz: Path) -> bytes:
    """The course's key, made on first use beside the gradebook, readable by its owner alone."""
    ruta = raiz / ARCHIVO_SECRETO
    try:
        descriptor = os.open(ruta, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return ruta.read_bytes()
    with os.fdopen(descriptor, "wb") as salida:
        salida.write(secrets.token_hex(32).encode())
    return ruta.read_bytes()


def escribe_nota(
    carpeta: Path, datos: dict[str, Any], huella: str, aislamiento: str, pruebas: list[dict[str, Any]]
) -> Path:
    """Write ``nota.json`` beside the autograded notebook. Same submission and cases, same bytes."""
    nota = {
        "esquema": ESQUEMA,
        "alumno": datos["student"],
        "tarea": datos["assignment"],
        "cuaderno": datos["notebook"],
        "sha256_fuentes": huella,
        "aislamiento": aislamiento,
        "pruebas": pruebas,
    }
    ruta = carpeta / "nota.json"
    ruta.write_text(json.dumps(nota, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return ruta

"""Our Triton kernels on a GPU, as recorded in ``reports/``: what lab 4 shows where there is no GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from minilab.comparar.archivos import read
from minilab.comparar.tarea import Unavailable
from minilab.vistas.cifras import cifra, porcentaje
from minilab.vistas.vista import Tabla

KERNELS, RUNS = "reports/gpu-h100-kernels.json", "reports/gpu-h100.json"
SPANISH = {
    "decode attention": "atención de decode",
    "prefill attention": "atención de prefill",
    "add_rms_norm": "sumar y normalizar",
    "SDPA, bf16, not paged": "SDPA, bf16, claves seguidas",
    "SDPA, one by one, not paged": "SDPA, de una en una, claves seguidas",
    "torch, 2 calls": "torch, dos llamadas",
}


@dataclass(frozen=True)
class Grabado:
    """A table with its origin: file, date, device and versions."""

    titulo: str
    tabla: Tabla
    origen: str

    def __repr__(self) -> str:
        return f"{self.titulo}\n{self.tabla}\n{self.origen}"

    def _repr_html_(self) -> str:
        return f"{self.tabla.html(self.titulo)}<p>{self.origen}</p>"


@dataclass(frozen=True)
class SinGrabar:
    """Said in the place of a table that cannot be shown."""

    motivo: str

    def __repr__(self) -> str:
        return f"No hay cifras grabadas: {self.motivo}."


def kernels_grabados(*operaciones: str, forma: str = "llama3-8b") -> Grabado | SinGrabar:
    """Each recorded case of these operations: microseconds beside the baseline's, and the share of the GPU's limit."""
    try:
        report = read(KERNELS)
    except Unavailable as error:
        return SinGrabar(str(error))
    chosen = [k for k in report["kernels"] if k["op"] in operaciones and k["shape"].startswith(forma)]
    rows = [
        (
            SPANISH.get(k["op"], k["op"]),
            _case(k["shape"].removeprefix(forma).strip()),
            SPANISH.get(k["baseline"], k["baseline"]),
            *_times(k),
            porcentaje(k["share_of_limit"]),
        )
        for k in chosen
    ]
    head = ("operación", "caso", "base", "nuestro kernel (µs)", "base (µs)", "base / nuestro", "del límite de la GPU")
    return Grabado(f"Kernels de Triton, forma de {forma}", Tabla(head, tuple(rows)), _origin(KERNELS, report))


def fusion_grabada(forma: str = "llama3-8b") -> Grabado | SinGrabar:
    """Addition and norm in one kernel beside two calls of torch, by number of rows."""
    found = kernels_grabados("add_rms_norm", forma=forma)
    return found if isinstance(found, SinGrabar) else Grabado("Sumar y normalizar, juntos", found.tabla, found.origen)


def lanzamientos_grabados() -> Grabado | SinGrabar:
    """The host's microseconds for each kernel of a step: decode steps replay a graph, steps with prompts have none."""
    try:
        report = read(RUNS)
    except Unavailable as error:
        return SinGrabar(str(error))
    names = {"single": "decode de una petición, con grafo", "prompts": "prompts, sin grafo"}
    rows = []
    for profile in report["profiles"]:
        if profile["steps"] in names:
            submit, launches = profile["host_us"]["submit"], profile["launches"]
            cells = (cifra(launches), cifra(submit), cifra(submit / launches, 1), cifra(profile["step_us"]))
            rows.append((f"{profile['shape']}: {names[profile['steps']]}", *cells))
    head = ("paso", "kernels", "CPU para mandarlo (µs)", "µs por kernel", "el paso entero (µs)")
    return Grabado("Qué cuesta lanzar los kernels de un paso", Tabla(head, tuple(rows)), _origin(RUNS, report))


def _case(shape: str) -> str:
    """«64 x 1024», «4096 tokens of 4» and «T=1» of the report, for the reader."""
    words = shape.replace(" x ", " × ").replace("tokens of", "tokens de")
    return re.sub(r"^T=(\d+)$", lambda rows: f"{rows[1]} fila{'' if rows[1] == '1' else 's'}", words)


def _times(kernel: dict[str, Any]) -> tuple[str, ...]:
    return (cifra(kernel["us"], 1), cifra(kernel["baseline_us"], 1), f"{cifra(kernel['ratio'], 2)}×")


def _origin(path: str, report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {report['versions'][name]}" for name in ("torch", "triton", "cuda"))
    command = "minillm bench gpu --kernels" if path == KERNELS else "minillm bench gpu"
    return f"Grabado: {path}, {report['date'][:10]}, {report['device']}, {versions}; orden: {command}."

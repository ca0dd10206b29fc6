"""Hardware limits (from ``gpus.json``) and model shapes, with the arithmetic that both planners share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ESCALA = 16 / 128
"""Bits that the scale of a group of 128 weights adds to each of them, where weights take 4 bits."""


@dataclass(frozen=True)
class Techo:
    """What a device can do at most: TFLOP/s in matrix products, GB/s (10^9 bytes) read from memory.

    medido: the same two, measured by us (None: not). memoria_gb: 0 where it does not matter. fuente: whose figures.
    """

    nombre: str
    tflops: float
    gb_s: float
    memoria_gb: float = 0.0
    medido: tuple[float, float] | None = None
    fuente: str = "tu medida"

    def __post_init__(self) -> None:
        if not (self.tflops > 0 and self.gb_s > 0):
            raise ValueError(f"{self.nombre}: los TFLOP/s y los GB/s deben ser mayores que 0")

    @property
    def cresta(self) -> float:
        """FLOP per byte from which arithmetic is the limit."""
        return self.tflops * 1e3 / self.gb_s

    def alcanzable(self, intensidad: float) -> float:
        """GFLOP/s at most with so many FLOP per byte."""
        return min(self.tflops * 1e3, intensidad * self.gb_s)


@cache
def _gpus() -> dict[str, Techo]:
    data = json.loads(Path(__file__).with_name("gpus.json").read_text(encoding="utf-8"))
    found = {}
    for entry in data["gpus"]:
        mine = entry.get("medido")
        found[entry["nombre"]] = Techo(
            entry["nombre"],
            entry["tflops"],
            entry["ancho_gb_s"],
            entry["memoria_gb"],
            (mine["tflops"], mine["ancho_gb_s"]) if mine else None,
            entry["fuente"],
        )
    return found


def fecha_gpus() -> str:
    """When the figures of ``gpus.json`` were gathered."""
    return str(json.loads(Path(__file__).with_name("gpus.json").read_text(encoding="utf-8"))["fecha"])


def gpus() -> tuple[str, ...]:
    """The names that :func:`gpu` knows."""
    return tuple(_gpus())


def gpu(nombre: str) -> Techo:
    """A GPU by name; raises ValueError, in Spanish, with the names there are."""
    if nombre not in _gpus():
        raise ValueError(f"no conozco la GPU {nombre!r}; hay: {', '.join(_gpus())}")
    return _gpus()[nombre]


@dataclass(frozen=True)
class FormaModelo:
    """A Llama-like decoder. atada: the output matrix is the embedding matrix."""

    nombre: str
    capas: int
    cabezas: int
    cabezas_kv: int
    dim_cabeza: int
    oculta: int
    intermedia: int
    vocabulario: int
    atada: bool = True

    @property
    def matrices(self) -> int:
        """Weights of the layers' matrices: q, k, v, o and the three of the MLP."""
        heads = 2 * self.cabezas + 2 * self.cabezas_kv
        return self.capas * self.oculta * (heads * self.dim_cabeza + 3 * self.intermedia)

    @property
    def salida(self) -> int:
        """Weights of the output matrix."""
        return self.vocabulario * self.oculta

    @property
    def parametros(self) -> int:
        """All of them, norms included."""
        norms = (2 * self.capas + 1) * self.oculta
        return self.matrices + norms + self.salida * (1 if self.atada else 2)

    def bytes_pesos(self, bits: int) -> float:
        """Memory of the weights. Below 16 bits only the layers' matrices shrink; 4 bits carry a scale per group."""
        rest = self.parametros - self.matrices
        width = bits + (ESCALA if bits == 4 else 0)
        return self.matrices * width / 8 + rest * max(bits, 16) / 8

    def bytes_kv_por_token(self, bits: int) -> float:
        """A key and a value per KV head and layer."""
        return 2 * self.capas * self.cabezas_kv * self.dim_cabeza * bits / 8

    def flop_token(self, contexto: float) -> float:
        """FLOP of one token that attends to ``contexto`` tokens: 2 per weight; 4 per head, dimension and token."""
        return 2 * (self.matrices + self.salida) + 4 * self.capas * self.cabezas * self.dim_cabeza * contexto


_MODELOS = (
    FormaModelo("SmolLM2 135M", 30, 9, 3, 64, 576, 1536, 49152),
    FormaModelo("Qwen3 0.6B", 28, 16, 8, 128, 1024, 3072, 151936),
    FormaModelo("Llama 3.2 1B", 16, 32, 8, 64, 2048, 8192, 128256),
    FormaModelo("Mistral 7B v0.3", 32, 32, 8, 128, 4096, 14336, 32768, atada=False),
    FormaModelo("Llama 3.1 8B", 32, 32, 8, 128, 4096, 14336, 128256, atada=False),
    FormaModelo("Llama 3.1 70B", 80, 64, 8, 128, 8192, 28672, 128256, atada=False),
)


def modelos() -> tuple[str, ...]:
    """The names that :func:`modelo` knows."""
    return tuple(forma.nombre for forma in _MODELOS)


def modelo(nombre: str | FormaModelo) -> FormaModelo:
    """A shape by name, or as it is; raises ValueError, in Spanish, with the names there are."""
    if isinstance(nombre, FormaModelo):
        return nombre
    for forma in _MODELOS:
        if forma.nombre == nombre:
            return forma
    raise ValueError(f"no conozco el modelo {nombre!r}; hay: {', '.join(modelos())}")

"""A stopwatch that warms up, waits for the device and says how far its readings lie apart."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Medida:
    """Seconds of each run, in order."""

    segundos: tuple[float, ...]

    @property
    def mediana(self) -> float:
        return statistics.median(self.segundos)

    @property
    def minimo(self) -> float:
        return min(self.segundos)

    @property
    def maximo(self) -> float:
        return max(self.segundos)

    @property
    def veces(self) -> int:
        return len(self.segundos)

    def __repr__(self) -> str:
        low, middle, high, unit = _in_one_unit(self.minimo, self.mediana, self.maximo)
        return f"{middle} {unit} ({low} a {high}; {self.veces} {'vez' if self.veces == 1 else 'veces'})"


def mide(funcion: Callable[[], Any], veces: int = 5, calienta: int = 1) -> Medida:
    """Time ``funcion()`` ``veces`` times after ``calienta`` runs that do not count. Raises ValueError for no runs.

    A GPU works on after a call returns: where torch uses one, each reading waits until it is done.
    """
    if veces < 1 or calienta < 0:
        raise ValueError(f"veces debe ser al menos 1 y calienta al menos 0; llegaron {veces} y {calienta}")
    for _ in range(calienta):
        funcion()
    readings = []
    for _ in range(veces):
        _synchronise()
        start = time.perf_counter()
        funcion()
        _synchronise()
        readings.append(time.perf_counter() - start)
    return Medida(tuple(readings))


def _synchronise() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _in_one_unit(*seconds: float) -> tuple[str, ...]:
    """Three figures each, in the unit that suits the largest; with a decimal comma."""
    scale, unit = next((s, u) for s, u in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if max(seconds) * s >= 1 or u == "µs")
    return (*(f"{value * scale:.3g}".replace(".", ",") for value in seconds), unit)

"""Pearson's chi-squared test of counts against exact probabilities, with small cells pooled. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_EXPECTED = 5.0  # below that the statistic is not chi-squared (Cochran 1954)
PRECISION = 1e-12


@dataclass(frozen=True)
class JiCuadrado:
    """p_valor: the chance of a statistic at least this large where the probabilities are right."""

    estadistico: float
    grados: int
    p_valor: float

    def __repr__(self) -> str:
        if self.grados == 0:
            return "salió un valor de probabilidad 0: no hay χ² que lo arregle (p-valor 0)"
        figure = f"{self.p_valor:.2g}" if self.p_valor >= 1e-9 else "menos de una milmillonésima"
        return f"χ² = {self.estadistico:.1f} con {self.grados} grados de libertad; p-valor {figure}".replace(".", ",")


def ji_cuadrado(cuentas: Sequence[int], probabilidades: Sequence[float]) -> JiCuadrado:
    """cuentas, probabilidades: one cell each; the latter sum to 1. A count where the probability is 0 is refuted for
    certain: p_valor 0. Raises ValueError for lengths that differ and where fewer than two cells are left."""
    if len(cuentas) != len(probabilidades):
        raise ValueError(f"hay {len(cuentas)} cuentas y {len(probabilidades)} probabilidades; debe haber las mismas")
    if any(seen and not chance for seen, chance in zip(cuentas, probabilidades, strict=True)):
        return JiCuadrado(math.inf, 0, 0.0)
    total = sum(cuentas)
    cells = sorted((chance * total, seen) for seen, chance in zip(cuentas, probabilidades, strict=True) if chance)
    while len(cells) > 1 and cells[0][0] < SMALLEST_EXPECTED:
        pooled = (cells[0][0] + cells[1][0], cells[0][1] + cells[1][1])
        cells = sorted([pooled, *cells[2:]])
    if len(cells) < 2:
        raise ValueError("queda una sola casilla: cuenta más tiradas")
    statistic = sum((seen - expected) ** 2 / expected for expected, seen in cells)
    return JiCuadrado(statistic, len(cells) - 1, upper_gamma((len(cells) - 1) / 2, statistic / 2))


def upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x), a > 0, x >= 0 (Numerical Recipes, section 6.2)."""
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        while term > total * PRECISION:
            a += 1
            term *= x / a
            total += term
        return max(0.0, 1 - total * scale)
    return scale * _continued_fraction(a, x)


def _continued_fraction(a: float, x: float) -> float:
    """Lentz's method for 1 / (x + 1 - a - 1(1 - a) / (x + 3 - a - ...)); x >= a + 1."""
    b = x + 1 - a
    c, d = math.inf, 1 / b
    value, change, i = d, 0.0, 0
    while abs(change - 1) > PRECISION:
        i += 1
        numerator = i * (a - i)
        b += 2
        d = 1 / (b + numerator * d)
        c = b + numerator / c
        change = c * d
        value *= change
    return value

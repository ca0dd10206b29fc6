"""Pearson's chi-squared test of counts against exact probabilities, with small cells pooled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

SMALLEST_EXPECTED = 5.0  # below that the statistic is not chi-squared (Cochran 1954)


@dataclass(frozen=True)
class ChiSquared:
    """p: the chance of a statistic at least this large where the probabilities are right."""

    statistic: float
    degrees: int
    p: float


def chi_squared(counts: NDArray[np.integer], probabilities: NDArray[np.floating]) -> ChiSquared:
    """counts, probabilities: one cell each, any shape; the latter sum to 1. A count where the probability is 0 is
    refuted for certain: p is 0. Raises ValueError where fewer than two cells are left after pooling."""
    counts, probabilities = np.ravel(counts), np.ravel(probabilities)
    if counts[probabilities == 0].any():
        return ChiSquared(float("inf"), 0, 0.0)
    order = np.argsort(probabilities, kind="stable")[np.count_nonzero(probabilities == 0) :]
    expected, seen = probabilities[order] * counts.sum(), counts[order]
    small = np.count_nonzero(expected < SMALLEST_EXPECTED)
    if small:
        pool = max(small, int((expected.cumsum() < SMALLEST_EXPECTED).sum()) + 1)
        expected = np.append(expected[pool:], expected[:pool].sum())
        seen = np.append(seen[pool:], seen[:pool].sum())
    degrees = len(expected) - 1
    if degrees < 1:
        raise ValueError("one cell is left: nothing to test; count more draws")
    statistic = float(((seen - expected) ** 2 / expected).sum())
    halves = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return ChiSquared(statistic, degrees, float(torch.special.gammaincc(halves[0], halves[1])))

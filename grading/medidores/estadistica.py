"""From pairs of timings to a credit: median, an interval that assumes nothing about the noise, and the ramp."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median

__all__ = ["LEAST_PAIRS", "MOST_PAIRS", "enough", "interval", "median", "ramp", "settled", "target_for"]

WANTED = 5.0
LEAST_PAIRS, MOST_PAIRS = 9, 15
KNEE, KNEE_CREDIT = 0.6, 0.6  # at 60 % of the target (3x of 5x) 60 % of the points are won
CEILING_SHARE = 0.8
CONFIDENCE = 0.90
CALM = 1.25


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Order statistics around the median: the narrowest symmetric pair that covers it with at least 90 %.

    Distribution-free, by the binomial law of how many values lie below the median; with 9 values the 2nd and the 8th
    (96 %), with 15 the 4th and the 12th (96 %). Fewer than 5 values cannot give 90 %: the smallest and the largest.
    """
    if not values:
        raise ValueError("there is no interval of no values")
    ordered, count = sorted(values), len(values)
    rank, missed = 1, 2 / 2**count
    while 2 * (rank + 1) <= count and missed + 2 * comb(count, rank) / 2**count <= 1 - CONFIDENCE:
        missed += 2 * comb(count, rank) / 2**count
        rank += 1
    return ordered[rank - 1], ordered[count - rank]


def enough(ratios: Sequence[float], target: float, least: int = LEAST_PAIRS, most: int = MOST_PAIRS) -> bool:
    """Whether to stop: never before ``least`` pairs, always at ``most``, else once the interval leaves no doubt."""
    if len(ratios) < least:
        return False
    low, high = interval(ratios)
    return len(ratios) >= most or not low < target <= high


def settled(ratios: Sequence[float]) -> bool:
    """Whether the machine is calm enough to say what it can do: the interval spans less than a quarter."""
    low, high = interval(ratios)
    return high <= CALM * low


def target_for(ceiling: float | None) -> float:
    """The ratio that earns full credit: 5, or 80 % of what the reference reaches on a machine where that is less."""
    return WANTED if ceiling is None else min(WANTED, CEILING_SHARE * ceiling)


def ramp(ratio: float, target: float = WANTED) -> float:
    """Credit in [0, 1]: 0 up to 1x, 60 % at 60 % of the target, 100 % from the target on, straight lines between.

    Raises ValueError for a target so low that its knee would lie at 1x or below.
    """
    knee = KNEE * target
    if knee <= 1:
        raise ValueError(f"a target of {target:.2f} cannot tell a scheduler from none")
    if ratio >= target:
        return 1.0
    if ratio >= knee:
        return KNEE_CREDIT + (1 - KNEE_CREDIT) * (ratio - knee) / (target - knee)
    return KNEE_CREDIT * max(0.0, ratio - 1) / (knee - 1)

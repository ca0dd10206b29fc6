"""Sets as the bits of a number, and sums over the rest of a list."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate


def bits(number: int) -> Iterator[int]:
    """The places of the bits that are set."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def sums_from(numbers: list[int]) -> list[int]:
    """[len + 1] the sum of the numbers from each place on."""
    return [*accumulate(reversed(numbers), initial=0)][::-1]

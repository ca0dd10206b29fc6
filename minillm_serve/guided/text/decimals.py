"""Decimal texts of numbers inside ranges, as one finite automaton built digit by digit.

Two sets are spelled out at once: integers (``-12``) and numbers with a point or an exponent (``-12.5``, ``1e-5``). A
prefix of digits is *tight* while some end of a range may still begin with it; from any other prefix it only depends on
how many digits follow whether a number is inside, so a bit mask of those counts is the whole state. Hence there are
about as many states as the ends of the ranges have digits, plus one for each digit that a number may have.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from minillm_serve.guided.budget import spend
from minillm_serve.guided.text.dfa import Dfa

MAX_DIGITS = 64  # of an integer part; keeps every text far from the overflow of a double and of int()
MAX_FRACTION = 32
MAX_ZEROS = 8  # digits 0 that may follow the point in a number that is an end of its range
MAX_EXPONENT = 307  # with one digit before the point: still a finite double
MAX_FREE_EXPONENT = MAX_EXPONENT - MAX_DIGITS  # with MAX_DIGITS before the point
MAX_EXACT_DIGITS = 15  # an integer of so many digits survives the way through a double
DIGITS = b"0123456789"
SYMBOLS = frozenset(b"0123456789-+.eE")
_SCALE = 10**MAX_FRACTION

Ranges = tuple[tuple[int, int | None], ...]  # non-negative, ascending; only the last may be without an end
Block = tuple[tuple[int, int], ...]  # ranges between two powers of ten, counted from the lower one on
Whole = tuple[int | None, int | None]  # all integers from .. to, ends included; None: unbounded
Real = tuple[Decimal | None, Decimal | None]  # likewise all numbers


@dataclass(frozen=True, eq=False)
class Side:
    """One sign's numbers as magnitudes. A high end None means MAX_DIGITS digits.

    wholes: integers. units: integers n for which a point and more may follow n, whatever the digits. reals: numbers
    with a point, times 10^MAX_FRACTION. exponents: which decades are inside; free: whatever is before the ``e``.
    """

    wholes: Ranges
    units: Ranges
    reals: Ranges
    exponents: tuple[tuple[int, int], ...]
    free: bool
    tight: frozenset[int]


def ranges_dfa(wholes: list[Whole], reals: list[Real], point_zero: bool = False, keyword: str = "type") -> Dfa | None:
    """Integers in one of ``wholes``, numbers with a point or an exponent in one of ``reals``; None if there are none.

    The ranges of a list are ascending and do not meet. point_zero: an integer n may be written ``n.0``, for which
    ``reals`` must be empty. keyword: what to blame if there are too many ranges. Every state leads to an end.
    """
    spend(20 * (len(wholes) + len(reals)), keyword)
    build = _Build(point_zero, keyword)
    positive = _side(wholes, reals, point_zero)
    negative = _side(
        [_mirrored(r) for r in reversed(wholes)], [_mirrored(r) for r in reversed(reals)], point_zero, True
    )
    start = build.state(("start", positive, negative))
    build.run()
    return build.dfa if build.dfa.edges[start] else None


def _mirrored(ends: tuple) -> tuple:
    low, high = ends
    return (None if high is None else -high, None if low is None else -low)


def _side(wholes: list[Whole], reals: list[Real], point_zero: bool, negative: bool = False) -> Side:
    """The non-negative part; of the mirrored ranges only those that reach below zero (0 itself needs no sign)."""

    def kept(ends: tuple) -> bool:
        high = ends[1]
        return high is None or (high > 0 if negative else high >= 0)

    whole = _writable([(max(low or 0, 0), high) for low, high in wholes if kept((low, high))], 10**MAX_DIGITS)
    real = [(Decimal(0) if low is None or low < 0 else low, high) for low, high in reals if kept((low, high))]
    scaled = [(_scaled(low, up=True), None if high is None else _scaled(high, up=False)) for low, high in real]
    scaled = _writable(scaled, 10**MAX_DIGITS * _SCALE)
    if point_zero:
        units = _writable(whole, 10**MAX_EXACT_DIGITS)
    else:
        units = [(-(-a // _SCALE), None if b is None else (b + 1) // _SCALE - 1) for a, b in scaled]
        units = [(a, b) for a, b in units if b is None or a <= b]
    ends = [end for a, b in (*whole, *units) for end in (a, b) if end is not None]
    ends += [end // _SCALE for a, b in scaled for end in (a, b) if end is not None]
    huge = MAX_DIGITS + MAX_FREE_EXPONENT
    free = any(low == 0 and (high is None or high.adjusted() >= huge) for low, high in real)
    exponents = tuple(_decades(real, MAX_FREE_EXPONENT if free else MAX_EXPONENT))
    return Side(tuple(whole), tuple(units), tuple(scaled), exponents, free, frozenset(_prefixes(ends)))


def _writable(ranges: list[tuple[int, int | None]], limit: int) -> list[tuple[int, int | None]]:
    """Without empty ranges and what lies beyond ``limit``; an end beyond it is as good as none."""
    kept = [(a, None if b is None or b >= limit - 1 else b) for a, b in ranges if a < limit]
    return [(a, b) for a, b in kept if b is None or a <= b]


def _scaled(value: Decimal, up: bool) -> int:
    """value * 10^MAX_FRACTION, rounded up or down to an integer; exact arithmetic."""
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    shift = int(exponent) + MAX_FRACTION
    if shift >= 0:
        return number * 10**shift
    return -(-number // 10**-shift) if up else number // 10**-shift


def _decades(reals: list[Real], most: int) -> Iterator[tuple[int, int]]:
    """The exponents e for which all of 10^e up to 10^(e+1) lies in one of the ranges."""
    for low, high in reals:
        first = -most
        if low:
            first = low.adjusted() + (low != Decimal(1).scaleb(low.adjusted()))  # type: ignore[union-attr]
        last = most if high is None else high.adjusted() - 1 if high else -most - 1
        if max(first, -most) <= min(last, most):
            yield max(first, -most), min(last, most)


def _prefixes(ends: list[int]) -> Iterator[int]:
    for end in ends:
        while end:
            yield end
            end //= 10


def _counts(prefix: int, digits: int, ranges: Ranges, most: int = MAX_DIGITS) -> int:
    """Bit r: the integers made of ``prefix`` (not tight, not 0) and r more digits are in one of the ranges."""
    mask = 0
    if len(ranges) > 2:
        first, last = ranges[-1]
        longest = len(str(first if last is None else last))  # beyond so many digits all numbers are alike
        for more in range(min(longest, most) - digits + 1):
            mask |= (_clipped(ranges, prefix * 10**more, prefix * 10**more) != ()) << more
        ranges = ((first, last),) if last is None else ()
    for low, high in ranges:
        first, last = 0, most - digits
        if low:
            length = len(str(low)) - digits
            first = max(0, length if length < 0 or prefix > low // 10**length else length + 1)
        if high is not None:
            length = len(str(high)) - digits
            last = length if length < 0 or prefix < high // 10**length else length - 1
        if first <= last:
            mask |= (1 << last + 1) - (1 << first)
    return mask


def _clipped(ranges: Ranges, low: int, high: int) -> Block:
    """What of the ranges lies between ``low`` and ``high``, counted from ``low`` on."""
    found = []
    for number in range(max(0, bisect_right(ranges, (low,)) - 1), len(ranges)):
        first, last = ranges[number]
        if first > high:
            break
        if last is None or last >= low:
            found.append((max(first - low, 0), high - low if last is None or last > high else last - low))
    return tuple(found)


class _Build:
    """States by what they mean; each kind of meaning has a method that gives (its edges, may it end)."""

    def __init__(self, point_zero: bool, keyword: str):
        self.point_zero, self.keyword = point_zero, keyword
        self.dfa = Dfa()
        self.numbers: dict[tuple, int] = {}
        self.queue: list[tuple] = []

    def state(self, meaning: tuple) -> int:
        number = self.numbers.get(meaning)
        if number is None:
            number = self.numbers[meaning] = len(self.queue)
            self.queue.append(meaning)
            if number:
                self.dfa.edges.append({})
        return number

    def run(self) -> None:
        edges, finals = self.dfa.edges, self.dfa.finals
        for number, (kind, *rest) in enumerate(self.queue):  # the queue grows on the way
            spend(8, self.keyword)
            edges[number], final = getattr(self, f"_{kind}")(*rest)
            if final:
                finals[number] = 0

    # -- before the point --------------------------------------------------------------------------------------------

    def _start(self, positive: Side, negative: Side) -> tuple[dict[int, int], bool]:
        row = self._more_digits(positive, 0, 0)
        if self._more_digits(negative, 0, 0):
            row[ord("-")] = self.state(("minus", negative))
        return row, False

    def _minus(self, side: Side) -> tuple[dict[int, int], bool]:
        return self._more_digits(side, 0, 0), False

    def _tight(self, side: Side, value: int, digits: int) -> tuple[dict[int, int], bool]:
        row = self._more_digits(side, value, digits) if value else {}
        if self.point_zero:
            dot = ("zero",) if digits <= MAX_EXACT_DIGITS and _clipped(side.units, value, value) else None
        else:
            block = _clipped(side.reals, value * _SCALE, (value + 1) * _SCALE - 1)
            dot = self._fraction(0, block, self._exponents(side, value, digits))
        self._add_tail(row, dot, self._exponents(side, value, digits))
        return row, _clipped(side.wholes, value, value) != ()

    def _more_digits(self, side: Side, value: int, digits: int) -> dict[int, int]:
        row: dict[int, int] = {}
        if digits == MAX_DIGITS:
            return row
        target = -1  # of the digit before, while that one is not tight: its neighbours count alike
        for digit in range(10):
            extended = 10 * value + digit
            if extended == 0:
                if _clipped(side.wholes, 0, 0) or _clipped(side.reals, 0, _SCALE - 1):
                    row[ord("0")] = self.state(("tight", side, 0, 1))
                continue
            if extended in side.tight:
                row[DIGITS[digit]] = self.state(("tight", side, extended, digits + 1))
                target = -1
                continue
            if target < 0:
                target = self._counted(side, extended, digits + 1)
            if target:
                row[DIGITS[digit]] = target
        return row

    def _counted(self, side: Side, value: int, digits: int) -> int:
        """The state of a prefix that is not tight; 0 (the start, to which nothing leads) when there is none."""
        wholes = _counts(value, digits, side.wholes)
        units = _counts(value, digits, side.units, MAX_EXACT_DIGITS if self.point_zero else MAX_DIGITS)
        exponents = self._exponents(side, value, digits)
        return self.state(("counts", wholes, units, exponents, side.free)) if wholes or units or exponents else 0

    def _counts(self, wholes: int, units: int, exponents: tuple, free: bool) -> tuple[dict[int, int], bool]:
        row: dict[int, int] = {}
        if wholes > 1 or units > 1:
            rest = ("counts", wholes >> 1, units >> 1, exponents if free else (), free)
            row = dict.fromkeys(DIGITS, self.state(rest))
        if self.point_zero:
            dot = ("zero",) if units & 1 else None
        else:
            dot = ("free", 0, exponents) if units & 1 else ("mantissa", 0, exponents) if exponents else None
        self._add_tail(row, dot, exponents)
        return row, bool(wholes & 1)

    def _exponents(self, side: Side, value: int, digits: int) -> tuple[tuple[int, int], ...]:
        """Which exponents may follow: those of ``d.ddd`` with d > 0, or all after anything."""
        return side.exponents if side.free or (digits == 1 and value) else ()

    def _add_tail(self, row: dict[int, int], dot: tuple | None, exponents: tuple) -> None:
        if dot is not None:
            row[ord(".")] = self.state(dot)
        if exponents:
            row[ord("e")] = row[ord("E")] = self.state(("exponent", exponents))

    # -- behind the point --------------------------------------------------------------------------------------------

    def _zero(self) -> tuple[dict[int, int], bool]:
        return {ord("0"): self.state(("end",))}, False

    def _end(self) -> tuple[dict[int, int], bool]:
        return {}, True

    def _fraction(self, read: int, block: Block, exponents: tuple) -> tuple | None:
        """The state after ``read`` digits of a fraction, of which what follows must end in ``block``."""
        if not block:
            return ("mantissa", read, exponents) if exponents else None
        if block == ((0, 10 ** (MAX_FRACTION - read) - 1),):
            return ("free", read, exponents)
        return ("zeros", read, exponents) if block == ((0, 0),) else ("bound", read, block, exponents)

    def _free(self, read: int, exponents: tuple) -> tuple[dict[int, int], bool]:
        return self._row(("free", read + 1, exponents), read, exponents), read > 0

    def _mantissa(self, read: int, exponents: tuple) -> tuple[dict[int, int], bool]:
        return self._row(("mantissa", read + 1, exponents), read, exponents), False

    def _zeros(self, read: int, exponents: tuple) -> tuple[dict[int, int], bool]:
        row = self._row(("mantissa", read + 1, exponents), read, exponents) if exponents else {}
        if read < MAX_ZEROS:
            row[ord("0")] = self.state(("zeros", read + 1, exponents))
        return row, read > 0

    def _bound(self, read: int, block: Block, exponents: tuple) -> tuple[dict[int, int], bool]:
        row: dict[int, int] = {}
        unit = 10 ** (MAX_FRACTION - read - 1)
        for digit in range(10):
            target = self._fraction(read + 1, _clipped(block, digit * unit, (digit + 1) * unit - 1), exponents)
            if target is not None:
                row[DIGITS[digit]] = self.state(target)
        if read:
            self._add_tail(row, None, exponents)
        return row, read > 0 and block[0][0] == 0

    def _row(self, following: tuple, read: int, exponents: tuple) -> dict[int, int]:
        row = dict.fromkeys(DIGITS, self.state(following)) if read < MAX_FRACTION else {}
        if read:
            self._add_tail(row, None, exponents)
        return row

    # -- exponents ---------------------------------------------------------------------------------------------------

    def _exponent(self, exponents: tuple[tuple[int, int], ...]) -> tuple[dict[int, int], bool]:
        up = tuple((max(low, 0), high) for low, high in exponents if high >= 0)
        down = tuple((max(-high, 0), -low) for low, high in reversed(exponents) if low < 0)
        row: dict[int, int] = {}
        if up:
            row = self._power(0, 0, up)[0]
            row[ord("+")] = self.state(("power", 0, 0, up))
        if down:
            row[ord("-")] = self.state(("power", 0, 0, down))
        return row, False

    def _power(self, value: int, digits: int, ranges: tuple) -> tuple[dict[int, int], bool]:
        row: dict[int, int] = {}
        for digit in range(10):
            extended, mask, mixed = 10 * value + digit, 0, False
            for more in range(3 - digits):
                block = _clipped(ranges, extended * 10**more, (extended + 1) * 10**more - 1)
                whole = block == ((0, 10**more - 1),)
                mixed |= not whole and block != ()
                mask |= whole << more
            if mixed:
                row[DIGITS[digit]] = self.state(("power", extended, digits + 1, ranges))
            elif mask:
                row[DIGITS[digit]] = self.state(("steps", mask))
        return row, digits > 0 and _clipped(ranges, value, value) != ()

    def _steps(self, mask: int) -> tuple[dict[int, int], bool]:
        return (dict.fromkeys(DIGITS, self.state(("steps", mask >> 1))) if mask > 1 else {}), bool(mask & 1)

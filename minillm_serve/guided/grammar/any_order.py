"""Objects whose declared properties may come in any order, between other names or not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from minillm_serve.guided.grammar.bits import bits
from minillm_serve.guided.grammar.objects import ObjectRule, Progress


class AnyOrderRule(ObjectRule):
    """Like :class:`ObjectRule`; a place means nothing (it is always 0), and ``Progress.present`` tells what was there.

    The leaf of names itself keeps track of those of which nothing else depends, so that states stay few.
    """

    unique_names = True
    place_of_further = 0  # type: ignore[assignment]

    def place_after(self, number: int) -> int:
        return 0

    def block_end(self, place: int) -> int:
        return len(self.names)

    @cached_property
    def tracked(self) -> int:
        everything = (1 << len(self.names)) - 1
        if self.most is not None or self.requires or self.counts:
            return everything
        twice = (number for number, name in enumerate(self.names) if len(self.build.alphabet.spellings(name)) > 1)
        return self.required_set | sum(1 << number for number in twice)

    def is_certain(self, number: int) -> bool:
        return False  # required properties are among the missing ones

    @cached_property
    def is_simple(self) -> bool:
        return False

    @cached_property
    def finite(self) -> int | None:
        """How many members there can be at most; None: more than any text has room for."""
        room = self.further.room()
        return None if room is None else sum(self.possible) + room

    def counted(self, count: int) -> int:
        return count if self.most is not None or self.finite is not None else min(count, self.least)

    def missing(self, place: int, progress: Progress) -> int:
        """The set of all properties that must still come, the required ones too."""
        found = self.required_set
        for key in bits(progress.present & self.keys):
            found |= self.requires[key]
        return found & ~progress.present

    def fits(self, place: int, progress: Progress) -> bool:
        if self.most is None:
            return True
        certain = progress.count + self.missing(place, progress).bit_count() + progress.open.bit_count()
        return certain <= self.most

    def stop(self, place: int, progress: Progress) -> int:
        return len(self.names)

    def must_go_on(self, place: int, progress: Progress) -> bool:
        return bool(self.missing(place, progress))

    def choices(self, place: int, end: int, progress: Progress) -> Iterator[tuple[int, Progress]]:
        for number in range(len(self.names)):
            if self.possible[number] and not progress.present >> number & 1:
                after = self.after(number, progress)
                if self.fits(0, after):
                    yield number, after

    def further_tags(self, place: int, progress: Progress) -> list[int]:
        return self.fitting_tags(progress)

    def goes_on(self, place: int, progress: Progress) -> bool:
        if self.finite is not None and progress.count >= self.finite:
            return False
        return super().goes_on(place, progress)

"""Objects: which members may come next, and the places between them.

By default the declared properties come in their order, each at most once because the place in that order moves on;
names that are not declared come last. What else must be remembered stands in :class:`Progress`. A choice is offered
only if the object can still be completed after it (:meth:`ObjectRule.fits`), so there are no dead ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from minillm_serve.guided.budget import spend
from minillm_serve.guided.grammar.bits import bits, sums_from
from minillm_serve.guided.grammar.further import Further
from minillm_serve.guided.grammar.member_places import BLOCK, Keys
from minillm_serve.guided.grammar.network import Network
from minillm_serve.guided.grammar.object_rest import ObjectRest
from minillm_serve.guided.grammar.values import IMPOSSIBLE, Value
from minillm_serve.guided.schema.nodes import ObjectSchema

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.builder import Builder


class Progress(NamedTuple):
    """What an object's members so far mean for the next ones, as far as it matters.

    count: members. further: undeclared ones, where there are only so many names. present: a bit for each declared
    property that others depend on or that depends on others. open: a bit for each witness not found yet.
    """

    count: int = 0
    further: int = 0
    present: int = 0
    open: int = 0


START = Progress()


class ObjectRule:
    """One object schema. ``values[i]`` is what property ``names[i]`` must be; place i: properties before i are over."""

    unique_names = False  # must the leaf of declared names make sure that none is written twice?

    def __init__(self, schema: ObjectSchema, path: str, build: Builder):
        self.path, self.build = path, build
        self._texts: dict[int, tuple[bytes, ...]] = {}
        self.height = IMPOSSIBLE
        properties = build.declared(schema)
        self.names = list(properties)
        plain = build.alphabet.is_whole
        self.values = [
            build.value(node) if plain or build.alphabet.spellings(name) else build.never
            for name, node in properties.items()
        ]
        self.further = Further(schema, properties, build)
        self.requires = self._closures(schema)
        self.required = schema.required
        if self.requires and schema.required:
            needed = [self.requires.get(self.numbers[name], 0) for name in schema.required]
            self.required = schema.required.union(self.names[i] for others in needed for i in bits(others))
        self.least = schema.min_properties if schema.min_properties > len(self.required) else 0
        self.most = schema.max_properties
        self.start = START._replace(open=(1 << len(schema.witnesses)) - 1) if schema.witnesses else START

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def _closures(self, schema: ObjectSchema) -> dict[int, int]:
        """For each property that others must come with: the set of all of these, also those that they need in turn."""
        direct = {
            self.numbers[name]: [self.numbers[other] for other in others]
            for name, others in schema.dependents.items()
            if others - {name}
        }
        found: dict[int, int] = {}
        for name in direct:
            found[name] = closure(name, direct, self.path) & ~(1 << name)
        return found

    @cached_property
    def required_set(self) -> int:
        return sum(1 << self.numbers[name] for name in self.required)

    @cached_property
    def keys(self) -> int:
        """The set of properties that others must come with."""
        return sum(1 << number for number in self.requires)

    # -- heights -------------------------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> bool:
        """Does the number of members matter beyond what is required?"""
        return self.least > len(self.required)

    def needed(self) -> list[Value]:
        if self.counts or self.start.open:
            return self.children()
        return [value for name, value in zip(self.names, self.values, strict=True) if name in self.required]

    def children(self) -> list[Value]:
        return [*self.values, *self.further.values]

    def closes_with(self, height: int) -> bool:
        if self.most is not None and max(self.least, len(self.required) + self.start.open.bit_count()) > self.most:
            return False
        spare = len(self.required)
        for number, (name, value) in enumerate(zip(self.names, self.values, strict=True)):
            if name in self.required:
                if value.height > height:
                    return False
            elif value.height <= height and number not in self.requires:
                spare += 1
        if not all(self.further.finds(witness, height) for witness in bits(self.start.open)):
            return False
        if not self.counts:
            return True
        room = self.further.room(height)
        return room is None or spare + room >= self.least

    # -- what may come next --------------------------------------------------------------------------------------

    @cached_property
    def possible(self) -> list[bool]:
        """[properties] can it be present?"""
        known = [value.height < IMPOSSIBLE for value in self.values]
        unknown = sum(1 << number for number, ok in enumerate(known) if not ok) if self.requires else 0
        return [ok and not self.requires.get(place, 0) & unknown for place, ok in enumerate(known)]

    @cached_property
    def next_required(self) -> list[int]:
        """[places] the first required property from there on; the number of properties if there is none."""
        return self._next([name in self.required for name in self.names])

    @cached_property
    def next_possible(self) -> list[int]:
        return self._next(self.possible)

    def _next(self, flags: list[bool]) -> list[int]:
        found = [len(flags)]
        for place in reversed(range(len(flags))):
            found.append(place if flags[place] else found[-1])
        return found[::-1]

    def is_certain(self, number: int) -> bool:
        """Does the place alone say whether property ``number`` must still come?"""
        return self.names[number] in self.required

    @cached_property
    def required_from(self) -> list[int]:
        """[places] how many required properties are still to come."""
        return sums_from([int(self.is_certain(number)) for number in range(len(self.names))])

    @cached_property
    def spare_from(self) -> list[int]:
        """[places] how many other properties may still come whatever else does."""
        return sums_from(
            [
                int(ok and name not in self.required and place not in self.requires)
                for place, (ok, name) in enumerate(zip(self.possible, self.names, strict=True))
            ]
        )

    @cached_property
    def is_simple(self) -> bool:
        """Is a place in the order of the properties all there is to know?"""
        return (
            not self.counts
            and not self.requires
            and not self.start.open
            and self.most is None
            and self.further.room() in (None, 0)
        )

    @cached_property
    def tracked(self) -> int:
        """The set of properties of which Progress.present tells whether they were there."""
        found = self.keys
        for others in self.requires.values():
            found |= others
        return found

    def missing(self, place: int, progress: Progress) -> int:
        """The set of properties that must still come because of others, beyond the required ones."""
        found = 0
        for key in bits(progress.present & self.keys):
            found |= self.requires[key]
        return found & ~progress.present & ~(self.required_set >> place << place) if found else 0

    def fits(self, place: int, progress: Progress) -> bool:
        """Can the object be completed from here on?"""
        if self.is_simple:
            return True
        missing = self.missing(place, progress)
        if missing & ((1 << place) - 1):
            return False
        certain = progress.count + self.required_from[place] + missing.bit_count() + progress.open.bit_count()
        if self.most is not None and certain > self.most:
            return False
        if certain >= self.least:
            return True
        room = self.further.room()
        spare = self.spare_from[place] - (missing & ~self.keys).bit_count()
        return room is None or certain + spare + room - progress.further >= self.least

    def stop(self, place: int, progress: Progress) -> int:
        """One past the last property that may come next."""
        missing = self.missing(place, progress)
        first = self.next_required[place]
        if missing:
            first = min(first, (missing & -missing).bit_length() - 1)
        return min(first + 1, len(self.names))

    def must_go_on(self, place: int, progress: Progress) -> bool:
        """Are properties still to come, so that neither other names nor the end may?"""
        return self.next_required[place] < len(self.names) or bool(self.missing(place, progress))

    def choices(self, place: int, end: int, progress: Progress) -> Iterator[tuple[int, Progress]]:
        """(property, progress after it) for those before ``end`` that may come next."""
        possible = self.possible
        if self.is_simple:
            yield from ((number, progress) for number in range(place, end) if possible[number])
            return
        for number in range(place, end):
            if possible[number]:
                after = self.after(number, progress)
                if self.fits(number + 1, after):
                    yield number, after

    def after(self, number: int, progress: Progress) -> Progress:
        """The progress when property ``number`` is there too."""
        return progress._replace(
            count=self.counted(progress.count + 1), present=progress.present | (self.tracked & 1 << number)
        )

    def counted(self, count: int) -> int:
        return min(count, self.least) if self.most is None else count

    def variants(self, tag: int, progress: Progress) -> Iterator[tuple[Value, Progress]]:
        """(value, progress after it) for a further name of kind ``tag``: the witnesses it may be, and none of them."""
        if self.is_simple:
            yield self.further.kinds[tag].value, progress
            return
        room = self.further.room()
        after = progress._replace(
            count=self.counted(progress.count + 1), further=0 if room is None else progress.further + 1
        )
        if room is not None and after.further > room:
            return
        for value, found in self.further.kinds[tag].ways(progress.open):
            left = after._replace(open=after.open & ~found)
            if value.height < IMPOSSIBLE and self.fits(self.place_of_further, left):
                yield value, left

    def further_tags(self, place: int, progress: Progress) -> list[int]:
        """The kinds of further names that may come next."""
        if self.must_go_on(place, progress):
            return []
        return self.further.tags if self.is_simple else self.fitting_tags(progress)

    def fitting_tags(self, progress: Progress) -> list[int]:
        """The kinds of further names after which the object can still be completed."""
        return [tag for tag in self.further.tags if any(True for _ in self.variants(tag, progress))]

    def goes_on(self, place: int, progress: Progress) -> bool:
        """May another member come?"""
        if self.is_simple:
            return self.next_possible[place] < len(self.names) or bool(self.further.tags)
        end = self.stop(place, progress)
        return any(True for _ in self.choices(place, end, progress)) or bool(self.further_tags(place, progress))

    def may_close(self, place: int, progress: Progress) -> bool:
        return not self.must_go_on(place, progress) and progress.count >= self.least and not progress.open

    # -- the network ---------------------------------------------------------------------------------------------

    @cached_property
    def is_deep(self) -> bool:
        return self.build.is_deep(self)

    @cached_property
    def rest(self) -> ObjectRest:
        return ObjectRest(self)

    def least_cost(self) -> int:
        return 1 + self.rest.first_cost()

    def name_texts(self, number: int) -> tuple[bytes, ...]:
        """How the name of a property may be written, with the colon if that is always the same."""
        found = self._texts.get(number)
        if found is None:
            texts = self.build.alphabet.spellings(self.names[number])
            ends = self.build.marks.key_ends if self.ends_with_colon else (b"",)
            found = self._texts[number] = tuple(text + end for text in texts for end in ends)
        return found

    @property
    def ends_with_colon(self) -> bool:
        return bool(self.build.marks.key_ends) and not self.unique_names

    def block_end(self, place: int) -> int:
        """Where the leaf of names that begins at ``place`` ends."""
        return (place // BLOCK + 1) * BLOCK

    def place_after(self, number: int) -> int:
        """The place behind property ``number``."""
        return number + 1

    @property
    def place_of_further(self) -> int:
        """The place behind a name that is not declared."""
        return len(self.names)

    def entry(self, network: Network) -> tuple[int, int]:
        return self.build.marks.open(b"{"), network.state(Keys(self, 0, self.start, first=True))

    def describe(self, place: int) -> str:
        where = f'after "{self.names[place - 1]}"' if 0 < place <= len(self.names) else "at its beginning"
        return f"object {self.path or '/'}, {where}"


def closure(start: int, direct: dict[int, list[int]], path: str) -> int:
    """The set of everything that ``start`` leads to."""
    found, stack = 1 << start, [start]
    while stack:
        others = direct.get(stack.pop(), ())
        spend(2 + len(others), "dependentRequired", path)
        for other in others:
            if not found >> other & 1:
                found |= 1 << other
                stack.append(other)
    return found

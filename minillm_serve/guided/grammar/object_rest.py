"""What the rest of an object needs at least: height (nesting that is still to be opened) and bytes.

Both follow one plan: the members that must come, then as many others of least height as make up the least number. A
plan of least height can be followed wherever the object itself could be begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from minillm_serve.guided.grammar.bits import bits, sums_from
from minillm_serve.guided.grammar.network import UNBOUNDED_COST
from minillm_serve.guided.grammar.values import Value

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.objects import ObjectRule, Progress


class ObjectRest:
    """Heights and costs of the places in one object."""

    def __init__(self, rule: ObjectRule):
        self.rule = rule
        self.marks = rule.build.marks

    # -- heights -------------------------------------------------------------------------------------------------

    def height_of(self, number: int, after: Progress) -> int:
        """The height that a text with property ``number`` next needs; after: the progress behind it."""
        rule = self.rule
        own = 1 + rule.values[number].height
        return own if rule.is_simple else max(own, self.height_from(rule.place_after(number), after))

    def height_of_other(self, tag: int, progress: Progress) -> int:
        """The same for a further name of kind ``tag``; progress: without it."""
        return min(height for height, _, _ in self.others(tag, progress))

    def others(self, tag: int, progress: Progress) -> Iterator[tuple[int, Value, Progress]]:
        """(height, value, progress behind it) for each way to be a further name of kind ``tag``."""
        for value, after in self.rule.variants(tag, progress):
            yield max(1 + value.height, self.height_from(self.rule.place_of_further, after)), value, after

    def height_from(self, place: int, progress: Progress) -> int:
        """The height that the rest needs, required properties (for which there always is room) aside."""
        if self.rule.is_simple:
            return 1
        return 1 + max((value.height for value, _, _ in self._plan(place, progress)), default=0)

    def least_height(self, place: int, progress: Progress) -> int:
        """The least height with which another member may come."""
        rule = self.rule
        choices = rule.choices(place, rule.stop(place, progress), progress)
        found = [self.height_of(number, after) for number, after in choices]
        found += [self.height_of_other(tag, progress) for tag in rule.further_tags(place, progress)]
        return min(found, default=1)

    # -- the plan ------------------------------------------------------------------------------------------------

    def _plan(self, place: int, progress: Progress) -> list[tuple[Value, int, int]]:
        """(value, cost of its name, how many) of the members to come whose coming the place alone does not tell."""
        rule, further = self.rule, self.rule.further
        missing = rule.missing(place, progress)
        found = [(rule.values[i], self.name_cost(i), 1) for i in bits(missing)]
        found += [(further.witness_value(witness), further.name_cost, 1) for witness in bits(progress.open)]
        number = rule.least - progress.count - rule.required_from[place] - len(found)
        return found + self._fillers(place, progress, missing, number) if number > 0 else found

    def _fillers(self, place: int, progress: Progress, missing: int, number: int) -> list[tuple[Value, int, int]]:
        """Members that are only there to be enough: the ``number`` of them that need the least height."""
        rule, further = self.rule, self.rule.further
        taken = missing | rule.keys | rule.required_set | progress.present
        spare = [
            (rule.values[i], self.name_cost(i), 1)
            for i in range(place, len(rule.names))
            if rule.possible[i] and not taken >> i & 1
        ]
        room = further.room()
        copies = number if room is None else min(number, room - progress.further)
        if further.tags and copies > 0:
            best = min((further.kinds[tag].value for tag in further.tags), key=lambda value: value.height)
            spare.append((best, further.name_cost, copies))
        found = []
        for value, name, most in sorted(spare, key=lambda member: member[0].height):
            found.append((value, name, min(most, number)))
            number -= most
            if number <= 0:
                break
        return found

    # -- costs ---------------------------------------------------------------------------------------------------

    def name_cost(self, number: int) -> int:
        alphabet, name = self.rule.build.alphabet, self.rule.names[number]
        return min((len(text) for text in alphabet.spellings(name) if alphabet.spells(text)), default=UNBOUNDED_COST)

    def _member_cost(self, value: Value, name: int) -> int:
        return self.marks.comma_cost + name + self.marks.colon_cost + self.rule.build.cost_of(value)

    @cached_property
    def _required_cost(self) -> list[int]:
        """[places] bytes of the properties that must still come, each with a comma before it."""
        rule = self.rule
        return sums_from(
            [
                self._member_cost(value, self.name_cost(number)) if rule.is_certain(number) else 0
                for number, value in enumerate(rule.values)
            ]
        )

    def cost_from(self, place: int, progress: Progress) -> int:
        """Bytes from behind a value to the end of the object."""
        total = self._required_cost[place] + 1
        if not self.rule.is_simple:
            total += sum(times * self._member_cost(value, name) for value, name, times in self._plan(place, progress))
        return min(total, UNBOUNDED_COST)

    def first_cost(self) -> int:
        """Bytes from behind the opening brace to the end."""
        total = self.cost_from(0, self.rule.start)
        return total if total <= 1 else total - self.marks.comma_cost

    def cost_of_next(self, place: int, progress: Progress) -> int:
        """Bytes from behind a comma to the end of the object."""
        rule = self.rule
        if not rule.may_close(place, progress):
            return max(0, self.cost_from(place, progress) - self.marks.comma_cost)
        return min(self._next(place, progress), default=(0, UNBOUNDED_COST))[1]

    def _next(self, place: int, progress: Progress) -> Iterator[tuple[int, int]]:
        """(height, bytes from behind the comma) for each member that may come next."""
        rule, comma = self.rule, self.marks.comma_cost
        for number, after in rule.choices(place, rule.stop(place, progress), progress):
            total = self._member_cost(rule.values[number], self.name_cost(number)) - comma
            total += self.cost_from(rule.place_after(number), after)
            yield self.height_of(number, after), min(total, UNBOUNDED_COST)
        for tag in rule.further_tags(place, progress):
            for height, value, after in self.others(tag, progress):
                total = self._member_cost(value, rule.further.name_cost) - comma
                yield height, min(total + self.cost_from(rule.place_of_further, after), UNBOUNDED_COST)

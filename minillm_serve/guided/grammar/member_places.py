"""The places inside an object: before a name, between a name and its value, behind a value."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minillm_serve.guided.grammar.network import RETURN, UNBOUNDED_COST, Arc, Call, Jump, Literals, Network, Read

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.objects import ObjectRule, Progress

BLOCK = 32  # names in one leaf; the next ones are shared by all places before them, so that no work is quadratic


@dataclass(frozen=True, slots=True)
class Keys:
    """Before a name (behind a comma or, the ``first`` time, the brace) where properties from ``place`` on may come."""

    rule: ObjectRule
    place: int
    progress: Progress
    first: bool = False

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        rule, place, progress = self.rule, self.place, self.progress
        found: list[Arc] = []
        if self.first and rule.may_close(place, progress):
            found.append(Read(rule.build.marks.close(b"}"), (RETURN,)))
        stop = rule.stop(place, progress)
        end = min(stop, rule.block_end(place))
        found += self._declared(network, end)
        if end < stop and rule.next_possible[end] < stop:
            return (*found, Jump(network.state(Keys(rule, end, progress))))
        return (*found, *self._further(network))

    def _declared(self, network: Network, end: int) -> list[Arc]:
        """The names up to ``end``: one leaf, or one for each height that the values need where that may matter."""
        rule = self.rule
        members = list(rule.choices(self.place, end, self.progress))
        if not members:
            return []
        groups: dict[int, list[tuple[int, Progress]]] = {1: members}
        if rule.is_deep:
            groups = defaultdict(list)
            for number, after in members:
                groups[rule.rest.height_of(number, after)].append((number, after))
        return [self._names(network, members, height) for height, members in groups.items()]

    def _names(self, network: Network, members: list[tuple[int, Progress]], height: int) -> Read:
        rule = self.rule
        names = [rule.name_texts(number) for number, _ in members]
        texts = tuple(text for spellings in names for text in spellings)
        tags = tuple(tag for tag, spellings in enumerate(names) for _ in spellings)
        leaf = rule.build.scalars.shared(("names", texts, len(names)), lambda: Literals(texts, tags))
        kind = Named if rule.ends_with_colon else NamedColon
        targets = tuple(network.state(kind(rule, number, after)) for number, after in members)
        return Read(leaf, targets, height, unique=rule.unique_names)

    def _further(self, network: Network) -> list[Arc]:
        rule = self.rule
        tags = rule.further_tags(self.place, self.progress)
        if not tags:
            return []
        groups = {1: tags}
        if rule.is_deep:
            groups = defaultdict(list)
            for tag in tags:
                groups[rule.rest.height_of_other(tag, self.progress)].append(tag)
        return [self._other_names(network, tags, height) for height, tags in groups.items()]

    def _other_names(self, network: Network, tags: list[int], height: int) -> Read:
        further = self.rule.further
        states = {tag: network.state(OtherColon(self.rule, tag, self.progress)) for tag in tags}
        targets = tuple(states.get(tag, RETURN) for tag in range(len(further.kinds)))
        return Read(further.leaf(tags), targets, height, unique=True)

    def cost(self, network: Network) -> int:
        rest = self.rule.rest
        return rest.first_cost() if self.first else rest.cost_of_next(self.place, self.progress)

    def describe(self) -> str:
        return f"name in {self.rule.describe(self.place)}"


@dataclass(frozen=True, slots=True)
class Named:
    """Before the value of a declared property; ``progress`` counts it already."""

    rule: ObjectRule
    number: int
    progress: Progress

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        rule = self.rule
        value = rule.values[self.number]
        then = After(rule, rule.place_after(self.number), self.progress)
        return (Call(network.state(value), network.state(then), 1 + value.height),)

    def cost(self, network: Network) -> int:
        rule = self.rule
        rest = rule.rest.cost_from(rule.place_after(self.number), self.progress)
        return min(UNBOUNDED_COST, rule.build.cost_of(rule.values[self.number]) + rest)

    def describe(self) -> str:
        return f'value of "{self.rule.names[self.number]}" in {self.rule.path or "/"}'


@dataclass(frozen=True, slots=True)
class NamedColon:
    """Behind the name of a declared property."""

    rule: ObjectRule
    number: int
    progress: Progress

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        value = network.state(Named(self.rule, self.number, self.progress))
        height = 1 + self.rule.values[self.number].height
        return (Read(self.rule.build.marks.colon(), (value,), height),)

    def cost(self, network: Network) -> int:
        rest = Named(self.rule, self.number, self.progress).cost(network)
        return min(UNBOUNDED_COST, self.rule.build.marks.colon_cost + rest)

    def describe(self) -> str:
        return f'colon after "{self.rule.names[self.number]}" in {self.rule.path or "/"}'


@dataclass(frozen=True, slots=True)
class OtherColon:
    """Behind a name that is not declared, of kind ``tag``; ``progress`` does not count it yet."""

    rule: ObjectRule
    tag: int
    progress: Progress

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        value = network.state(Other(self.rule, self.tag, self.progress))
        height = min(1 + value.height for value, _ in self.rule.variants(self.tag, self.progress))
        return (Read(self.rule.build.marks.colon(), (value,), height),)

    def cost(self, network: Network) -> int:
        rest = Other(self.rule, self.tag, self.progress).cost(network)
        return min(UNBOUNDED_COST, self.rule.build.marks.colon_cost + rest)

    def describe(self) -> str:
        return f"colon after a further name in {self.rule.path or '/'}"


@dataclass(frozen=True, slots=True)
class Other:
    """Before the value of a name that is not declared."""

    rule: ObjectRule
    tag: int
    progress: Progress

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        rule, last = self.rule, self.rule.place_of_further
        found = []
        for height, value, left in rule.rest.others(self.tag, self.progress):
            found.append(Call(network.state(value), network.state(After(rule, last, left)), height))
        return tuple(found)

    def cost(self, network: Network) -> int:
        rule, last = self.rule, self.rule.place_of_further
        return min(
            (
                rule.build.cost_of(value) + rule.rest.cost_from(last, left)
                for value, left in rule.variants(self.tag, self.progress)
            ),
            default=UNBOUNDED_COST,
        )

    def describe(self) -> str:
        return f"value of a further name in {self.rule.path or '/'}"


@dataclass(frozen=True, slots=True)
class After:
    """Behind a value, where properties from ``place`` on may still come."""

    rule: ObjectRule
    place: int
    progress: Progress

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        rule, marks = self.rule, self.rule.build.marks
        more = rule.goes_on(self.place, self.progress)
        close = rule.may_close(self.place, self.progress)
        keys = network.state(Keys(rule, self.place, self.progress)) if more else RETURN
        height = rule.rest.least_height(self.place, self.progress) if more and rule.is_deep else 1
        if more and close and height > 1:
            return (
                Read(marks.after_value(b"}", comma=True, close=False), (keys,), height),
                Read(marks.after_value(b"}", comma=False, close=True), (RETURN, RETURN)),
            )
        return (
            Read(marks.after_value(b"}", more, close), (keys, RETURN) if close else (keys,), height if more else 0),
        )

    def cost(self, network: Network) -> int:
        return self.rule.rest.cost_from(self.place, self.progress)

    def describe(self) -> str:
        return self.rule.describe(self.place)

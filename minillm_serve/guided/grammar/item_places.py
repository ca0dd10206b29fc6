"""The places inside an array: before an item and behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minillm_serve.guided.grammar.network import RETURN, Arc, Network, Read

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.arrays import ArrayRule, Found


@dataclass(frozen=True, slots=True)
class Items:
    """Before an item: behind the opening bracket (then the array may also end), or behind a comma."""

    rule: ArrayRule
    count: int
    found: Found
    after_comma: bool = False

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        rule = self.rule
        found: list[Arc] = []
        if not self.after_comma and rule.may_close(self.count, self.found):
            found.append(Read(rule.build.marks.close(b"]"), (RETURN,)))
        for option, after, then in rule.ways(self.count, self.found):
            state = network.state(AfterItem(rule, after, then))
            found += rule.item_arcs(network, option, state, rule.height_of(option, after, then))
        return tuple(found)

    def cost(self, network: Network) -> int:
        rule = self.rule
        return rule.next_cost(self.count, self.found) if self.after_comma else rule.first_cost()

    def describe(self) -> str:
        return f"item in {self.rule.describe(self.count)}"


@dataclass(frozen=True, slots=True)
class AfterItem:
    """Behind an item."""

    rule: ArrayRule
    count: int
    found: Found

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        rule, marks = self.rule, self.rule.build.marks
        heights = [rule.height_of(*way) for way in rule.ways(self.count, self.found)]
        close = rule.may_close(self.count, self.found)
        item = network.state(Items(rule, self.count, self.found, after_comma=True)) if heights else RETURN
        height = min(heights, default=0)
        if heights and close and height > 1 and rule.is_deep:
            return (
                Read(marks.after_value(b"]", comma=True, close=False), (item,), height),
                Read(marks.after_value(b"]", comma=False, close=True), (RETURN, RETURN)),
            )
        targets = (item, RETURN) if close else (item,)
        return (Read(marks.after_value(b"]", bool(heights), close), targets, height if rule.is_deep else 0),)

    def cost(self, network: Network) -> int:
        return self.rule.rest_cost(self.count, self.found)

    def describe(self) -> str:
        return self.rule.describe(self.count)

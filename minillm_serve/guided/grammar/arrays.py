"""Arrays: how many items, which ones, and how many of them ``contains`` asks for.

Behind each item only the count of items (as far as it matters) and, for each ``contains``, the count of items found
for it are known. Whether an item counts for a ``contains`` is a choice between two ways to read it: as a value of the
item and of that schema, or of the item alone (of its complement, where too many would be wrong).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.grammar.item_places import Items
from minillm_serve.guided.grammar.network import UNBOUNDED_COST, Arc, Call, Network
from minillm_serve.guided.grammar.unique import UniqueItems
from minillm_serve.guided.grammar.values import IMPOSSIBLE, Value
from minillm_serve.guided.schema.complement import complement
from minillm_serve.guided.schema.nodes import ArraySchema, Node

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.builder import Builder

MAX_CONTAINS = 4
MAX_COUNTED, MAX_COUNTED_TOGETHER = 2_000, 60  # items that one contains, or several, may have to count
Found = tuple[int, ...]  # for each contains: the items found for it, as far as that matters


@dataclass(frozen=True, slots=True)
class Option:
    """One way to read an item: a value, and for which of the ``contains`` (0 or 1 each) it counts."""

    value: Value
    counts: Found


class ArrayRule:
    """One array schema."""

    def __init__(self, schema: ArraySchema, path: str, build: Builder):
        self.path, self.build = path, build
        self.height = IMPOSSIBLE
        self.least = schema.min_items
        self._most = schema.max_items
        self.contains = tuple(rule for rule in schema.contains if rule.low or rule.high is not None)
        self.prefix = schema.prefix if schema.max_items is None else schema.prefix[: schema.max_items]
        self._check(path)
        starts = {min(rule.start, len(self.prefix)) for rule in self.contains if rule.start > len(self.prefix)}
        longest = max((rule.start for rule in self.contains), default=0) if starts else 0
        self.options = [
            self._options(place, self.prefix[place] if place < len(self.prefix) else schema.items)
            for place in range(max(len(self.prefix), longest) + 1)
        ]
        unique = schema.unique and (schema.max_items is None or schema.max_items > 1)
        self.unique = UniqueItems(self, path) if unique else None
        self.start: Found = (0,) * len(self.contains)

    def _check(self, path: str) -> None:
        if not self.contains:
            return
        keyword = pointer(path, "contains")
        if len(self.contains) > MAX_CONTAINS:
            raise SchemaError("contains", keyword, f"more than {MAX_CONTAINS} of them for one array")
        size = self.least
        for rule in self.contains:
            size += rule.start + max(rule.low, rule.high or 0)
        limit = MAX_COUNTED if len(self.contains) == 1 else MAX_COUNTED_TOGETHER
        if size > limit:
            raise SchemaError("contains", keyword, f"it would have to count up to {size}; the limit is {limit}")

    def _options(self, place: int, node: Node) -> tuple[Option, ...]:
        """The ways to read the item at ``place``."""
        found: list[Option] = []
        for counts in product((1, 0), repeat=len(self.contains)):
            met: Node | None = node
            for rule, one in zip(self.contains, counts, strict=True):
                if one and place < rule.start:
                    met = None
                elif met is not None and one:
                    met = self.build.graph.both(met, rule.node)
                elif met is not None and rule.high is not None and place >= rule.start:
                    met = self.build.graph.both(met, complement(rule.node, self.build.graph))
            if met is not None and not met.is_false:
                found.append(Option(self.build.value(met), counts))
        return tuple(found)

    # -- what may come next --------------------------------------------------------------------------------------

    @cached_property
    def most(self) -> int | None:
        """How many items there can be at most; None: any number."""
        for place, options in enumerate(self.options):
            if (self._most is None or place < self._most) and all(o.value.height >= IMPOSSIBLE for o in options):
                return place
        if self.unique is not None:
            room = self.unique.room
            if room is not None:
                return room if self._most is None else min(room, self._most)
        return self._most

    def at(self, count: int) -> tuple[Option, ...]:
        """The ways to read the item after ``count`` others."""
        return self.options[min(count, len(self.options) - 1)]

    def counted(self, count: int) -> int:
        """``count``, or a smaller number that leads to the same."""
        return count if self.most is not None else min(count, max(self.least, len(self.options) - 1, 1))

    def ways(self, count: int, found: Found) -> Iterator[tuple[Option, int, Found]]:
        """(option, count, found) for each way to read one more item after which the array can still be completed."""
        if self.most is not None and count >= self.most:
            return
        after = self.counted(count + 1)
        for option in self.at(count):
            if option.value.height < IMPOSSIBLE:
                then = self.found_after(found, option)
                if then is not None and (not self.contains or self.height_from(after, then) < IMPOSSIBLE):
                    yield option, after, then

    def found_after(self, found: Found, option: Option) -> Found | None:
        """``found`` with one more item; None when these are too many of one kind."""
        if not self.contains:
            return found
        then = []
        for rule, number, one in zip(self.contains, found, option.counts, strict=True):
            if rule.high is not None and number + one > rule.high:
                return None
            if rule.high is None and one and number >= rule.low:
                return None  # reading it as any item says the same
            then.append(number + one)
        return tuple(then)

    def may_close(self, count: int, found: Found) -> bool:
        return count >= self.least and self.lacks(found) == 0

    def lacks(self, found: Found) -> int:
        return sum(max(0, rule.low - number) for rule, number in zip(self.contains, found, strict=True))

    # -- heights and costs of what is left -----------------------------------------------------------------------

    def needed(self) -> list[Value]:
        if self.contains:
            return self.children()
        return [option.value for options in self.options[: self.least] for option in options]

    def children(self) -> list[Value]:
        return list(dict.fromkeys(option.value for options in self.options for option in options))

    def closes_with(self, height: int) -> bool:
        if self._most is not None and self.least > self._most:
            return False
        if self.unique is not None and not self.unique.has_room(self.least):
            return False
        if self.contains:
            return self._rest(0, self.start, height) is not None
        return all(any(o.value.height <= height for o in self.at(place)) for place in range(self._decisive))

    @property
    def _decisive(self) -> int:
        """Places that decide whether there can be enough items (all later ones are the same)."""
        return min(self.least, len(self.options))

    def _rest(self, count: int, found: Found, height: int) -> list[Option] | None:
        """Fewest further items, none needing more than ``height``, with which the array can be closed, if there are."""
        if len(self.contains) == 1:
            items = self._greedy(count, found, height)
            if items is not None:
                return items
        return self._search(count, found, height)

    def _greedy(self, count: int, found: Found, height: int) -> list[Option] | None:
        """Items found one by one, each for the one ``contains`` as long as that lacks any."""
        items: list[Option] = []
        while not self.may_close(count, found):
            wanted = int(self.lacks(found) > 0)
            ways = [
                (o, then) for o in self.at(count) if o.value.height <= height and (then := self.found_after(found, o))
            ]
            if not ways or (self._most is not None and count >= self._most) or len(items) > self._longest:
                return None
            spend(5, "contains", self.path)
            option, found = max(ways, key=lambda way: way[0].counts[0] == wanted)
            items.append(option)
            count += 1
        return items

    @property
    def _longest(self) -> int:
        """Items after which looking for an end is in vain."""
        return self.least + len(self.options) + sum(rule.low for rule in self.contains)

    def _search(self, count: int, found: Found, height: int) -> list[Option] | None:
        """The same by breadth-first search."""
        start, layer = count, {found: []}
        while layer:
            for reached, items in layer.items():
                if self.may_close(count, reached):
                    return items
            if (self._most is not None and count >= self._most) or count - start > self._longest:
                return None
            further: dict[Found, list[Option]] = {}
            for reached, items in layer.items():
                spend(5 * len(self.at(count)) + len(items) // 8, "contains", self.path)
                for option in self.at(count):
                    then = self.found_after(reached, option) if option.value.height <= height else None
                    if then is not None and then not in further:
                        further[then] = [*items, option]
            layer = further
            count += 1
        return None

    def height_from(self, count: int, found: Found) -> int:
        """The height that the rest of the array needs; IMPOSSIBLE if it cannot be completed."""
        return self._plan(count, found)[0]

    def _plan(self, count: int, found: Found) -> tuple[int, list[Option]]:
        """(height, items) of the rest of the array, with as little height as possible."""
        key = (count, found)
        if key not in self._plans:
            heights = sorted({o.value.height for options in self.options for o in options} | {0})
            self._plans[key] = (IMPOSSIBLE, [])
            for height in heights:
                items = self._rest(count, found, height) if height < IMPOSSIBLE else None
                if items is not None:
                    self._plans[key] = (1 + max((o.value.height for o in items), default=0), items)
                    break
        return self._plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[int, Found], tuple[int, list[Option]]]:
        return {}

    @cached_property
    def is_deep(self) -> bool:
        return self.build.is_deep(self)

    def height_of(self, option: Option, after: int, then: Found) -> int:
        own = 1 + option.value.height
        return max(own, self.height_from(after, then)) if self.contains else own

    def item_cost(self, value: Value) -> int:
        return self.build.cost_of(value) if self.unique is None else self.unique.cost_of(value)

    def rest_cost(self, count: int, found: Found) -> int:
        """Bytes from behind an item to the end of the array."""
        comma = self.build.marks.comma_cost
        if self.contains:
            items = self._plan(count, found)[1]
            return min(UNBOUNDED_COST, 1 + sum(comma + self.item_cost(option.value) for option in items))
        total = 1
        for place in range(count, min(self.least, len(self.options) - 1)):
            total += comma + self._cheapest(place)
        more = self.least - max(count, len(self.options) - 1)
        if more > 0:
            total += more * (comma + self._cheapest(len(self.options) - 1))
        return min(UNBOUNDED_COST, total)

    def _cheapest(self, place: int) -> int:
        """The cost of an item of least height."""
        options = [option.value for option in self.at(place)]
        least = min((value.height for value in options), default=IMPOSSIBLE)
        return min((self.item_cost(value) for value in options if value.height == least), default=UNBOUNDED_COST)

    def next_cost(self, count: int, found: Found) -> int:
        """Bytes from before an item to the end of the array."""
        return min(
            (
                min(UNBOUNDED_COST, self.item_cost(option.value) + self.rest_cost(after, then))
                for option, after, then in self._lowest(count, found)
            ),
            default=UNBOUNDED_COST,
        )

    def _lowest(self, count: int, found: Found) -> list[tuple[Option, int, Found]]:
        ways = list(self.ways(count, found))
        heights = [self.height_of(*way) for way in ways]
        return [way for way, height in zip(ways, heights, strict=True) if height == min(heights)]

    def least_cost(self) -> int:
        return 1 + self.first_cost()

    def first_cost(self) -> int:
        """Bytes from behind the opening bracket."""
        rest = self.rest_cost(0, self.start)
        return rest if rest <= 1 else rest - self.build.marks.comma_cost

    # -- the network ---------------------------------------------------------------------------------------------

    def entry(self, network: Network) -> tuple[int, int]:
        return self.build.marks.open(b"["), network.state(Items(self, 0, self.start))

    def item_arcs(self, network: Network, option: Option, then: int, height: int) -> list[Arc]:
        """The ways to read one item and go on in ``then``."""
        if self.unique is not None:
            return self.unique.arcs(option.value, then)
        return [Call(network.state(option.value), then, height)]

    def describe(self, count: int) -> str:
        return f"array {self.path or '/'}, after {count} items"

"""Free text up to a marker: any characters, until one of several strings has been written for the first time.

The automaton is that of Aho and Corasick (1975): its state is the longest end of the text that begins a marker.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.expressions import Either, Expression
from minillm_serve.guided.grammar.network import RETURN, UNBOUNDED_COST, Arc, Network, Read, Text
from minillm_serve.guided.grammar.rule_places import Step
from minillm_serve.guided.grammar.rules import Rules
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_reduce import reduced
from minillm_serve.guided.text.codepoints import Ranges, complement, of, partition

MAX_CELLS = 1_000_000  # states times classes of characters


def until(
    markers: Collection[str], may_end: bool, excluded: Collection[str] = (), allowed: Ranges | None = None
) -> tuple[CharDfa, list[frozenset[str]]]:
    """Text up to the first marker, and for each tag the markers that are complete there.

    Tag 0 is for a text that ends without a marker (where ``may_end``). No text has one of ``excluded`` in it, nor a
    character that is not ``allowed`` (None: all are). Markers are not empty.
    """
    children: list[dict[str, int]] = [{}]
    ends: list[set[str]] = [set()]
    for marker in (*markers, *excluded):
        state = 0
        for char in marker:
            if char not in children[state]:
                children[state][char] = len(children)
                children.append({})
                ends.append(set())
            state = children[state][char]
        ends[state].add(marker)
    letters = sorted({char for row in children for char in row})
    bounds, classes, members = partition([*map(of, letters), complement(allowed) if allowed is not None else ()])
    if len(children) * len(members) > MAX_CELLS:
        raise SchemaError("structural_tag", "", f"the markers of free text need more than {MAX_CELLS} table cells")
    spend(len(children) * (len(members) + len(letters)), "structural_tag")
    forbidden = 1 << len(letters)
    column = {member: number for number, member in enumerate(members)}
    rows: list[list[int]] = [[] for _ in children]
    tags = [0 if may_end else -1] * len(children)
    meanings: list[frozenset[str]] = [frozenset()]
    back: dict[int, int] = {0: 0}  # the state of the longest shorter end of the same text
    order = [0]
    for state in order:  # breadth first: shorter texts have their row by now
        row = [-1 if member & forbidden else 0 for member in members] if state == 0 else list(rows[back[state]])
        for char, child in children[state].items():
            number = column.get(1 << letters.index(char))
            back[child] = row[number] if number is not None and state else 0
            if number is not None:
                row[number] = child
            order.append(child)
        rows[state] = row
        if state:
            ends[state] |= ends[back[state]]
    for state, found in enumerate(ends):
        if found:
            rows[state], tags[state] = [-1] * len(members), -1
            if found.isdisjoint(excluded):
                meaning = frozenset(found)
                if meaning not in meanings:
                    meanings.append(meaning)
                tags[state] = meanings.index(meaning)
    return reduced(bounds, classes, rows, tags), meanings


@dataclass(frozen=True, eq=False)
class Tagged:
    """Free text with constrained parts. parts: for each marker, what follows it.

    at_least_one: the text cannot end before one of them; only_one: it ends right behind the first.
    """

    parts: dict[str, Expression]
    at_least_one: bool = False
    only_one: bool = False
    excluded: tuple[str, ...] = ()
    allowed: Ranges | None = None
    rules: Rules = field(default_factory=lambda: Rules({}))

    @cached_property
    def height(self) -> int:
        return max((self.rules.height(part) for part in self.parts.values()), default=0)

    @cached_property
    def cost(self) -> int:
        """Bytes of the shortest way to a marker and through what follows it."""
        costs = (len(marker.encode()) + self.rules.cost(part) for marker, part in self.parts.items())
        return min(costs, default=UNBOUNDED_COST)


@dataclass(frozen=True)
class FreeText:
    """Free text, then maybe a marker and its part, and so on until RETURN; needed: a part has to come."""

    tagged: Tagged
    needed: bool

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        tagged = self.tagged
        dfa, meanings = until(tagged.parts, not self.needed, tagged.excluded, tagged.allowed)
        leaf = network.leaf(Text(dfa, quoted=False), key=self)
        after = RETURN if tagged.only_one else network.state(FreeText(tagged, False))
        targets = [RETURN]
        for markers in meanings[1:]:
            parts = [tagged.parts[marker] for marker in sorted(markers)]
            expression = parts[0] if len(parts) == 1 else Either(tuple(parts))
            targets.append(network.state(Step(tagged.rules, expression, 0, after)))
        return (Read(leaf, tuple(targets), self.height(network)),)

    def height(self, network: Network) -> int:
        return self.tagged.height

    def cost(self, network: Network) -> int:
        return self.tagged.cost if self.needed else 0

    def describe(self) -> str:
        return "free text" + (
            " up to " + ", ".join(map(repr, list(self.tagged.parts)[:3])) if self.tagged.parts else ""
        )

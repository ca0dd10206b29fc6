"""Names that an object does not declare: which there may be, and what their values must be.

The names fall into kinds: those that match the same patterns (and may be the same witnesses). One automaton tells the
kinds apart, with the number of the kind as its tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from minillm_serve.guided.grammar.shortest import free_text
from minillm_serve.guided.grammar.values import IMPOSSIBLE, Value
from minillm_serve.guided.schema.nodes import ANY, LiteralSchema, Node, ObjectSchema, Pattern, StringSchema
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.chars_algebra import from_words, tagged, union, with_length
from minillm_serve.guided.text.languages import count_texts, language, longest

if TYPE_CHECKING:
    from minillm_serve.guided.grammar.builder import Builder

MANY = 1 << 20  # names; more than any text has room for
ALL = CharDfa((0,), (0,), ((0,),), (0,))
MAX_TOGETHER = 3  # witnesses that one member may be at once


@dataclass(frozen=True, eq=False)
class Kind:
    """Names with the same values. witnessed: (set of witnesses, value) for a member that is to be all of these."""

    value: Value
    witnessed: tuple[tuple[int, Value], ...] = ()

    def ways(self, wanted: int) -> Iterator[tuple[Value, int]]:
        """(value, witnesses found) for a member that is some of the witnesses still ``wanted``, or none."""
        yield self.value, 0
        for witnesses, value in self.witnessed:
            if witnesses & ~wanted == 0:
                yield value, witnesses


class Further:
    """The further names of one object."""

    def __init__(self, schema: ObjectSchema, declared: Collection[str], build: Builder):
        self.build, self.schema, self.declared = build, schema, declared
        self.kinds: list[Kind] = []
        self._tags: dict[tuple, int] = {}
        self.low, self.high = 0, None
        self.dfa = self._make()

    def _make(self) -> CharDfa | None:
        """The automaton of all kinds; None: any name, of the one kind."""
        schema, build = self.schema, self.build
        if schema.extra.is_false and not schema.patterns:
            return None
        self._parts: list[CharDfa] = []
        if not schema.patterns and not schema.witnesses:
            self.kinds.append(Kind(build.value(schema.extra)))
            if schema.names is None:
                return build.alphabet.characters
            if len(schema.names) == 1 and isinstance(schema.names[0], StringSchema) and not schema.names[0].excluded:
                self.low, self.high = schema.names[0].min_length, longest(schema.names[0])
                return build.scalars.writable(language(schema.names[0]))
            return build.scalars.writable(names_language(schema.names))
        for pattern, _ in schema.patterns:
            for negated in (pattern.negated, not pattern.negated):
                side = Pattern(pattern.text, pattern.is_format, negated, pattern.path)
                self._parts.append(language(StringSchema(patterns=(side,))) or ALL)
        for witness in schema.witnesses:
            self._parts.append(names_language((witness.names,)))
        allowed = build.scalars.writable(None if schema.names is None else names_language(schema.names))
        self._parts.append(allowed or ALL)
        return tagged(self._parts, self._tag)

    def _tag(self, accepted: int) -> int:
        """The kind of the names that just these automata (bits) accept; -1 if there may be no such name.

        A name about which the readers of a pattern differ is in neither of its two languages, and left out.
        """
        schema = self.schema
        patterns = len(schema.patterns)
        if not accepted >> (len(self._parts) - 1) & 1:
            return -1
        if any(accepted >> 2 * i & 3 not in (1, 2) for i in range(patterns)):
            return -1
        matched = tuple(i for i in range(patterns) if accepted >> 2 * i & 1)
        witnesses = accepted >> 2 * patterns & ((1 << len(schema.witnesses)) - 1)
        if (matched, witnesses) not in self._tags:
            self._tags[matched, witnesses] = self._kind(matched, witnesses)
        return self._tags[matched, witnesses]

    def _kind(self, matched: tuple[int, ...], witnesses: int) -> int:
        node: Node = ANY
        for i in matched:
            node = self.build.graph.both(node, self.schema.patterns[i][1])
        node = node if matched else self.schema.extra
        if node.is_false:
            return -1
        found = []
        for some in subsets(witnesses):
            met = node
            for number, witness in enumerate(self.schema.witnesses):
                if some >> number & 1:
                    met = self.build.graph.both(met, witness.node)
            if not met.is_false:
                found.append((some, self.build.value(met)))
        self.kinds.append(Kind(self.build.value(node), tuple(found)))
        return len(self.kinds) - 1

    # -- once the heights are known ------------------------------------------------------------------------------

    @property
    def values(self) -> list[Value]:
        return [value for kind in self.kinds for value in (kind.value, *(v for _, v in kind.witnessed))]

    @cached_property
    def tags(self) -> list[int]:
        """The kinds for which there are names and values."""
        return self._tags_below(IMPOSSIBLE - 1)

    def _tags_below(self, height: int) -> list[int]:
        return [tag for tag in self._named if self.kinds[tag].value.height <= height]

    @cached_property
    def _named(self) -> list[int]:
        """The kinds of which there is a name that is not declared."""
        everything = list(range(len(self.kinds)))
        if self.dfa is None and self.high is None:
            return everything
        declared = Counter((self.dfa or ALL).match(name) for name in self.declared)
        bounded = self.low > 0 or self.high is not None
        return [tag for tag in everything if (not declared[tag] and not bounded) or self._room([tag]) != 0]

    @cached_property
    def _lasting(self) -> list[Kind]:
        """The kinds of which no text uses up the names; where a witness has to be possible, it must be one of these."""
        return [kind for tag, kind in enumerate(self.kinds) if kind.witnessed and self._room([tag]) is None]

    def finds(self, witness: int, height: int = IMPOSSIBLE - 1) -> bool:
        """Is there a value of at most this height for the witness?"""
        return any(value.height <= height for value in self._witness_values(witness))

    def _witness_values(self, witness: int) -> list[Value]:
        return [value for kind in self._lasting for some, value in kind.witnessed if some == 1 << witness]

    def witness_value(self, witness: int) -> Value:
        """The value of least height for the witness."""
        return min(self._witness_values(witness), key=lambda value: value.height)

    def room(self, height: int = IMPOSSIBLE - 1) -> int | None:
        """How many names there are whose values need at most this height; None: more than any text has room for."""
        tags = tuple(self._tags_below(height))
        if tags not in self._rooms:
            self._rooms[tags] = self._room(list(tags))
        return self._rooms[tags]

    @cached_property
    def _rooms(self) -> dict[tuple[int, ...], int | None]:
        return {}

    def _room(self, tags: list[int]) -> int | None:
        if not tags:
            return 0
        if self.dfa is None and (self.high is None or self.high > 0):
            return None
        dfa = self._only(tags) or ALL
        declared = self._declared_in(dfa)
        found = count_texts(dfa, self.low, self.high, MANY + declared) - declared
        return None if found >= MANY else found

    def _declared_in(self, dfa: CharDfa) -> int:
        """How many declared names would be of these kinds."""
        names = (n for n in self.declared if self.low <= len(n) and (self.high is None or len(n) <= self.high))
        return sum(dfa.match(name) >= 0 for name in names)

    def _only(self, tags: Sequence[int]) -> CharDfa | None:
        if len(tags) == len(self.kinds) or self.dfa is None:
            return self.dfa
        wanted = set(tags)
        return tagged(self._parts, lambda accepted: tag if (tag := self._tag(accepted)) in wanted else -1)

    def leaf(self, tags: Sequence[int]) -> int:
        """The leaf of the names of these kinds, declared ones left out."""
        key = tuple(tags)
        if key not in self._leaves:
            self._leaves[key] = self.build.scalars.text(self._only(tags), self.low, self.high, self.declared)
        return self._leaves[key]

    @cached_property
    def _leaves(self) -> dict[tuple[int, ...], int]:
        return {}

    @cached_property
    def name_cost(self) -> int:
        """Bytes that are always enough for one more name."""
        room, dfa = self.room(), self._only(self.tags)
        others = MANY if room is None else room + self._declared_in(dfa or ALL) - 1
        return free_text(dfa, self.low, self.high, others)


def names_language(names: Sequence[StringSchema | LiteralSchema]) -> CharDfa:
    """The names that one of these allows."""
    found = []
    for alternative in names:
        if isinstance(alternative, LiteralSchema):
            found.append(from_words([value for value in alternative.values if isinstance(value, str)]))
            continue
        dfa = language(alternative) or ALL
        high = longest(alternative)
        if alternative.min_length or high is not None:
            dfa = with_length(dfa, alternative.min_length, high)
        if alternative.excluded:
            words = from_words(sorted(alternative.excluded))
            dfa = tagged([dfa, words], lambda accepted: 0 if accepted == 1 else -1)
        found.append(dfa)
    return found[0] if len(found) == 1 else union(*found)


def subsets(witnesses: int) -> list[int]:
    """The sets of witnesses that one member may be: all, if there are few; else each alone."""
    single = [1 << i for i in range(witnesses.bit_length()) if witnesses >> i & 1]
    if len(single) > MAX_TOGETHER:
        return single
    found = [0]
    for bit in single:
        found += [some | bit for some in found]
    return found[1:]

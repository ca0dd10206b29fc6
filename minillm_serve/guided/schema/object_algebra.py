"""What two object schemas both accept, and what one of them says about a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.schema.nodes import ANY, NEVER, LiteralSchema, Node, ObjectSchema, Pattern, StringSchema
from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.languages import accepts, fits, language

Both = Callable[[Node, Node], Node]
Names = tuple[StringSchema | LiteralSchema, ...] | None
Patterns = tuple[tuple[Pattern, Node], ...]


def meet_objects(a: ObjectSchema, b: ObjectSchema, both: Both, meet_all: Callable) -> ObjectSchema | None:
    """The intersection; properties in the order of ``a``, then those that ``b`` adds, the undeclared ones last."""
    order, undeclared = _in_order(a, b)
    left, right = Values(a, both), Values(b, both)
    properties = {name: both(left.of(name), right.of(name)) for name in order}
    required = a.required | b.required
    if any(properties[name].is_false for name in required):
        return None
    low = max(a.min_properties, b.min_properties)
    high = min((n for n in (a.max_properties, b.max_properties) if n is not None), default=None)
    if high is not None and max(low, len(required)) > high:
        return None
    patterns, extra = _meet_further(a, b, both)
    names = b.names if a.names is None else a.names if b.names is None else meet_all(a.names, b.names, both)
    if names == () or (high is not None and high == len(required)):
        names, patterns, extra = None, (), NEVER
    dependents = a.dependents or b.dependents
    if a.dependents and b.dependents:
        dependents = {
            name: a.dependents.get(name, frozenset()) | b.dependents.get(name, frozenset())
            for name in chain(a.dependents, b.dependents)
        }
    return ObjectSchema(
        properties,
        required,
        extra,
        patterns,
        names,
        low if low > len(required) else 0,
        high,
        dependents,
        tuple(dict.fromkeys((*a.witnesses, *b.witnesses))),
        undeclared,
    )


def _in_order(a: ObjectSchema, b: ObjectSchema) -> tuple[dict[str, None], frozenset[str]]:
    """All names that ``a`` and ``b`` have among their properties, and those of them that neither declares."""
    if not a.undeclared and not b.undeclared:
        return dict.fromkeys(chain(a.properties, b.properties)), frozenset()
    declared = [name for schema in (a, b) for name in schema.properties if name not in schema.undeclared]
    undeclared = (a.undeclared | b.undeclared).difference(declared)
    return dict.fromkeys(chain(declared, a.properties, b.properties)), undeclared


def value_at(schema: ObjectSchema, name: str, both: Both) -> Node:
    """What the value of a member called ``name`` must satisfy."""
    return Values(schema, both).of(name)


class Values:
    """What one object schema says about the values of members, by name."""

    def __init__(self, schema: ObjectSchema, both: Both):
        self.schema, self.both = schema, both
        self._matchers = [(Matcher(pattern), node) for pattern, node in schema.patterns]

    def of(self, name: str) -> Node:
        """The node for the value of a member called ``name``."""
        node = self.schema.properties.get(name)
        return self.matched(name, self.schema.extra) if node is None else node

    def matched(self, name: str, otherwise: Node) -> Node:
        """The nodes of all patterns that match ``name`` as one, ``otherwise`` if none does; NEVER for a wrong name.

        Where the dialects of regular expressions differ about the name, it counts as matched and as not matched.
        """
        if not allows_name(self.schema.names, name):
            return NEVER
        found: Node = ANY
        matched = False
        for matcher, node in self._matchers:
            if matcher.matches(name):
                matched = True
            elif matcher.differs(name):
                continue
            found = self.both(found, node)
        return found if matched else self.both(found, otherwise)


class Matcher:
    """Tells whether names match a pattern."""

    def __init__(self, pattern: Pattern):
        self._same = StringSchema(patterns=(pattern,))
        self._other = StringSchema(patterns=(opposite(pattern),))

    def matches(self, name: str) -> bool:
        """Does every dialect of regular expressions say that ``name`` matches?"""
        return fits(self._same, name) and (self._inside is None or self._inside.match(name) >= 0)

    def differs(self, name: str) -> bool:
        """Does every dialect say that it does not?"""
        return fits(self._other, name) and (self._outside is None or self._outside.match(name) >= 0)

    @cached_property
    def _inside(self) -> CharDfa | None:
        return language(self._same)

    @cached_property
    def _outside(self) -> CharDfa | None:
        return language(self._other)


def opposite(pattern: Pattern) -> Pattern:
    return Pattern(pattern.text, pattern.is_format, not pattern.negated, pattern.path)


def allows_name(names: Names, name: str) -> bool:
    """Is ``name`` one of ``names``?"""
    if names is None:
        return True
    return any(
        name in alternative.values if isinstance(alternative, LiteralSchema) else accepts(alternative, name)
        for alternative in names
    )


def _meet_further(a: ObjectSchema, b: ObjectSchema, both: Both) -> tuple[Patterns, Node]:
    """(patterns, extra) of the intersection, for names that neither object has among its properties."""
    extra = both(a.extra, b.extra)
    if not a.patterns and not b.patterns:
        return (), extra
    if a.patterns == b.patterns:
        return simplified_patterns(a.patterns, extra), extra
    found: dict[Pattern, Node] = {}

    def add(pattern: Pattern, node: Node) -> None:
        found[pattern] = both(found[pattern], node) if pattern in found else node

    for one, other in ((a, b), (b, a)):
        for pattern, node in one.patterns:
            add(pattern, node if other.patterns else both(node, other.extra))
    if a.patterns and b.patterns and {p for p, _ in a.patterns} != {p for p, _ in b.patterns}:
        for one in (a, b):  # its extra is about names that only the other one's patterns match, too
            if one.extra is not ANY:
                add(none_of([pattern for pattern, _ in one.patterns]), one.extra)
    return simplified_patterns(tuple(found.items()), extra), extra


def none_of(patterns: Sequence[Pattern]) -> Pattern:
    """The pattern of the names that match none of ``patterns``."""
    if len(patterns) == 1:
        return opposite(patterns[0])
    path = patterns[0].path
    if any(pattern.is_format for pattern in patterns):
        raise SchemaError("patternProperties", path, "these names cannot be told apart by one regular expression")
    if not any(pattern.negated for pattern in patterns):
        return Pattern("|".join(f"(?:{pattern.text})" for pattern in patterns), negated=True, path=path)
    asked = (f"(?{'=' if pattern.negated else '!'}[\\s\\S]*(?:{pattern.text}))" for pattern in patterns)
    return Pattern("^" + "".join(asked), path=path)


def simplified_patterns(patterns: Patterns, extra: Node) -> Patterns:
    """Without those that say the same as ``extra`` about names that match nothing else."""
    if all(node is extra for _, node in patterns):
        return ()
    if extra is ANY:
        return tuple((pattern, node) for pattern, node in patterns if node is not ANY)
    return patterns

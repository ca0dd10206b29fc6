"""unevaluatedProperties and unevaluatedItems: what is left over by the keywords beside and below them.

Which members and items count as evaluated depends on which branches of anyOf, oneOf, if ... hold. So the schema is
taken apart into *cases*: in each it is known what holds and what that evaluates, and then the leftover is a plain
object or array schema. A case only says that its branches hold, not that the others fail: were others to hold too,
more would be evaluated and less left over, which another case allows anyway. (JSON Schema 2020-12, core, section 11.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.complement import complement
from minillm_serve.guided.schema.disjoint import disjoint
from minillm_serve.guided.schema.graph import Alternatives, Graph
from minillm_serve.guided.schema.nodes import ANY, NEVER, ArraySchema, Node, ObjectSchema, Pattern
from minillm_serve.guided.schema.simplify import simplified

MAX_CASES = 256
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
LISTS = ("allOf", "anyOf", "oneOf")
CONDITION = ("if", "then", "else")
UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
EVALUATING = frozenset(
    {"properties", "patternProperties", "additionalProperties", "prefixItems", "items", "additionalItems", "contains"}
)  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """Members by name or pattern (or all of them), the first ``count`` items (or all), items that satisfy ``nodes``."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[Pattern] = frozenset()
    all_names: bool = False
    count: int = 0
    all_items: bool = False
    nodes: frozenset[Node] = frozenset()

    def __or__(self, other: Evaluated) -> Evaluated:
        return Evaluated(
            self.names | other.names,
            self.patterns | other.patterns,
            self.all_names or other.all_names,
            max(self.count, other.count),
            self.all_items or other.all_items,
            self.nodes | other.nodes,
        )


Cases = list[tuple[Alternatives, Evaluated]]
NOTHING = Evaluated()


def with_unevaluated(raw: dict, path: str, graph: Graph, contains_evaluates: bool = True) -> Alternatives:
    """The alternatives of a raw subschema that has unevaluatedProperties or unevaluatedItems.

    contains_evaluates: items that satisfy ``contains`` count as evaluated (from draft 2020-12 on). Raises
    :class:`SchemaError` naming the keyword if there are too many cases.
    """
    cases = _Cases(graph, contains_evaluates).of(raw, path)
    return simplified(tuple(dict.fromkeys(a for alternatives, _ in cases for a in alternatives)), graph)


class _Cases:
    """Takes raw subschemas apart."""

    def __init__(self, graph: Graph, contains_evaluates: bool):
        self.graph = graph
        self.contains_evaluates = contains_evaluates
        self.open: set[int] = set()

    def of(self, raw: Any, path: str) -> Cases:
        """The cases of one raw subschema, those that evaluate the same things put together."""
        if not isinstance(raw, dict) or not self.evaluates(raw, path):
            return [(self.graph.resolve(self.graph.node(raw, path)), NOTHING)]
        if id(raw) in self.open:
            raise SchemaError("$ref", path, "this reference leads back to itself without consuming anything")
        self.open.add(id(raw))
        split = self._split(raw, path)
        plain = {key: value for key, value in raw.items() if key not in split and key not in UNEVALUATED}
        cases: Cases = [(self.graph.alternatives(plain, path), self._local(raw, path))]
        for keyword in split:
            if keyword in REFERENCES:
                cases = self._product(cases, self.of(*self.graph.target(raw, keyword, path)), keyword, path)
            elif keyword == "allOf":
                for branch in self._branches(raw, keyword, path):
                    cases = self._product(cases, self.of(*branch), keyword, path)
            elif keyword == "anyOf":
                cases = self._product(cases, self._any_of(raw, path), keyword, path)
            elif keyword == "oneOf":
                cases = self._product(cases, self._one_of(raw, path), keyword, path)
            elif keyword == "if":
                cases = self._product(cases, self._conditional(raw, path), keyword, path)
            elif keyword == "dependentSchemas":
                for name, sub in raw[keyword].items():
                    more = self._dependent(name, sub, pointer(path, keyword, name))
                    cases = self._product(cases, more, keyword, path)
        for keyword in UNEVALUATED:
            if keyword in raw:
                cases = self._close(cases, self.graph.node(raw[keyword], pointer(path, keyword)), keyword, path)
        self.open.discard(id(raw))
        return cases

    def _branches(self, raw: dict, keyword: str, path: str) -> list[tuple[Any, str]]:
        return [(sub, pointer(path, keyword, i)) for i, sub in enumerate(raw[keyword])]

    # -- what evaluates ------------------------------------------------------------------------------------------

    def evaluates(self, raw: Any, path: str, seen: frozenset[int] = frozenset()) -> bool:
        """Does this subschema, or one that applies to the same value, evaluate anything?"""
        spend(1, "unevaluatedProperties", path)
        if not isinstance(raw, dict) or id(raw) in seen or len(seen) > 100:
            return False
        if any(key in EVALUATING or key in UNEVALUATED for key in raw):
            return True
        seen |= {id(raw)}
        return any(self.evaluates(sub, where, seen) for key in raw for sub, where in self._in_place(raw, key, path))

    def _in_place(self, raw: dict, keyword: str, path: str) -> list[tuple[Any, str]]:
        """The subschemas under ``keyword`` that apply to the same value."""
        value = raw[keyword]
        if keyword in REFERENCES:
            return [self.graph.target(raw, keyword, path)]
        if keyword in LISTS and isinstance(value, list):
            return self._branches(raw, keyword, path)
        if keyword in CONDITION:
            return [(value, pointer(path, keyword))]
        if keyword == "dependentSchemas" and isinstance(value, dict):
            return [(sub, pointer(path, keyword, name)) for name, sub in value.items()]
        return []

    def _split(self, raw: dict, path: str) -> list[str]:
        """The keywords of ``raw`` that have to be taken apart; what evaluates nothing stays as it is."""
        found = []
        for keyword in raw:
            if any(self.evaluates(sub, where) for sub, where in self._in_place(raw, keyword, path)):
                found.extend(key for key in (CONDITION if keyword in CONDITION else (keyword,)) if key in raw)
        return list(dict.fromkeys(found))

    def _local(self, raw: dict, path: str) -> Evaluated:
        """What the keywords of ``raw`` itself evaluate."""
        prefix = raw.get("prefixItems", ())
        items = raw.get("items")
        if isinstance(items, list):
            prefix, items = items, raw.get("additionalItems")
        contains = "contains" in raw and self.contains_evaluates
        return Evaluated(
            names=frozenset(raw.get("properties", ())),
            patterns=frozenset(Pattern(p, path=path) for p in raw.get("patternProperties", ())),
            all_names="additionalProperties" in raw,
            count=len(prefix),
            all_items=items is not None,
            nodes=frozenset([self.graph.node(raw["contains"], pointer(path, "contains"))]) if contains else frozenset(),
        )

    # -- combining -----------------------------------------------------------------------------------------------

    def _product(self, left: Cases, right: Cases, keyword: str, path: str) -> Cases:
        """The cases in which one of ``left`` and one of ``right`` holds."""
        merged: dict[Evaluated, dict] = {}
        for have, evaluated in left:
            for more, others in right:
                spend(20, keyword, path)
                met = self.graph.meet(have, more, keyword, path)
                if met:
                    merged.setdefault(evaluated | others, {}).update(dict.fromkeys(met))
        return self._checked(merged, keyword, path)

    def _checked(self, merged: dict[Evaluated, dict], keyword: str, path: str) -> Cases:
        cases = [(simplified(tuple(found), self.graph), evaluated) for evaluated, found in merged.items()]
        if len(cases) > MAX_CASES:
            problem = f"more than {MAX_CASES} ways to say which members or items are evaluated"
            raise SchemaError(keyword, pointer(path, keyword), problem)
        return [case for case in cases if case[0]]

    def _union(self, parts: list[Cases], keyword: str, path: str) -> Cases:
        merged: dict[Evaluated, dict] = {}
        for cases in parts:
            for found, evaluated in cases:
                merged.setdefault(evaluated, {}).update(dict.fromkeys(found))
        return self._checked(merged, keyword, path)

    def _any_of(self, raw: dict, path: str) -> Cases:
        """Every set of branches that can hold together."""
        held: Cases = []
        for branch in self._branches(raw, "anyOf", path):
            own = self.of(*branch)
            held = self._union([held, own, self._product(held, own, "anyOf", path)], "anyOf", path)
        return held

    def _one_of(self, raw: dict, path: str) -> Cases:
        branches = self._branches(raw, "oneOf", path)
        nodes = [self.graph.node(*branch) for branch in branches]
        parts = []
        for index, branch in enumerate(branches):
            own = self.of(*branch)
            for other, node in enumerate(nodes):
                if other != index and not disjoint(nodes[index], node, self.graph):
                    own = self._product(own, self._refusing(node), "oneOf", path)
            parts.append(own)
        return self._union(parts, "oneOf", path)

    def _refusing(self, node: Node) -> Cases:
        return [(self.graph.resolve(complement(node, self.graph)), NOTHING)]

    def _conditional(self, raw: dict, path: str) -> Cases:
        condition, then, otherwise = ((raw.get(key, True), pointer(path, key)) for key in CONDITION)
        positive = self._product(self.of(*condition), self.of(*then), "if", path)
        refused = self._refusing(self.graph.node(*condition))
        return self._union([positive, self._product(refused, self.of(*otherwise), "if", path)], "if", path)

    def _dependent(self, name: str, sub: Any, path: str) -> Cases:
        rest = tuple(alternative for alternative in ANY.alternatives if not isinstance(alternative, ObjectSchema))
        alone = frozenset([name])
        present: Cases = [((ObjectSchema({name: ANY}, alone, ANY, undeclared=alone),), NOTHING)]
        absent: Cases = [((ObjectSchema({name: NEVER}, extra=ANY, undeclared=alone), *rest), NOTHING)]
        with_name = self._product(present, self.of(sub, path), "dependentSchemas", path)
        return self._union([absent, with_name], "dependentSchemas", path)

    # -- what is left over ---------------------------------------------------------------------------------------

    def _close(self, cases: Cases, rest: Node, keyword: str, path: str) -> Cases:
        """Each case with everything that it leaves over satisfying ``rest``; then all of it is evaluated."""
        merged: dict[Evaluated, dict] = {}
        for found, evaluated in cases:
            if keyword == "unevaluatedProperties":
                closed, evaluated = self._closed_object(evaluated, rest), replace(evaluated, all_names=True)
            else:
                closed, evaluated = self._closed_array(evaluated, rest, path), replace(evaluated, all_items=True)
            met = self.graph.meet(found, closed, keyword, path)
            merged.setdefault(evaluated, {}).update(dict.fromkeys(met))
        return self._checked(merged, keyword, path)

    def _closed_object(self, evaluated: Evaluated, rest: Node) -> Alternatives:
        if evaluated.all_names or rest is ANY:
            return ANY.alternatives
        patterns = sorted(evaluated.patterns, key=lambda pattern: pattern.text)
        closed = ObjectSchema(
            properties=dict.fromkeys(sorted(evaluated.names), ANY),
            extra=rest,
            patterns=tuple((pattern, ANY) for pattern in patterns),
            undeclared=evaluated.names,
        )
        return (closed, *(a for a in ANY.alternatives if not isinstance(a, ObjectSchema)))

    def _closed_array(self, evaluated: Evaluated, rest: Node, path: str) -> Alternatives:
        if evaluated.all_items or rest is ANY:
            return ANY.alternatives
        nodes = [rest, *evaluated.nodes]
        if len(nodes) > 1:
            items = self.graph.add(path, lambda: tuple(a for node in nodes for a in self.graph.resolve(node)))
        else:
            items = rest
        closed = ArraySchema((ANY,) * evaluated.count, items)
        return (closed, *(a for a in ANY.alternatives if not isinstance(a, ArraySchema)))

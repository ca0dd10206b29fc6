"""Raw JSON Schema -> graph of normalised nodes. Everything that cannot be honoured is refused here."""

from __future__ import annotations

from collections import deque
from typing import Any

from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.schema.algebra import disjoint, meet_all
from minillm_serve.guided.schema.document import lookup, parse_schema
from minillm_serve.guided.schema.keywords import (
    check_keywords,
    read_count,
    read_list,
    read_number,
    read_required,
    read_types,
    shown,
)
from minillm_serve.guided.schema.nodes import (
    ANY,
    NEVER,
    Alternative,
    ArraySchema,
    Interval,
    LiteralSchema,
    Node,
    NumberSchema,
    ObjectSchema,
    StringSchema,
    kind_of,
)

MAX_NODES = 20_000
MAX_ALTERNATIVES = 4_000
MAX_PRODUCT = 50_000
MAX_CHAIN = 100  # anyOf in $ref in anyOf ... before a value begins
MAX_ONE_OF = 64
Alternatives = tuple[Alternative, ...]


class Normaliser:
    """Turns one schema document into nodes; a node's alternatives are worked out when first needed."""

    def __init__(self, schema: dict | bool | str):
        self.root = parse_schema(schema)
        self.nodes: list[Node] = []
        self._of_raw: dict[int, Node] = {}
        self._of_pair: dict[tuple[Node, Node], Node] = {}
        self._pending: deque[Node] = deque()
        self._open: list[Node] = []  # nodes being resolved, outermost first

    @property
    def is_old_draft(self) -> bool:
        """Up to draft 4, 1.0 was no integer."""
        declared = self.root.get("$schema") if isinstance(self.root, dict) else None
        return isinstance(declared, str) and ("draft-03" in declared or "draft-04" in declared)

    def run(self) -> Node:
        """The root node, with every node reachable from it resolved. Raises :class:`SchemaError`."""
        root = self.node(self.root, "")
        while self._pending:
            self.resolve(self._pending.popleft())
        return root

    # -- nodes ---------------------------------------------------------------------------------------------------

    def node(self, raw: Any, path: str) -> Node:
        """The node of a raw subschema; the same object every time, which is what makes recursion finite."""
        if isinstance(raw, bool):
            return ANY if raw else Node.false(path)
        if not isinstance(raw, dict):
            raise SchemaError(
                path.rsplit("/", 1)[-1], path, f"a schema is an object or a boolean, got {type(raw).__name__}"
            )
        if id(raw) not in self._of_raw:
            self._of_raw[id(raw)] = self._add(Node(path))
            self._of_raw[id(raw)].rule = lambda: self._alternatives(raw, path)
        return self._of_raw[id(raw)]

    def both(self, a: Node, b: Node) -> Node:
        """The node for what ``a`` and ``b`` both accept, resolved later: intersection of recursive schemas is lazy."""
        if a is ANY or a is b or b is NEVER:
            return b
        if b is ANY or a is NEVER:
            return a
        if (a, b) not in self._of_pair:
            self._of_pair[a, b] = self._add(Node(a.path or b.path))
            self._of_pair[a, b].rule = lambda: meet_all(self.resolve(a), self.resolve(b), self.both)
        return self._of_pair[a, b]

    def _add(self, node: Node) -> Node:
        if len(self.nodes) >= MAX_NODES:
            raise SchemaError("schema", node.path, f"it expands to more than {MAX_NODES} subschemas")
        self.nodes.append(node)
        self._pending.append(node)
        return node

    def resolve(self, node: Node) -> Alternatives:
        if node.alternatives is None:
            if node.busy:
                raise SchemaError("$ref", node.path, "this reference leads back to itself without consuming anything")
            if len(self._open) >= MAX_CHAIN:
                raise SchemaError("$ref", node.path, f"more than {MAX_CHAIN} references before a value begins")
            node.busy = True
            self._open.append(node)
            node.alternatives = node.rule()
            self._open.pop()
            node.busy = False
            if len(node.alternatives) > MAX_ALTERNATIVES:
                raise SchemaError("anyOf", node.path, f"it expands to more than {MAX_ALTERNATIVES} alternatives")
            if not node.alternatives and node.reason is None:
                node.reason = ("schema", node.path, "no value can satisfy these keywords together")
            node.rule = None
        return node.alternatives

    # -- one subschema -------------------------------------------------------------------------------------------

    def _alternatives(self, raw: dict, path: str) -> Alternatives:
        check_keywords(raw, path)
        typed = self._typed(raw, path)
        found = ANY.alternatives if "properties" in raw else typed
        for keyword in raw:  # in the schema's order, which becomes the order of the properties
            if keyword == "properties":
                found = self._meet(found, typed, keyword, path)
            elif keyword in ("enum", "const"):
                found = self._meet(found, self._constants(raw, keyword, path), keyword, path)
            elif keyword == "$ref":
                found = self._meet(found, self.resolve(self._target(raw, path)), keyword, path)
            elif keyword == "allOf":
                for branch in self._branches(raw, keyword, path):
                    found = self._meet(found, self.resolve(branch), keyword, path)
            elif keyword in ("anyOf", "oneOf"):
                found = self._meet(found, self._union(raw, keyword, path), keyword, path)
        return found

    def _target(self, raw: dict, path: str) -> Node:
        here = pointer(path, "$ref")
        if not isinstance(raw["$ref"], str):
            raise SchemaError("$ref", here, f"expected a string, got {shown(raw['$ref'])}")
        return self.node(*lookup(self.root, raw["$ref"], here))

    def _meet(self, found: Alternatives, more: Alternatives, keyword: str, path: str) -> Alternatives:
        if len(found) * len(more) > MAX_PRODUCT:
            raise SchemaError(keyword, pointer(path, keyword), "it expands to too many combinations")
        met = meet_all(found, more, self.both)
        if not met:
            self._note(path, keyword, "no value can satisfy it together with the keywords beside it")
        return met

    def _note(self, path: str, keyword: str, problem: str) -> None:
        """Remember why the node being resolved accepts nothing; it is an error only if something needs the node."""
        node = self._open[-1]
        node.reason = node.reason or (keyword, pointer(path, keyword), problem)

    def _branches(self, raw: dict, keyword: str, path: str) -> list[Node]:
        return [self.node(b, pointer(path, keyword, i)) for i, b in enumerate(read_list(raw, keyword, path))]

    def _union(self, raw: dict, keyword: str, path: str) -> Alternatives:
        branches = self._branches(raw, keyword, path)
        if keyword == "oneOf":
            self._check_exclusive(branches, path)
        union: dict[Alternative, None] = {}
        for branch in branches:
            union.update(dict.fromkeys(self.resolve(branch)))
        return tuple(union)

    def _check_exclusive(self, branches: list[Node], path: str) -> None:
        here = pointer(path, "oneOf")
        if len(branches) > MAX_ONE_OF:
            raise SchemaError("oneOf", here, f"more than {MAX_ONE_OF} branches; use anyOf if they exclude each other")
        for j, b in enumerate(branches):
            for i, a in enumerate(branches[:j]):
                if not disjoint(a, b, self.resolve):
                    problem = f"branches {i} and {j} are not provably exclusive; use anyOf if either may hold"
                    raise SchemaError("oneOf", here, problem)

    def _typed(self, raw: dict, path: str) -> Alternatives:
        """What the keywords of each type leave, for every type that ``type`` allows."""
        makers = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._number,
            "boolean": lambda raw, path: LiteralSchema((True, False)),
            "null": lambda raw, path: LiteralSchema((None,)),
        }
        made = {kind: make(raw, path) for kind, make in makers.items()}
        types = read_types(raw, path)
        if "number" not in types and isinstance(made["integer"], NumberSchema):
            made["integer"] = NumberSchema(made["integer"].interval, integer=True)
        if "number" in types:
            types = tuple(kind for kind in types if kind != "integer")
        if not any(keyword in raw for keyword in _CONSTRAINING):
            return ANY.alternatives
        found = tuple(made[kind] for kind in types if made[kind] is not None)
        if not types:
            self._note(path, "type", "an empty list of types accepts no value")
        return found

    def _string(self, raw: dict, path: str) -> StringSchema | None:
        low, high = self._counts(raw, "minLength", "maxLength", path)
        return None if high is not None and low > high else StringSchema(low, high)

    def _counts(self, raw: dict, least: str, most: str, path: str) -> tuple[int, int | None]:
        low, high = read_count(raw, least, path) or 0, read_count(raw, most, path)
        if high is not None and low > high:
            self._note(path, least, f"{least} {low} is greater than {most} {high}")
        return low, high

    def _number(self, raw: dict, path: str) -> NumberSchema | None:
        interval = Interval(low=read_number(raw, "minimum", path), high=read_number(raw, "maximum", path))
        interval = interval.meet(Interval(low=read_number(raw, "exclusiveMinimum", path), low_open=True))
        interval = interval.meet(Interval(high=read_number(raw, "exclusiveMaximum", path), high_open=True))
        if interval.empty:
            keyword = "minimum" if "minimum" in raw else "exclusiveMinimum"
            self._note(path, keyword, "no number lies between the lower and the upper bound")
            return None
        return NumberSchema(interval)

    def _array(self, raw: dict, path: str) -> ArraySchema | None:
        low, high = self._counts(raw, "minItems", "maxItems", path)
        if isinstance(raw.get("items"), list):
            raise SchemaError("items", pointer(path, "items"), "an array here is pre-2020 syntax; use prefixItems")
        prefix = self._branches(raw, "prefixItems", path) if "prefixItems" in raw else []
        items = self.node(raw["items"], pointer(path, "items")) if "items" in raw else ANY
        return None if high is not None and low > high else ArraySchema(tuple(prefix), items, low, high)

    def _object(self, raw: dict, path: str) -> ObjectSchema:
        here = pointer(path, "properties")
        declared = raw.get("properties", {})
        if not isinstance(declared, dict):
            raise SchemaError("properties", here, f"expected an object, got {shown(declared)}")
        properties = {name: self.node(value, pointer(here, name)) for name, value in declared.items()}
        extra = self.node(raw.get("additionalProperties", True), pointer(path, "additionalProperties"))
        required = read_required(raw, path)
        for name in required:
            properties.setdefault(name, extra)
        return ObjectSchema(properties, frozenset(required), extra)

    def _constants(self, raw: dict, keyword: str, path: str) -> Alternatives:
        values = [raw["const"]] if keyword == "const" else raw["enum"]
        if not isinstance(values, list):
            raise SchemaError("enum", pointer(path, "enum"), f"expected an array, got {shown(values)}")
        if not values:
            self._note(path, "enum", "an empty enum accepts no value")
        scalars = tuple(value for value in values if kind_of(value) not in ("object", "array"))
        found = (LiteralSchema(scalars),) if scalars else ()
        containers = [value for value in values if kind_of(value) in ("object", "array")]
        return found + tuple(self._constant(value, pointer(path, keyword)) for value in containers)

    def _constant(self, value: Any, path: str) -> Alternative:
        """A constant as the schema that only it satisfies."""
        if isinstance(value, dict):
            properties = {key: self._constant_node(child, path) for key, child in value.items()}
            return ObjectSchema(properties, frozenset(value), NEVER)
        if isinstance(value, (list, tuple)):
            prefix = tuple(self._constant_node(child, path) for child in value)
            return ArraySchema(prefix, NEVER, len(value), len(value))
        return LiteralSchema((value,))

    def _constant_node(self, value: Any, path: str) -> Node:
        node = self._add(Node(path))
        node.rule = lambda: (self._constant(value, path),)
        return node


_CONSTRAINING = (
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems",
    "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
)  # fmt: skip

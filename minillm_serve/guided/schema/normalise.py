"""Raw JSON Schema -> graph of normalised nodes. What cannot be honoured is refused, with its keyword and path."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from minillm_serve.guided.budget import spend
from minillm_serve.guided.errors import SchemaError, pointer
from minillm_serve.guided.options import JsonOptions
from minillm_serve.guided.schema.algebra import meet_all
from minillm_serve.guided.schema.dialect import dialect_of, draft_named
from minillm_serve.guided.schema.document import malformed, parse_schema
from minillm_serve.guided.schema.graph import Alternatives
from minillm_serve.guided.schema.keywords import shown
from minillm_serve.guided.schema.leniency import Leniency, is_lenient
from minillm_serve.guided.schema.nodes import ANY, NEVER, Alternative, ArraySchema, Node, ObjectSchema
from minillm_serve.guided.schema.references import References, Scope
from minillm_serve.guided.schema.simplify import simplified
from minillm_serve.guided.schema.subschema import COMBINING, read_subschema

MAX_NODES = 50_000
MAX_ALTERNATIVES = 4_000
MAX_PRODUCT = 50_000
MAX_CHAIN = 50  # anyOf in $ref in anyOf ... before a value begins
MAX_PEEKS = 8  # peeks one inside the other
Context = tuple[Scope, int]  # where dynamic anchors lead, and the draft of the keywords


class Normaliser:
    """Turns one schema document into nodes; a node's alternatives are worked out when first needed.

    notes: (keyword, path, why) of what asserts nothing or, if the request is lenient, was left out.
    """

    def __init__(self, schema: dict | bool | str, options: JsonOptions | None = None):
        self.root, named = parse_schema(schema)
        draft = dialect_of(self.root)
        self.references = References(self.root, draft, named)
        self._outermost: Context = ((), draft)
        self.leniency = Leniency(self.root) if is_lenient(self.root, options) else None
        self._reset()

    def _reset(self) -> None:
        self._notes: dict[tuple[str, str], str] = {}
        self._count = 0
        self._of_raw: dict[Any, tuple[Any, Node]] = {}  # with the raw subschema, so that its id stays its own
        self._of_parts: dict[frozenset[Node], Node] = {}
        self._parts: dict[Node, frozenset[Node]] = {}
        self._open: list[Node] = []  # nodes being resolved, outermost first
        self._peeks = 0
        self._context = self._outermost  # of the node being resolved
        self._contexts: dict[Node, Context] = {}  # of the nodes that have another one than the root
        self.is_old_draft = self.draft == 4  # is a part in draft 4, where 1.0 was no integer?

    @property
    def draft(self) -> int:
        """The draft that the subschema being read is written in."""
        return self._context[1]

    @property
    def notes(self) -> list[tuple[str, str, str]]:
        left_out = self.leniency.notes if self.leniency else []
        return [*left_out, *((keyword, path, why) for (keyword, path), why in self._notes.items())]

    def run(self) -> Node:
        """The root node, with every node reachable from it resolved. Raises :class:`SchemaError`."""
        while True:
            try:
                return self._run()
            except RecursionError:
                raise SchemaError("schema", "", "its parts are nested too deeply to be combined") from None
            except SchemaError as error:
                if not self.leave_out(error):
                    raise

    def leave_out(self, error: SchemaError) -> bool:
        """Is the request lenient, and can what ``error`` refuses be left out? Then :meth:`run` again does without."""
        if self.leniency is None or not self.leniency.leave_out(error):
            return False
        self._reset()
        return True

    def _run(self) -> Node:
        root = self.node(self.root, "")
        found, queue = {root}, deque([root])
        while queue:
            for child in children(self.resolve(queue.popleft())):
                if child not in found:
                    found.add(child)
                    queue.append(child)
        if not root.alternatives:
            keyword, path, problem = root.reason or ("schema", "", "no value can satisfy it")
            raise SchemaError(keyword, path, problem, kind="unsatisfiable")
        return root

    # -- nodes ---------------------------------------------------------------------------------------------------

    def node(self, raw: Any, path: str) -> Node:
        """The node of a raw subschema; the same object every time, which is what makes recursion finite."""
        if raw is True:
            return ANY
        if raw is False:
            return Node.false(path)
        if not isinstance(raw, dict):
            keyword = path.rsplit("/", 1)[-1]
            raise malformed(keyword, path, f"a schema is an object or a boolean, got {shown(raw)}")
        context = self._entered(raw)
        key = id(raw) if context == self._outermost else (id(raw), context)
        found = self._of_raw.get(key)
        if found is None:
            found = raw, (self.add(path, lambda: self.alternatives(raw, path), context) if raw else ANY)
            self._of_raw[key] = found
        return found[1]

    def _entered(self, raw: dict) -> Context:
        """The context inside ``raw``, seen from that of now: both are inherited, also through references."""
        scope, draft = self._context
        draft = draft_named(raw["$schema"]) or draft if "$schema" in raw else draft
        self.is_old_draft = self.is_old_draft or draft == 4
        return self.references.entered(scope, raw), draft

    def add(self, path: str, rule: Callable[[], Alternatives], context: Context | None = None) -> Node:
        """A new node whose alternatives ``rule`` works out later, in ``context`` (None: that of now)."""
        self._count += 1
        if self._count > MAX_NODES:
            raise SchemaError("schema", path, f"it expands to more than {MAX_NODES} subschemas")
        node = Node(path, rule)
        context = context or self._context
        if context != self._outermost:
            self._contexts[node] = context
        return node

    def both(self, a: Node, b: Node) -> Node:
        """The node for what ``a`` and ``b`` both accept, resolved later: intersection of recursive schemas is lazy."""
        if a is ANY or a is b or b.is_false:
            return b
        if b is ANY or a.is_false:
            return a
        if a.opposite is b:
            return NEVER
        parts = (self._parts.get(a) or frozenset((a,))) | (self._parts.get(b) or frozenset((b,)))
        node = self._of_parts.get(parts)
        if node is None:
            path = a.path or b.path
            node = self.add(path, lambda: self.simple(self.meet(self.resolve(a), self.resolve(b), "allOf", path)))
            self._of_parts[parts], self._parts[node] = node, parts
        return node

    def resolve(self, node: Node) -> Alternatives:
        """The node's alternatives. Raises :class:`SchemaError` if the node leads back to itself."""
        if node.alternatives is not None:
            return node.alternatives
        if node.busy:
            raise malformed("$ref", node.path, "this reference leads back to itself without consuming anything")
        if len(self._open) >= MAX_CHAIN:
            problem = f"more than {MAX_CHAIN} schemas one inside the other before a value begins"
            raise SchemaError(_combining(node.path), node.path, problem)
        spend(40, "schema", node.path)
        node.busy = True
        self._open.append(node)
        outer, self._context = self._context, self._contexts.get(node, self._outermost)
        try:
            found = node.rule()  # type: ignore[misc]  # a node without alternatives has a rule
        except SchemaError:
            node.reason = None
            raise
        finally:
            self._open.pop()
            self._context = outer
            node.busy = False
        if len(found) > MAX_ALTERNATIVES:
            raise SchemaError("anyOf", node.path, f"it expands to more than {MAX_ALTERNATIVES} alternatives")
        if not found and node.reason is None:
            node.reason = ("schema", node.path, "no value can satisfy these keywords together")
        node.alternatives, node.rule = found, None
        return found

    def peek(self, node: Node) -> Alternatives | None:
        """The node's alternatives if they can be had now; None if not, for whatever reason."""
        if node.alternatives is not None:
            return node.alternatives
        if node.busy or self._peeks >= MAX_PEEKS or len(self._open) > MAX_CHAIN // 2:
            return None
        self._peeks += 1
        try:
            return self.resolve(node)
        except SchemaError:
            return None
        finally:
            self._peeks -= 1

    # -- subschemas ----------------------------------------------------------------------------------------------

    def alternatives(self, raw: dict, path: str) -> Alternatives:
        """What the keywords of ``raw`` mean together (``raw`` need not be a part of the document)."""
        return read_subschema(self, self.leniency.kept(raw, path) if self.leniency else raw, path)

    def target(self, raw: dict, keyword: str, path: str) -> tuple[Any, str]:
        """Where the reference ``raw[keyword]`` leads: a raw subschema and its path."""
        return self.references.follow(raw, keyword, path, self._context[0])

    def meet(self, left: Alternatives, right: Alternatives, keyword: str, path: str) -> Alternatives:
        """What one of ``left`` and one of ``right`` both accept; the order of properties is that of ``left``."""
        if len(left) * len(right) > MAX_PRODUCT:
            raise SchemaError(keyword, pointer(path, keyword), "it expands to too many combinations")
        spend(10 * len(left) * len(right), keyword, path)
        return meet_all(left, right, self.both)

    def simple(self, alternatives: Alternatives) -> Alternatives:
        """A union that accepts the same values, with fewer alternatives if they are easily found."""
        path = self._open[-1].path if self._open else ""
        return simplified(alternatives, self, path) if len(alternatives) > 1 else alternatives

    def note(self, keyword: str, path: str, why: str) -> None:
        """Tell the user of something that stands in the schema and asserts nothing."""
        self._notes.setdefault((keyword, path), why)

    def blame(self, keyword: str, path: str, problem: str) -> None:
        """Remember why the node being resolved accepts nothing; it is an error only if something needs the node."""
        if self._open:
            self._open[-1].reason = self._open[-1].reason or (keyword, path, problem)


def _combining(path: str) -> str:
    """The keyword through which the subschema at ``path`` applies to the same value as the one around it."""
    tokens = path.rsplit("/", 2)[1:]
    return next((token for token in reversed(tokens) if token in COMBINING or token in ("then", "else")), "$ref")


def children(alternatives: tuple[Alternative, ...]) -> Iterator[Node]:
    """The nodes of the members and items of these alternatives."""
    for alternative in alternatives:
        if isinstance(alternative, ArraySchema):
            yield from alternative.prefix
            yield alternative.items
            for rule in alternative.contains:
                yield rule.node
        elif isinstance(alternative, ObjectSchema):
            yield from alternative.properties.values()
            yield alternative.extra
            for _, node in alternative.patterns:
                yield node
            for witness in alternative.witnesses:
                yield witness.node

"""What the parts of the normaliser ask of it: new nodes, made once and worked out when first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from minillm_serve.guided.schema.nodes import Alternative, Node

Alternatives = tuple[Alternative, ...]


class Graph(Protocol):
    """The graph of nodes of one schema document; :class:`~minillm_serve.guided.schema.normalise.Normaliser` is one."""

    def add(self, path: str, rule: Callable[[], Alternatives]) -> Node:
        """A new node whose alternatives ``rule`` works out later."""
        ...

    def both(self, a: Node, b: Node) -> Node:
        """The node for what ``a`` and ``b`` both accept; the same object every time."""
        ...

    def resolve(self, node: Node) -> Alternatives:
        """The node's alternatives. Raises :class:`SchemaError` if the node leads back to itself."""
        ...

    def peek(self, node: Node) -> Alternatives | None:
        """The node's alternatives if they can be had now; None if not, for whatever reason.

        Reasons: the node, or one it needs, is just being worked out; too many peeks one inside the other; an error,
        which is left to the time when the node is really needed.
        """
        ...

    def meet(self, left: Alternatives, right: Alternatives, keyword: str, path: str) -> Alternatives:
        """What one of ``left`` and one of ``right`` both accept; the order of properties is that of ``left``.

        Raises :class:`SchemaError` naming ``keyword`` at ``path`` if these are too many combinations.
        """
        ...

    def node(self, raw: Any, path: str) -> Node:
        """The node of the raw subschema that stands at ``path``; the same object every time."""
        ...

    def target(self, raw: dict, keyword: str, path: str) -> tuple[Any, str]:
        """Where the reference ``raw[keyword]`` ($ref, $dynamicRef, ...) leads: a raw subschema and its path."""
        ...

    def alternatives(self, raw: dict, path: str) -> Alternatives:
        """What the keywords of ``raw`` mean together, worked out now (``raw`` need not be a part of the document)."""
        ...

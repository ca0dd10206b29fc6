"""How a constraint may be spelled out, where the schema leaves it open."""

from __future__ import annotations

from dataclasses import dataclass

from minillm_serve.guided.errors import SchemaError

WHITESPACE = ("json", "compact", "spaced", "flexible")
MAX_WHITESPACE = 64


@dataclass(frozen=True)
class JsonOptions:
    """Choices that a JSON Schema does not make.

    whitespace: ``json``, what ``json.dumps`` writes: nothing or one space after each ``,`` and ``:``; ``compact``,
    never a space; ``spaced``, always one; ``flexible``, up to max_whitespace spaces, tabs or line ends wherever JSON
    allows them. any_order: properties in any order, not just the schema's. lenient: keywords that cannot be enforced
    are left out (and listed in ``CompiledGrammar.notes``) where otherwise the schema would be refused.
    """

    whitespace: str = "json"
    max_whitespace: int = 16
    any_order: bool = False
    lenient: bool = False

    def __post_init__(self) -> None:
        if self.whitespace not in WHITESPACE:
            raise SchemaError("whitespace", "", f"expected one of {', '.join(WHITESPACE)}; got {self.whitespace!r}")
        if isinstance(self.max_whitespace, bool) or not isinstance(self.max_whitespace, int):
            raise SchemaError("max_whitespace", "", f"expected an integer, got {self.max_whitespace!r}")
        if not 0 <= self.max_whitespace <= MAX_WHITESPACE:
            raise SchemaError("max_whitespace", "", f"expected 0 to {MAX_WHITESPACE}, got {self.max_whitespace}")
        for name in ("any_order", "lenient"):
            if not isinstance(getattr(self, name), bool):
                raise SchemaError(name, "", f"expected true or false, got {getattr(self, name)!r}")

"""A grammar as it was written: named rules, whose bodies are syntax trees of regular expressions plus names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text.regex_ast import Assertion, Chars, Choice, Look, Repeat, Sequence

MAX_LENGTH = 400_000  # characters of a grammar
MAX_RULES = 10_000
MAX_NESTING = 48  # groups inside groups
MAX_REPEAT = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where something stands in the text of a grammar, from 1 on."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class Word:
    """Just this text."""

    text: str


@dataclass(frozen=True, eq=False)
class Name:
    """Another rule is read here."""

    name: str
    place: Place


Tree = Word | Chars | Sequence | Choice | Repeat | Assertion | Look | Name
"""``regex_ast.Tree``, with words and names for leaves."""


@dataclass(frozen=True, eq=False)
class Rule:
    name: str
    body: Tree
    place: Place


@dataclass(frozen=True, eq=False)
class Grammar:
    """Rules by name; a text of the grammar is one of the rule ``start``."""

    rules: dict[str, Rule]
    start: str


def refuse(place: Place, problem: str, kind: str = "malformed") -> SchemaError:
    return SchemaError("grammar", str(place), problem, kind=kind)


def names(tree: Tree) -> Iterator[Name]:
    """The names in a tree, from left to right."""
    stack = [tree]
    while stack:
        match stack.pop():
            case Name() as name:
                yield name
            case Sequence(parts) | Choice(parts):
                stack.extend(reversed(parts))
            case Repeat(body, _, _):
                stack.append(body)


def reached(grammar: Grammar) -> list[str]:
    """The rules that the start needs, itself first. Raises :class:`SchemaError` for a name without a rule."""
    found, stack = {grammar.start: None}, [grammar.start]
    while stack:
        for name in names(grammar.rules[stack.pop()].body):
            if name.name not in grammar.rules:
                raise refuse(name.place, f"the rule {name.name!r} is not defined")
            if name.name not in found:
                found[name.name] = None
                stack.append(name.name)
    return list(found)

"""The syntax tree of a regular expression. The language is all that counts: groups capture nothing, nothing is lazy."""

from __future__ import annotations

from dataclasses import dataclass

from minillm_serve.guided.text.codepoints import Ranges


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set (none, if the set is empty)."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; ``Sequence(())`` is the empty text."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """``low`` to ``high`` times (None: any number of times)."""

    body: Tree
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Assertion:
    """Reads nothing. kind: ``^`` start of text, ``$`` end of text, ``b`` word boundary, ``B`` none.

    ``z`` is the end of the text too, where dialects agree on it (a ``$`` of Python also holds before a last line end).
    """

    kind: str


@dataclass(frozen=True, slots=True)
class Look:
    """Reads nothing: what follows here (``behind``: what stands before) matches ``body``, or does not."""

    body: Tree
    negative: bool
    behind: bool


Tree = Chars | Sequence | Choice | Repeat | Assertion | Look

EMPTY = Sequence(())


def sequence(parts: list[Tree]) -> Tree:
    """The shortest tree that means ``parts`` in a row."""
    return parts[0] if len(parts) == 1 else Sequence(tuple(parts))


def choice(parts: list[Tree]) -> Tree:
    """The shortest tree that means one of ``parts``."""
    return parts[0] if len(parts) == 1 else Choice(tuple(parts))

"""Where one text stands: the readings of it, and for each the calls that are not over."""

from __future__ import annotations

from typing import Any, NamedTuple

from minillm_serve.guided.automaton.forbidden import Words


class Frame:
    """A call that is not over: where it returns to, and the texts that unique arcs have read in it.

    depth: frames below it; the outermost has no parent and returns to nowhere.
    """

    __slots__ = ("_hash", "_words", "depth", "parent", "taken", "then")

    def __init__(self, then: int, taken: frozenset[str | bytes], parent: Frame | None):
        self.then, self.taken, self.parent = then, taken, parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self._words: dict[type, Words] = {}
        self._hash = hash((then, taken, parent))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        a, b = self, other
        while a is not b:
            if not isinstance(a, Frame) or not isinstance(b, Frame) or a._hash != b._hash:
                return False
            if a.then != b.then or a.taken != b.taken:
                return False
            a, b = a.parent, b.parent
        return True

    def taking(self, text: str | bytes) -> Frame:
        """This frame once ``text`` has been read in it by a unique arc."""
        return Frame(self.then, self.taken | {text}, self.parent)

    def words(self, kind: type) -> Words:
        """What unique arcs have read, of one kind: decoded characters (str) or bytes."""
        if kind not in self._words:
            self._words[kind] = Words(text for text in self.taken if isinstance(text, kind))
        return self._words[kind]


class LeafKey(NamedTuple):
    """A leaf of the network, without the ends that have the ``closed`` tags."""

    number: int
    closed: tuple[int, ...] = ()


class Thread(NamedTuple):
    """One reading: ``state`` in ``leaf``; what comes after it stands in targets and frame."""

    leaf: LeafKey
    state: Any
    targets: tuple[int, ...]
    unique: bool
    frame: Frame


class Position:
    """All readings of one text. ``complete``: the text may end here."""

    __slots__ = ("_hash", "complete", "key", "threads")

    def __init__(self, threads: tuple[Thread, ...], complete: bool):
        self.threads, self.complete = threads, complete
        self.key = (frozenset(threads), complete)
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Position) and self.key == other.key)


class Arrived:
    """What one byte has led to so far; a dict keeps the order in which threads come."""

    __slots__ = ("complete", "seen", "threads")

    def __init__(self) -> None:
        self.threads: dict[Thread, None] = {}
        self.seen: set[tuple[int, Frame]] = set()
        self.complete = False

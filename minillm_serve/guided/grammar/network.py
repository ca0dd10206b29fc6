"""The one thing that every kind of constraint becomes: a recursive transition network over finite-state leaves.

A network is a set of states. From a state, arcs lead on: a *leaf* reads text with a finite automaton, a *call* runs
another part of the network and comes back, RETURN is where a called part (or the whole text) ends. States are made
when first reached, so that a counter up to a million costs nothing until it counts. (Woods 1970, "Transition network
grammars for natural language analysis".)

Promises of every network, on which the automaton relies:
- from every state, RETURN can be reached by text made of the vocabulary's single-byte tokens (no dead ends);
- no way leads from a state back to it without reading a byte (no left recursion, no empty loops);
- ``arcs`` and ``cost`` of a state never change.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from minillm_serve.guided.text.chars import CharDfa
from minillm_serve.guided.text.dfa import Dfa

RETURN = 0  # the state in which a call, or the text, is over
UNBOUNDED_COST = 1 << 30


@dataclass(frozen=True, eq=False)
class Literals:
    """Exactly one of ``texts`` (bytes as they stand in the output, all different, none empty); tags: one for each."""

    texts: tuple[bytes, ...]
    tags: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Bytes:
    """A byte automaton; ``dfa.finals`` maps its end states to tags (ints). It is trimmed."""

    dfa: Dfa


@dataclass(frozen=True, eq=False)
class Text:
    """Characters: a JSON string with its quotes and escapes (``quoted``), or bare well-formed UTF-8.

    dfa: which texts (None: any; the tag is then 0). min_length, max_length: code points (None: any number). excluded:
    decoded texts that are not allowed, whatever dfa says.
    """

    dfa: CharDfa | None = None
    min_length: int = 0
    max_length: int | None = None
    excluded: tuple[str, ...] = ()
    quoted: bool = True


Leaf = Literals | Bytes | Text


@dataclass(frozen=True, slots=True)
class Read:
    """Read leaf number ``leaf`` of the network, then go to ``targets[tag]``.

    height: how many frames a call stack needs at least from here to RETURN (0 for a scalar, 1 for an object with one
    required scalar member, ...); it must be enough for every tag, or the arc has to be split. unique: the text just
    read must differ from every text read so by a unique arc in the same frame (Text: the decoded characters; other
    leaves: the bytes); a key, or an item of uniqueItems. What is read by Text and what is read by other leaves in one
    frame is never equal.
    """

    leaf: int
    targets: tuple[int, ...]
    height: int = 0
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Push a frame, run from ``entry`` to RETURN, pop it, and go on in ``then``.

    Where ``then`` is RETURN (a tail call) the caller's frame is replaced: same depth, no text read so far.
    """

    entry: int
    then: int
    height: int = 0


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in ``target`` without reading anything."""

    target: int
    height: int = 0


Arc = Read | Call | Jump


class Place(Protocol):
    """What a state of the network is: a hashable value that knows its arcs. Equal places are one state."""

    def arcs(self, network: Network) -> tuple[Arc, ...]:
        """The ways on. Called once for each state, when a text first reaches it."""
        ...

    def cost(self, network: Network) -> int:
        """Bytes of the shortest text from here to RETURN; UNBOUNDED_COST if no bound is known."""
        ...

    def describe(self) -> str:
        """One line for people, such as ``object /properties/address, after "street"``."""
        ...


class Network:
    """The states and leaves made so far. ``max_depth``: frames that may be on the stack at once.

    An arc may be taken in a frame at depth d (the outermost is 0) only if d + arc.height <= max_depth.
    """

    def __init__(self, max_depth: int = 64):
        self.max_depth = max_depth
        self.start = RETURN
        self.leaves: list[Leaf] = []
        self.places: list[Place | None] = [None]  # of RETURN there is none
        self._numbers: dict[Hashable, int] = {}
        self._leaf_numbers: dict[Hashable, int] = {}
        self._arcs: dict[int, tuple[Arc, ...]] = {}

    def state(self, place: Place) -> int:
        """The number of the state that is ``place``."""
        number = self._numbers.get(place)
        if number is None:
            number = self._numbers[place] = len(self.places)
            self.places.append(place)
        return number

    def leaf(self, leaf: Leaf, key: Hashable = None) -> int:
        """The number of a leaf. With a ``key``, a leaf that was added under the same key before is reused."""
        if key is not None and key in self._leaf_numbers:
            return self._leaf_numbers[key]
        self.leaves.append(leaf)
        number = len(self.leaves) - 1
        if key is not None:
            self._leaf_numbers[key] = number
        return number

    def has_leaf(self, key: Hashable) -> int | None:
        """The number of the leaf added under ``key``, None if there is none: saves building it again."""
        return self._leaf_numbers.get(key)

    def expand(self, state: int) -> tuple[Arc, ...]:
        """The arcs of a state other than RETURN."""
        if state not in self._arcs:
            self._arcs[state] = self.places[state].arcs(self)  # type: ignore[union-attr]
        return self._arcs[state]

    def cost(self, state: int) -> int:
        """Bytes of the shortest text from ``state`` to RETURN."""
        return 0 if state == RETURN else self.places[state].cost(self)  # type: ignore[union-attr]

    def nbytes(self) -> int:
        """Memory held by the states and leaves made so far, in bytes (an estimate)."""
        reached = [arc for found in list(self._arcs.values()) for arc in found]
        arcs = sum(len(arc.targets) if isinstance(arc, Read) else 2 for arc in reached)
        return 400 * len(self.places) + 100 * arcs + sum(map(_leaf_bytes, self.leaves))

    def describe(self, state: int) -> str:
        return "end" if state == RETURN else self.places[state].describe()  # type: ignore[union-attr]


def _leaf_bytes(leaf: Leaf) -> int:
    if isinstance(leaf, Literals):
        return sum(map(len, leaf.texts)) + 60 * len(leaf.texts)
    if isinstance(leaf, Bytes):
        return 100 * sum(map(len, leaf.dfa.edges))
    return 60 * len(leaf.excluded) + (0 if leaf.dfa is None else 8 * sum(map(len, leaf.dfa.rows)))

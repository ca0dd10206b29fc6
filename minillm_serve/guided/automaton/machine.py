"""The reference machine: a network run byte by byte in plain Python.

A *thread* is one reading of the text so far: a leaf, the state in it, and the frames to return to. A position is the
set of all threads that the text leads to (Thompson 1968; with a stack, as in Lang 1974). Only threads that can be
completed are ever made, so a position that is not None always has a way to the end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from threading import RLock
from typing import Any

import numpy as np

from minillm_serve.guided.automaton.closure import MAX_THREADS, Closure, LeafAutomaton
from minillm_serve.guided.automaton.forbidden import Forbidden
from minillm_serve.guided.automaton.positions import Arrived, Frame, Position, Thread
from minillm_serve.guided.automaton.token_masks import TokenMasks
from minillm_serve.guided.automaton.vocab import Vocab
from minillm_serve.guided.grammar.network import RETURN, UNBOUNDED_COST, Network

MAX_HELD_BYTES = 32 << 20  # of positions, and again of masks
_POSITION_BYTES, _THREAD_BYTES, _STEP_BYTES = 400, 200, 120  # about what CPython takes
_MAX_READINGS, _MAX_FRAMES = 16, 8
_MISSING: Any = object()


class ReferenceMachine:
    """Runs ``network`` over ``vocab``; see interface.Machine for what each method promises."""

    def __init__(self, network: Network, vocab: Vocab):
        self.network, self.vocab = network, vocab
        self.closure = Closure(network, vocab.alphabet)
        self.pruned = False  # True once a position had more than MAX_THREADS threads and was cut
        self._lock = RLock()
        self._steps: dict[tuple[Position, int], Position | None] = {}
        self._known: dict[Position, Position] = {}
        self._held = 0
        self._masks: OrderedDict[Position, np.ndarray] = OrderedDict()
        self._tokens = TokenMasks(self)
        self._start = self.after(network.start, Frame(RETURN, frozenset(), None))

    # -- the interface -------------------------------------------------------------------------------------------

    def start(self) -> Position:
        assert self._start is not None, "a network promises that its start can be completed"
        return self._start

    def advance(self, position: Position, data: bytes) -> Position | None:
        with self._lock:
            found: Position | None = position
            for byte in data:
                if found is None:
                    return None
                found = self.step(found, byte)
            return found

    def complete(self, position: Position) -> bool:
        return position.complete

    def fill(self, position: Position, out: np.ndarray, budget: int | None = None) -> None:
        with self._lock:
            out[:] = self._mask(position) if budget is None else self._tokens.fill(position, budget)

    def bind(self, out: np.ndarray) -> Callable[[Position], None]:
        return lambda position: self.fill(position, out)

    def forced(self, position: Position, limit: int = 4096) -> bytes:
        with self._lock:
            found = bytearray()
            while len(found) < limit and not position.complete:
                choices = self._next_bytes(position)
                byte = next(choices)
                if next(choices, None) is not None:
                    break
                found.append(byte)
                target = self.step(position, byte)
                assert target is not None
                position = target
            return bytes(found)

    def cost(self, position: Position) -> int:
        with self._lock:
            if position.complete:
                return 0
            return min(UNBOUNDED_COST, *(self.thread_cost(thread) for thread in position.threads))

    def describe(self, position: Position) -> list[str]:
        with self._lock:
            found = ["the text may end here"] if position.complete else []
            found += [self._describe(thread) for thread in position.threads[:_MAX_READINGS]]
            left_out = len(position.threads) - _MAX_READINGS
            return [*found, f"{left_out} more"] if left_out > 0 else found

    def nbytes(self) -> int:
        return self._held + len(self._masks) * self.vocab.words * 4 + self._tokens.nbytes()

    # -- positions -----------------------------------------------------------------------------------------------

    def step(self, position: Position, byte: int) -> Position | None:
        """The position after one more byte; remembered."""
        key = (position, byte)
        found = self._steps.get(key, _MISSING)
        if found is _MISSING:
            arrived = Arrived()
            for thread in position.threads:
                self.closure.move(thread, byte, arrived)
            found = self._steps[key] = self._position(arrived)
            self._held += _STEP_BYTES
        return found

    def after(self, state: int, frame: Frame) -> Position | None:
        """The position in which the network's ``state`` in ``frame`` is still to come."""
        arrived = Arrived()
        self.closure.open(state, frame, arrived)
        return self._position(arrived)

    def position_of(self, threads: Iterable[Thread]) -> Position:
        """The position of just these readings, before the end of the text."""
        arrived = Arrived()
        arrived.threads = dict.fromkeys(threads)
        position = self._position(arrived)
        assert position is not None
        return position

    def leaf(self, thread: Thread) -> LeafAutomaton:
        return self.closure.leaf(thread.leaf)

    def forbidden(self, thread: Thread) -> Forbidden:
        """The texts that the thread's leaf may not read in its frame."""
        return self.closure.forbidden(self.leaf(thread), thread.unique, thread.frame)

    def possible_bytes(self, position: Position) -> set[int]:
        """The bytes that can come next, and perhaps some that cannot."""
        return set().union(*(self.leaf(thread).next_bytes(thread.state) for thread in position.threads))

    def _position(self, arrived: Arrived) -> Position | None:
        if not arrived.threads and not arrived.complete:
            return None
        threads = tuple(arrived.threads)
        if len(threads) > MAX_THREADS:
            self.pruned, threads = True, threads[:MAX_THREADS]
        position = Position(threads, arrived.complete)
        known = self._known.get(position)
        if known is None:
            if self._held > MAX_HELD_BYTES:
                self._known.clear()
                self._steps.clear()
                self._held = 0
            known = self._known[position] = position
            self._held += _POSITION_BYTES + _THREAD_BYTES * len(threads)
        return known

    # -- costs ---------------------------------------------------------------------------------------------------

    def thread_cost(self, thread: Thread) -> int:
        """Bytes of the shortest completion of one reading."""
        weights = self.weights(thread.targets)
        leaf_cost = self.leaf(thread).cost(thread.state, self.forbidden(thread), weights)
        return leaf_cost + self.return_cost(thread.frame)

    def weights(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        """Bytes of the shortest text behind each tag's end, to the return of the frame."""
        return tuple(map(self.network.cost, targets))

    def return_cost(self, frame: Frame) -> int:
        """Bytes of the shortest text from the return of ``frame`` to the end."""
        total, at = 0, frame
        while at.parent is not None:
            total += self.network.cost(at.then)
            at = at.parent
        return total

    # -- what the interface shows --------------------------------------------------------------------------------

    def _next_bytes(self, position: Position) -> Iterator[int]:
        """The bytes that can come next, each once."""
        found: set[int] = set()
        for thread in position.threads:
            for byte in self.leaf(thread).next_bytes(thread.state):
                if byte not in found and self.step(position, byte) is not None:
                    found.add(byte)
                    yield byte

    def _mask(self, position: Position) -> np.ndarray:
        mask = self._masks.get(position)
        if mask is None:
            mask = self._masks[position] = self._tokens.fill(position)
            while len(self._masks) * self.vocab.words * 4 > MAX_HELD_BYTES:
                self._masks.popitem(last=False)
        else:
            self._masks.move_to_end(position)
        return mask

    def _describe(self, thread: Thread) -> str:
        leaf = self.leaf(thread).describe(thread.state)
        places = list(dict.fromkeys(map(self.network.describe, thread.targets[:64])))
        places = [" or ".join(places[:3]) + (" or ..." if len(places) > 3 else "")]
        frame = thread.frame
        while frame.parent is not None and len(places) <= _MAX_FRAMES:
            places.append(self.network.describe(frame.then))
            frame = frame.parent
        return " < ".join([f"{leaf}, then {places[0]}", *places[1:], *(["..."] if frame.parent is not None else [])])

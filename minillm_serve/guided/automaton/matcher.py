"""What the engine holds: one compiled grammar per constraint, one matcher per sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minillm_serve.guided.automaton import machine as reference
from minillm_serve.guided.automaton.interface import Machine
from minillm_serve.guided.automaton.vocab import Vocab
from minillm_serve.guided.grammar.network import Network

MACHINES = ("auto", "native", "reference")
Note = tuple[str, str, str]  # (keyword, path, why): asserts nothing, or was left out on request


def make_machine(network: Network, vocab: Vocab, kind: str = "auto") -> Machine:
    """The machine that runs ``network``: the compiled one, the one in Python, or (``auto``) the faster that works."""
    if kind not in MACHINES:
        raise ValueError(f"machine must be one of {', '.join(MACHINES)}; got {kind!r}")
    if kind != "reference":
        from minillm_serve.guided.automaton import native

        if kind == "native" or native.available():
            return native.NativeMachine(network, vocab)
    return reference.ReferenceMachine(network, vocab)


class CompiledGrammar:
    """A network bound to a vocabulary. Shared by every sequence with the same constraint; its caches are bounded.

    notes: what in the constraint asserts nothing, or was left out because that was asked for.
    """

    def __init__(self, network: Network, vocab: Vocab, *, notes: Iterable[Note] = (), machine: str = "auto"):
        self.network, self.vocab, self.notes = network, vocab, tuple(notes)
        self.machine = make_machine(network, vocab, machine)

    @property
    def vocab_size(self) -> int:
        return self.vocab.size

    def matcher(self) -> Matcher:
        """A matcher at the beginning of the text."""
        return Matcher(self)

    def nbytes(self) -> int:
        """Memory held by the network, its states and its masks, in bytes (an estimate)."""
        return self.machine.nbytes() + self.network.nbytes()


@dataclass(frozen=True)
class Snapshot:
    """What there is to see at one place of a text.

    offset: bytes read so far. allowed: how many tokens may come next. forced: the bytes that must come next. complete:
    may the text end here? shortest: bytes of the shortest completion. readings: one line for each reading.
    """

    offset: int
    allowed: int
    forced: bytes
    complete: bool
    shortest: int
    readings: tuple[str, ...]


class Matcher:
    """Where one sequence stands in its grammar. Copying it is cheap: positions are shared and never change."""

    __slots__ = ("_buffer", "_fill_buffer", "_finished", "_machine", "_offset", "_position", "grammar")

    def __init__(self, grammar: CompiledGrammar):
        self.grammar = grammar
        self._machine = grammar.machine
        self._position = self._machine.start()
        self._finished = False
        self._offset = 0
        self._buffer: np.ndarray | None = None

    def fill_mask(self, budget: int | None = None) -> np.ndarray:
        """Tokens that may come next: uint32 [ceil(V / 32)], bit t % 32 of word t // 32; valid until the next call.

        The bit of each end-of-text id is set exactly where the text may end; after the end no other bit is. budget:
        only tokens after which the text can still be completed within so many bytes (slower).
        """
        if self._buffer is None:
            self._buffer = np.zeros(self.grammar.vocab.words, dtype=np.uint32)
            self._fill_buffer = self._machine.bind(self._buffer)
        if self._finished:
            self._buffer[:] = self.grammar.vocab.eos_mask
        elif budget is None:
            self._fill_buffer(self._position)
        else:
            self._machine.fill(self._position, self._buffer, budget)
        return self._buffer

    def fill_into(self, out: np.ndarray, budget: int | None = None) -> None:
        """The same mask written into a row of the caller's: contiguous uint32 [ceil(V / 32)]."""
        if self._finished:
            out[:] = self.grammar.vocab.eos_mask
        else:
            self._machine.fill(self._position, out, budget)

    def accept(self, token_id: int) -> bool:
        """Move on by one token. False, and nothing changed, when the token is forbidden here."""
        vocab = self.grammar.vocab
        if token_id in vocab.eos_token_ids:
            self._finished = self.is_complete()
            return self._finished
        if not 0 <= token_id < vocab.size:
            return False
        data = vocab.token_bytes[token_id]
        return bool(data) and self.accept_bytes(data)

    def accept_bytes(self, data: bytes) -> bool:
        """Move on by bytes, however they are divided into tokens. False, and nothing changed, if they are forbidden."""
        if self._finished:
            return False
        position = self._machine.advance(self._position, data)
        if position is None:
            return False
        self._position = position
        self._offset += len(data)
        return True

    def is_complete(self) -> bool:
        """May the text end here (or has it)?"""
        return self._finished or self._machine.complete(self._position)

    @property
    def is_finished(self) -> bool:
        """Has an end-of-text token been accepted?"""
        return self._finished

    def forced_bytes(self, limit: int = 4096) -> bytes:
        """The bytes that must come next, up to the first choice; to end the text is a choice."""
        return b"" if self._finished else self._machine.forced(self._position, limit)

    def cost(self) -> int:
        """Bytes of the shortest completion; ``network.UNBOUNDED_COST`` if no bound is known."""
        return 0 if self._finished else self._machine.cost(self._position)

    def copy(self) -> Matcher:
        """An independent matcher at the same place."""
        twin = Matcher(self.grammar)
        twin._position, twin._finished, twin._offset = self._position, self._finished, self._offset
        return twin

    def trace(self) -> Snapshot:
        """What there is to see here, for people."""
        allowed = int(np.unpackbits(self.fill_mask().view(np.uint8)).sum())
        readings = ("the text has ended",) if self._finished else tuple(self._machine.describe(self._position))
        return Snapshot(self._offset, allowed, self.forced_bytes(), self.is_complete(), self.cost(), readings)

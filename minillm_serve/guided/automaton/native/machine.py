"""The compiled machine: threads, sets and masks in C++, the network in Python.

The library asks for the arcs of a state when a text first reaches it, and for its cost when first needed; all that
follows from them stays on its side. Calls on one machine are serialised by a lock; the GIL is released meanwhile.
"""

from __future__ import annotations

import ctypes
import weakref
from array import array
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Any

import numpy as np

from minillm_serve.guided.automaton import stored
from minillm_serve.guided.automaton.native.binding import CALL_OF_STATE, Library, library
from minillm_serve.guided.automaton.vocab import Vocab
from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.grammar.network import UNBOUNDED_COST, Bytes, Call, Leaf, Literals, Network, Read, Text

MAX_HELD_BYTES = 64 << 20  # of masks, and again of everything else, before what nobody holds is dropped

_READ, _CALL, _JUMP = range(3)
_NO_POSITION, _CALLBACK, _TOO_LARGE = -1, -2, -3  # see common.h and api.cpp
_MAX_READINGS, _MAX_FRAMES = 16, 8
_RELEASE_AT = 256


class Position:
    """Where a text stands. Its machine keeps what it stands for as long as somebody holds it."""

    __slots__ = ("_dropped", "machine", "number")

    def __init__(self, machine: NativeMachine, number: int, dropped: list[int]):
        self.machine, self.number, self._dropped = machine, number, dropped

    def __del__(self) -> None:
        self._dropped.append(self.number)  # may run in any thread, so that the library is told later

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and self.number == other.number and self.machine is other.machine

    def __hash__(self) -> int:
        return hash(self.number)


class NativeMachine:
    """Runs ``network`` over ``vocab``; see interface.Machine for what each method promises.

    limit: bytes of masks that are kept, and of positions and what belongs to them before unused ones are dropped.
    Raises RuntimeError where there is no compiler, and whatever the network raises while it is explored.
    """

    def __init__(self, network: Network, vocab: Vocab, *, limit: int = MAX_HELD_BYTES):
        lib = library()
        if lib is None:
            raise RuntimeError("the compiled machine needs a compiler (g++ or clang++); use the reference machine")
        self.network, self.vocab = network, vocab
        self._lib, self._lock, self._error = lib, RLock(), None
        self._fill, self._advance = lib.fill, lib.advance  # called for every token
        self._words = vocab.words
        self._leaves: dict[int, int] = {}  # number in the network -> in the library
        self._dropped: list[int] = []
        self._shared = _native_vocab(vocab, lib)  # outlives the machine
        # The callbacks hold the machine weakly: a cycle through ctypes would keep it alive for long.
        this = weakref.ref(self)
        self._callbacks = (
            CALL_OF_STATE(lambda state: this()._answer(this()._expand, state)),  # type: ignore[union-attr]
            CALL_OF_STATE(lambda state: this()._answer(this()._cost_of, state)),  # type: ignore[union-attr]
        )
        self._handle = lib.machine(self._shared.handle, network.max_depth, *self._callbacks, limit)
        weakref.finalize(self, _free_machine, lib, self._handle, self._shared, self._callbacks)
        self._start = self._position(lib.start(self._handle, network.start))

    # -- the interface -------------------------------------------------------------------------------------------

    def start(self) -> Position:
        assert self._start is not None, "a network promises that its start can be completed"
        return self._start

    def advance(self, position: Position, data: bytes) -> Position | None:
        with self._lock:
            if len(self._dropped) > _RELEASE_AT:
                self._release()
            number = self._advance(self._handle, position.number, data, len(data))
            if number >= 0:
                return Position(self, number, self._dropped)
            return self._position(number)

    def complete(self, position: Position) -> bool:
        with self._lock:
            return bool(self._lib.complete(self._handle, position.number))

    def fill(self, position: Position, out: np.ndarray, budget: int | None = None) -> None:
        if out.dtype != np.uint32 or out.size != self._words:
            raise ValueError(f"a mask is uint32 [{self._words}], got {out.dtype} {list(out.shape)}")
        within = -1 if budget is None else min(max(budget, 0), UNBOUNDED_COST)
        memory = ctypes.byref(ctypes.c_char.from_buffer(out))  # contiguous and writable, or TypeError says so
        with self._lock:
            done = self._fill(self._handle, position.number, memory, within)
            if done < 0:
                self._fail(done)

    def bind(self, out: np.ndarray) -> Callable[[Position], None]:
        if out.dtype != np.uint32 or out.size != self._words:
            raise ValueError(f"a mask is uint32 [{self._words}], got {out.dtype} {list(out.shape)}")
        memory = ctypes.c_char.from_buffer(out)  # keeps ``out`` alive
        fill, handle, lock, address = self._fill, self._handle, self._lock, ctypes.addressof(memory)

        def fill_bound(position: Position, _memory: Any = memory) -> None:
            with lock:
                done = fill(handle, position.number, address, -1)
                if done < 0:
                    self._fail(done)

        return fill_bound

    def forced(self, position: Position, limit: int = 4096) -> bytes:
        out = ctypes.create_string_buffer(limit)
        with self._lock:
            size = self._checked(self._lib.forced(self._handle, position.number, out, limit))
        return out.raw[:size]

    def cost(self, position: Position) -> int:
        with self._lock:
            return self._checked(self._lib.cost(self._handle, position.number))

    def describe(self, position: Position) -> list[str]:
        with self._lock:
            found = ["the text may end here"] if self.complete(position) else []
            out = array("i", bytes(4 * 4096))
            address, _ = out.buffer_info()
            threads = self._lib.thread(self._handle, position.number, -1, address, 0)
            for number in range(min(threads, _MAX_READINGS)):
                self._lib.thread(self._handle, position.number, number, address, len(out))
                found.append(self._describe(out.tolist()))
            return [*found, f"{threads - _MAX_READINGS} more"] if threads > _MAX_READINGS else found

    def nbytes(self) -> int:
        with self._lock:
            return self._lib.nbytes(self._handle)

    # -- what the library asks for -------------------------------------------------------------------------------

    def _answer(self, function: Callable[[int], int], state: int) -> int:
        """An exception must not pass through the library: it is kept, and raised when the call is back."""
        try:
            return function(state)
        except BaseException as error:
            self._error = error
            return _CALLBACK

    def _expand(self, state: int) -> int:
        flat: list[int] = []
        for arc in self.network.expand(state):
            if isinstance(arc, Read):
                leaf = self._leaves.get(arc.leaf)
                if leaf is None:
                    leaf = self._leaves[arc.leaf] = self._add(arc.leaf, self.network.leaves[arc.leaf])
                flat += (_READ, arc.height, leaf, arc.unique, len(arc.targets), *arc.targets)
            elif isinstance(arc, Call):
                flat += (_CALL, arc.height, arc.entry, arc.then)
            else:
                flat += (_JUMP, arc.height, arc.target)
        data = array("i", flat)
        return self._lib.set_arcs(self._handle, state, data.buffer_info()[0], len(data))

    def _cost_of(self, state: int) -> int:
        return min(self.network.cost(state), UNBOUNDED_COST)

    def _add(self, number: int, leaf: Leaf) -> int:
        if isinstance(leaf, Literals):
            joined, offsets = _joined(leaf.texts)
            tags = np.array(leaf.tags, dtype=np.int32)
            return self._checked(
                self._lib.add_literals(
                    self._handle, number, joined, offsets.ctypes.data, tags.ctypes.data, len(leaf.texts)
                )
            )
        return self._checked(self._add_bytes(number, leaf) if isinstance(leaf, Bytes) else self._add_text(number, leaf))

    def _add_bytes(self, number: int, leaf: Bytes) -> int:
        edges = leaf.dfa.triples
        tags = np.full(len(leaf.dfa.edges), -1, dtype=np.int32)
        for state, tag in leaf.dfa.finals.items():
            tags[state] = tag
        address, size = edges.buffer_info()
        return self._lib.add_bytes(
            self._handle, number, address, size // 3, tags.ctypes.data, len(tags), leaf.dfa.start
        )

    def _add_text(self, number: int, leaf: Text) -> int:
        # A lone surrogate is never decoded, so that such a text need not be excluded.
        words = sorted({word.encode("utf-8", "surrogatepass") for word in leaf.excluded})
        joined, offsets = _joined([word for word in words if _is_utf8(word)])
        parts = [np.zeros(1, dtype=np.int32)] * 4
        shape = (0, 0, 0)
        if leaf.dfa is not None:
            dfa = leaf.dfa
            parts = [np.array(part, dtype=np.int32) for part in (dfa.bounds, dfa.classes, dfa.rows, dfa.tags)]
            shape = (len(dfa.bounds), len(dfa.tags), len(dfa.rows[0]))
        bounds, classes, rows, tags = (part.ctypes.data for part in parts)
        high = -1 if leaf.max_length is None else min(leaf.max_length, UNBOUNDED_COST)
        return self._lib.add_text(
            self._handle, number, bounds, classes, shape[0], rows, tags, shape[1], shape[2],
            min(leaf.min_length, UNBOUNDED_COST), high, leaf.quoted, joined, offsets.ctypes.data, len(offsets) - 1,
        )  # fmt: skip

    # -- details -------------------------------------------------------------------------------------------------

    def _position(self, number: int) -> Position | None:
        return None if number == _NO_POSITION else Position(self, self._checked(number), self._dropped)

    def _checked(self, answer: int) -> int:
        return answer if answer >= 0 else self._fail(answer)

    def _fail(self, answer: int) -> int:
        error, self._error = self._error, None
        if answer == _CALLBACK and error is not None:
            raise error
        if answer == _TOO_LARGE:
            raise SchemaError("minLength", "", "together with the pattern it needs more memory than is allowed")
        raise MemoryError("the compiled machine has run out of memory")

    def _release(self) -> None:
        """Tell the library what nobody holds any more. Others may go on appending meanwhile."""
        count = len(self._dropped)
        numbers = array("i", self._dropped[:count])
        del self._dropped[:count]
        self._lib.release(self._handle, numbers.buffer_info()[0], count)

    def _describe(self, thread: list[int]) -> str:
        number, _, state, count, size = thread[:5]
        targets = thread[5 : min(5 + size, len(thread))]
        frames = thread[6 + size : 6 + size + thread[5 + size]] if 5 + size < len(thread) else []
        places = list(dict.fromkeys(map(self.network.describe, targets[:64])))
        shown = [" or ".join(places[:3]) + (" or ..." if len(places) > 3 else "")]
        shown += [self.network.describe(frame) for frame in frames[:_MAX_FRAMES]]
        leaf = _describe_leaf(self.network.leaves[number], state, count)
        return " < ".join([f"{leaf}, then {shown[0]}", *shown[1:], *(["..."] if len(frames) > _MAX_FRAMES else [])])


class _NativeVocab:
    """A vocabulary in the library. It points into the arrays of the trie, which it keeps."""

    def __init__(self, vocab: Vocab, lib: Library):
        trie = vocab.trie
        joined, offsets = _joined([text or b"" for text in vocab.token_bytes])
        eos = np.array(sorted(vocab.eos_token_ids), dtype=np.int32)
        present = np.zeros(256, dtype=np.uint8)
        present[sorted(vocab.alphabet)] = 1
        arrays = [trie.byte, trie.depth, trie.skip, trie.first, trie.tokens, present]
        self._kept = (arrays, joined, offsets)
        pointers = [part.ctypes.data for part in arrays]
        text = ctypes.cast(ctypes.c_char_p(joined), ctypes.c_void_p)
        self.handle = lib.vocab(
            vocab.size, len(trie.byte), *pointers, text, offsets.ctypes.data, eos.ctypes.data, len(eos)
        )
        weakref.finalize(self, _free_vocab, lib, self.handle, self._kept)
        self._prepare(lib, vocab.key)

    def _prepare(self, lib: Library, key: str | None) -> None:
        """The sets of tokens that hold in any string: from disk, or computed and kept there."""
        kept = None if key is None else stored.load_bytes("sets", key)
        if kept is not None and lib.vocab_load(self.handle, kept.ctypes.data, len(kept)):
            return
        lib.vocab_prepare(self.handle)
        if key is not None:
            data = np.empty(lib.vocab_save(self.handle, None, 0), dtype=np.uint8)
            lib.vocab_save(self.handle, data.ctypes.data, len(data))
            stored.save_bytes("sets", key, data)


def prepare(vocab: Vocab) -> None:
    """Do now what the first machine over ``vocab`` would have to do; nothing where there is no compiler."""
    if (lib := library()) is not None:
        _native_vocab(vocab, lib)


def _native_vocab(vocab: Vocab, lib: Library) -> _NativeVocab:
    with _vocab_lock:
        if "native" not in vocab.memo:
            vocab.memo["native"] = _NativeVocab(vocab, lib)
        return vocab.memo["native"]


_vocab_lock = RLock()


def _free_machine(lib: Library, handle: int, *_kept: object) -> None:
    lib.machine_free(handle)


def _free_vocab(lib: Library, handle: int, _kept: object) -> None:
    lib.vocab_free(handle)


def _joined(texts: Iterable[bytes]) -> tuple[bytes, np.ndarray]:
    """All texts end to end, and [texts + 1] where each begins."""
    texts = tuple(texts)
    offsets = np.zeros(len(texts) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, texts), dtype=np.int32, count=len(texts)), out=offsets[1:])
    return b"".join(texts), offsets


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _describe_leaf(leaf: Leaf, state: int, count: int) -> str:
    if isinstance(leaf, Literals):
        shown = " | ".join(repr(text.decode(errors="replace")) for text in leaf.texts[:4])
        return shown + (" | ..." if len(leaf.texts) > 4 else "")
    if isinstance(leaf, Bytes):
        return "bytes"
    kind = "string" if leaf.quoted else "text"
    if leaf.dfa is not None:
        kind += f", state {state} of {len(leaf.dfa.tags)}"
    if leaf.min_length or leaf.max_length is not None:
        kind += f", {count} characters"
    return kind

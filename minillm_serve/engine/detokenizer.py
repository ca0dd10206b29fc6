"""Token ids to text, one step at a time: never half a UTF-8 character, never the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what a decoder writes where bytes do not (yet) form a character


class Detokenizer:
    """The growing text of one sequence.

    ``text`` only ever grows, and what it holds is final: the end of ``text`` is held back while it could still
    change (an unfinished character) or belong to a stop string. ``finish`` releases what is held.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()):
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0  # tokens before this are decoded for good ...
        self._read = 0  # ... and those before this are in _raw: decoding from _window gives words their spaces
        self._raw = ""  # all text, stop strings included
        self._released = 0  # length of `text` within _raw
        self.stopped_by: str | None = None

    def __len__(self) -> int:
        """Tokens pushed so far."""
        return len(self._ids)

    @property
    def text(self) -> str:
        return self._raw[: self._released]

    def push(self, ids: Sequence[int]) -> str | None:
        """Add tokens. Returns the stop string that ended the text, if one did (the text ends before it)."""
        self._ids.extend(ids)
        known = self._decode(self._ids[self._window : self._read])
        full = self._decode(self._ids[self._window :])
        if not full.endswith(REPLACEMENT):
            self._raw += full[len(known) :]
            self._window, self._read = self._read, len(self._ids)
        return self._release(held=True)

    def finish(self) -> str | None:
        """No more tokens will come: release everything. Returns the stop string that ended the text, if one did."""
        known = self._decode(self._ids[self._window : self._read])
        self._raw += self._decode(self._ids[self._window :])[len(known) :]
        self._window = self._read = len(self._ids)
        return self._release(held=False)

    def _release(self, held: bool) -> str | None:
        if self.stopped_by is not None:
            return self.stopped_by
        found = [(at, stop) for stop in self._stop if (at := self._raw.find(stop, self._released)) >= 0]
        if found:
            self._released, self.stopped_by = min(found)
            return self.stopped_by
        self._released = len(self._raw) - (self._partial_stop() if held else 0)
        return None

    def _partial_stop(self) -> int:
        """Length of the longest end of the unreleased text that begins a stop string."""
        tail = self._raw[self._released :]
        for length in range(min(len(tail), max(map(len, self._stop), default=1) - 1), 0, -1):
            if any(stop.startswith(tail[-length:]) for stop in self._stop):
                return length
        return 0

"""The model of the virtual clock: a keyed hash of the context as the block tables show it, so nobody can guess it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b, sha256

from minilab.reloj.reglas import Item

VOCABULARY = 64
END = 0
END_ODDS = 256


class Oracle:
    """A :class:`.mundo.Backend` with a KV cache of its own: each slot keeps a hash of what was computed there.

    secret: without it no token can be told. The end token comes once in ``END_ODDS`` draws, the others evenly.
    """

    def __init__(self, secret: int, block_size: int):
        self._key, self._size = sha256(str(secret).encode()).digest(), block_size
        self._slots: dict[tuple[int, int], bytes] = {}

    def step(self, items: Sequence[Item]) -> dict[int, int]:
        drawn = {}
        for item in items:
            state = self._slots.get(self._slot(item, item.start - 1), b"") if item.start else b""
            for position, token in enumerate(item.tokens, item.start):
                state = self._next(state, token)
                self._slots[self._slot(item, position)] = state
            if item.draws:
                drawn[item.id] = _token(state)
        return drawn

    def text(self, prompt: Sequence[int], max_new: int) -> list[int]:
        """What the model draws after ``prompt`` when nothing goes wrong, the end token included."""
        state, text = b"", []
        for token in prompt:
            state = self._next(state, token)
        while len(text) < max_new and text[-1:] != [END]:
            text.append(_token(state))
            state = self._next(state, text[-1])
        return text

    def _slot(self, item: Item, position: int) -> tuple[int, int]:
        return item.blocks[position // self._size], position % self._size

    def _next(self, state: bytes, token: int) -> bytes:
        return blake2b(state + token.to_bytes(4, "little"), digest_size=16, key=self._key).digest()


def _token(state: bytes) -> int:
    number = int.from_bytes(state[:8], "little")
    return END if number % END_ODDS == 0 else 1 + (number // END_ODDS) % (VOCABULARY - 1)

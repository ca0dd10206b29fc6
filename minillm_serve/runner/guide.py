"""One sequence under a constraint: which token may come next, which text must, and whether there is room for it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

JUMP_LIMIT = 1024  # bytes appended at once; the rest of a longer text follows in the next step
MAX_CHARACTER = 4  # bytes of one code point: so many tokens hold a whole one


class Retokeniser(Protocol):
    """Tokens for text that is known before it is generated (see :mod:`minillm_serve.engine.retokenise`)."""

    def __call__(self, before: bytes, text: bytes) -> tuple[int, ...]: ...
    def bytes_of(self, token: int) -> bytes: ...


class Matcher(Protocol):
    """One sequence's position in a grammar (see :mod:`minillm_serve.guided`)."""

    grammar: Any

    def fill_mask(self) -> NDArray[np.uint32]: ...
    def fill_into(self, out: NDArray[np.uint32], budget: int | None = None) -> None: ...
    def accept(self, token_id: int) -> bool: ...
    def copy(self) -> Matcher: ...
    def forced_bytes(self, limit: int = ...) -> bytes: ...
    def cost(self) -> int: ...
    @property
    def is_finished(self) -> bool: ...
    def is_complete(self) -> bool: ...


class Guide:
    """A matcher and what the engine needs beside it.

    room: tokens that may still be generated, the one that ends the text included. closes: keep the text completable
    within the room: after every token, the bytes of the shortest completion and the end must fit in it, at one token
    a byte. That holds from the start (the engine refuses requests with less) and each draw keeps it. retokeniser: gives
    the tokens of text that must follow, as far as they are certain; None: no jumps ahead.
    """

    def __init__(
        self,
        matcher: Matcher,
        room: int,
        *,
        closes: bool = False,
        retokeniser: Retokeniser | None = None,
    ):
        self.matcher = matcher
        self.room = room
        self.closes = closes
        self._retokeniser = retokeniser
        self._last: list[bytes] = []
        self._tried: tuple[int, Matcher] | None = None  # the token of the last fits(), and the matcher after it

    def fill(self, out: NDArray[np.uint32]) -> None:
        """Write the tokens that may come next: uint32 [words], bit t % 32 of word t // 32."""
        self.matcher.fill_into(out)

    def narrow(self, out: NDArray[np.uint32]) -> None:
        """Like :meth:`fill`, but only tokens after which the text can be completed within the room.

        It costs more, so it is asked for when a drawn token does not fit: most do, until the room is nearly gone.
        """
        if self.room < 2:
            out[:] = self.matcher.grammar.vocab.eos_mask  # it may end: no bytes are needed when no room is left for any
        else:
            self.matcher.fill_into(out, budget=self.room - 2)  # one for the token, one for the end

    def fits(self, token: int) -> bool:
        """Whether the text can be completed within the room after ``token``; always, unless the guide closes."""
        if not self.closes:
            return True
        after = self.matcher.copy()
        if not after.accept(token):
            return False
        self._tried = token, after
        return after.is_finished or after.cost() <= self.room - 2

    def accept(self, token: int) -> bool:
        """Move on by one token. False, and nothing changed, when the constraint forbids it."""
        if self._tried is not None and self._tried[0] == token:
            self.matcher = self._tried[1]
        elif not self.matcher.accept(token):
            return False
        self._tried = None
        self.room -= 1
        if self._retokeniser is not None:
            self._last = [*self._last[1 - MAX_CHARACTER :], self._retokeniser.bytes_of(token)]
        return True

    def copy(self) -> Guide:
        """Another one at the same place, which goes its own way."""
        other = Guide(self.matcher.copy(), self.room, closes=self.closes, retokeniser=self._retokeniser)
        other._last = list(self._last)
        return other

    def jump(self) -> tuple[int, ...]:
        """Tokens for text that must follow, accepted already; then the end, where nothing but one end may come."""
        if self._retokeniser is None or self.matcher.is_finished:
            return ()
        tokens: list[int] = []
        forced = self.matcher.forced_bytes(JUMP_LIMIT)
        if forced:
            for token in self._retokeniser(self._context(), forced)[: self.room]:
                if not self.accept(token):
                    return tuple(tokens)
                tokens.append(token)
        if self.room and self.matcher.is_complete() and (end := _only_token(self.matcher.fill_mask())) is not None:
            self.accept(end)
            tokens.append(end)
        return tuple(tokens)

    def _context(self) -> bytes:
        """The last token, or as many as make whole characters; nothing where that is not to be had."""
        for count in range(1, len(self._last) + 1):
            text = b"".join(self._last[-count:])
            if text and text[0] & 0xC0 != 0x80:
                return text
        return b""


def _only_token(mask: NDArray[np.uint32]) -> int | None:
    """The one token that a mask allows; None if it allows several."""
    [words] = np.nonzero(mask)
    if len(words) != 1:
        return None
    word = int(mask[words[0]])
    return None if word & (word - 1) else int(words[0]) * 32 + word.bit_length() - 1

"""What one row of the batch has seen and may draw: its guide, bans, biases and penalties, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minillm_serve.params import SamplingParams
from minillm_serve.plan import RequestInit
from minillm_serve.runner.guide import Guide
from minillm_serve.sample.masks import packed, withdraw


def has_penalties(params: SamplingParams) -> bool:
    return (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) != (1, 0, 0)


class TokenCounts:
    """The distinct tokens of a sequence and how often each was generated; a new token costs one look-up."""

    def __init__(self, prompt: Sequence[int], generated: Iterable[int]):
        self._index = {token: index for index, token in enumerate(dict.fromkeys(prompt))}
        self._size = len(self._index)
        self._tokens = np.zeros(max(2 * self._size, 64), np.int64)
        self._tokens[: self._size] = list(self._index)
        self._counts = np.zeros(len(self._tokens), np.float32)
        for token in generated:
            self.add(token)

    def copy(self) -> TokenCounts:
        """The same counts, to go on from."""
        other = TokenCounts.__new__(TokenCounts)
        other._index, other._size = dict(self._index), self._size
        other._tokens, other._counts = self._tokens.copy(), self._counts.copy()
        return other

    def add(self, token: int) -> None:
        """Count one more generated token."""
        index = self._index.setdefault(token, self._size)
        if index == self._size:
            if self._size == len(self._tokens):
                self._tokens = np.concatenate((self._tokens, np.zeros_like(self._tokens)))
                self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
            self._tokens[index] = token
            self._size += 1
        self._counts[index] += 1

    @property
    def tokens(self) -> NDArray[np.int64]:
        return self._tokens[: self._size]

    @property
    def counts(self) -> NDArray[np.float32]:
        """Times generated, for each of ``tokens``; 0 for one that stands only in the prompt."""
        return self._counts[: self._size]


class NewTokens(NamedTuple):
    """What one row goes on with after a step; ``forced``: how many of the tokens, the last ones, were not drawn."""

    tokens: tuple[int, ...]
    forced: int = 0


@dataclass(eq=False)
class Constraints:
    """What one row's logits go through before the draw. Present only for rows that need any of it.

    opening: tokens with which a guided text must begin; the first draw gives way to them. prompt: of a row with
    penalties; seen: its counts, unless the device keeps them.
    """

    params: SamplingParams
    stop_ids: NDArray[np.int64]
    bias: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None
    guide: Guide | None = None
    opening: tuple[int, ...] = ()
    prompt: Sequence[int] = ()
    seen: TokenCounts | None = None
    generated: list[int] = field(default_factory=list)

    def begin(self, guide_for: Callable[[RequestInit], Guide], init: RequestInit) -> None:
        """Take the guide of a request to the end of what it has generated."""
        guide = guide_for(init)
        generated = init.token_ids[init.num_prompt_tokens :]
        if not all(guide.accept(token) for token in generated):
            raise ValueError("the constraint does not allow what was generated under it")
        self.opening = () if generated else guide.jump()
        self.guide = guide

    def draw(self, token: int) -> NewTokens:
        """Book a drawn token and what must follow it; no tokens, and nothing booked, if it is forbidden."""
        new = NewTokens((token,))
        if self.opening:
            new, self.opening = NewTokens(self.opening, len(self.opening)), ()
        elif self.guided:
            if self.guide is None or not self.guide.accept(token):
                return NewTokens(())
            forced = self.guide.jump()
            new = NewTokens((token, *forced), len(forced))
        self.count(new.tokens)
        return new

    def count(self, tokens: Iterable[int]) -> None:
        """Book tokens for penalties and bad words."""
        for token in tokens:
            self.generated.append(token)
            if self.seen is not None:
                self.seen.add(token)

    def after(self, draft: int) -> Constraints:
        """What holds once a drafted token has been accepted. Where the guide forbids it, nothing may follow."""
        other = replace(
            self,
            guide=None if self.guide is None else self.guide.copy(),
            seen=None if self.seen is None else self.seen.copy(),
            generated=[*self.generated],
        )
        if other.guide is not None and not other.guide.accept(draft):
            other.guide = None
        other.count((draft,))
        return other

    def allowed(self, drafts: Sequence[int]) -> Sequence[int]:
        """As many of the drafted tokens as may follow one another here."""
        guide = None if self.guide is None else self.guide.copy()
        for index, token in enumerate(drafts):
            listed = self.guided or self.params.allowed_token_ids is None or token in self.params.allowed_token_ids
            if not listed or (self.guided and (guide is None or not guide.accept(token))):
                return drafts[:index]
        return drafts

    @property
    def guided(self) -> bool:
        return self.params.structured_outputs is not None

    @property
    def runs_free(self) -> bool:
        """Whether it says the same of every token: the next may be drawn before the host knows the last."""
        return not (self.guided or self.seen or self.params.bad_words_ids or self.params.min_tokens)

    @property
    def closes(self) -> bool:
        return self.guide is not None and self.guide.closes

    @property
    def masked(self) -> bool:
        return self.guided or self.params.allowed_token_ids is not None

    def fill(self, out: NDArray[np.uint32], narrow: bool = False) -> bool:
        """Write the tokens that may come next, packed; True. False where there is no guide though there should be one.

        Bad words and min_tokens give way where a grammar needs them. narrow: of a guide that closes, only tokens with
        room for the rest of the text.
        """
        if self.guide is None:
            out[:] = packed(self.params.allowed_token_ids or (), len(out) * 32)
            return not self.guided
        self.guide.narrow(out) if narrow else self.guide.fill(out)
        for unwanted in (self._ends_of_bad_words(), self._ends_of_text()):
            if unwanted:
                withdraw(out, unwanted)
        return True

    def forbidden(self) -> list[int]:
        """Tokens banned now, whatever is left then. Of a guided row none: its mask says it all."""
        return [] if self.guided else self._ends_of_text() + self._ends_of_bad_words()

    def _ends_of_text(self) -> list[int]:
        return self.stop_ids.tolist() if len(self.generated) < self.params.min_tokens else []

    def _ends_of_bad_words(self) -> list[int]:
        """The last token of each bad word that is all but written. As in vLLM, its beginning must be generated."""
        banned = []
        for *start, last in self.params.bad_words_ids:
            if len(start) <= len(self.generated) and self.generated[len(self.generated) - len(start) :] == start:
                banned.append(last)
        return banned

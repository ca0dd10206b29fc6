"""How often every short string of tokens occurred in a set of growing texts, and what followed it.

A suffix automaton (Blumer et al. 1985), generalised to several texts that grow side by side. A state stands for all
strings that end at the same places, so there are at most two per token; ``link`` leads to the state of their longest
suffix that also ends elsewhere. Strings of up to ``depth`` tokens are counted: a token more raises the counts of at
most ``depth`` states.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

ROOT, NOTHING = 0, -1


@dataclass(slots=True)
class GrowingText:
    """Where one text stands. whole: the state of all of it; context: that of its last ``length`` tokens, or a longer
    one that was parted from it since."""

    whole: int = ROOT
    context: int = ROOT
    length: int = 0


class SuffixCounts:
    """Counts over the texts begun with :meth:`begin`. Memory: about 420 bytes per token that is new to all of them.

    depth: counts are exact for strings of at most so many tokens.
    """

    def __init__(self, depth: int):
        self.depth = depth
        self.num_tokens = 0
        self._next: list[dict[int, int]] = []  # by state: token -> the state of its strings, each with the token added
        self._length = array("i")  # of the state's longest string
        self._link = array("i")
        self._count = array("i")  # occurrences of each of its strings
        self._followed = array("i")  # those that do not end their text
        self._best = array("i")  # the token that followed most often, of equals the latest
        self._state(0)
        self._link[ROOT] = NOTHING

    def begin(self) -> GrowingText:
        """A new, empty text."""
        return GrowingText()

    def append(self, text: GrowingText, token: int) -> None:
        """``text`` has gained a token."""
        self.num_tokens += 1
        text.whole = self._append(text.whole, token)
        before = self._holding(text.context, text.length)
        after, length = self._next[before][token], text.length + 1
        count, link = self._count, self._link
        state = after
        while state != ROOT:
            count[state] += 1
            state = link[state]
        state = before
        while state != ROOT:
            self._followed[state] += 1
            following, best = self._next[state], self._best[state]
            if best == NOTHING or count[following[token]] >= count[following[best]]:
                self._best[state] = token
            state = link[state]
        text.length = min(length, self.depth - 1)
        text.context = after

    def match(self, tokens: Sequence[int]) -> tuple[int, int]:
        """State and length of the longest suffix of ``tokens`` that occurs; ``(0, 0)`` if none does."""
        state, length = ROOT, 0
        for token in tokens:
            while state != ROOT and token not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            if token in self._next[state]:
                state, length = self._next[state][token], length + 1
        return state, length

    def draft(
        self, tokens: Sequence[int], limit: int, factor: float, least_probability: float
    ) -> tuple[float, tuple[int, ...]]:
        """The best draft after ``tokens``, of which at most ``depth - 1`` are looked at, and its score.

        Every suffix that occurs followed by something votes for a draft of at most ``limit`` tokens and ``factor``
        times its own length (``depth`` tokens in all): each time the likeliest next token, while the product of the
        shares they have of what followed is at least ``least_probability``. The score, the sum of those products, is
        how many tokens are expected to be accepted; the highest wins, of equals the longest suffix. ``(0.0, ())``
        without a match.
        """
        state, length = self.match(tokens[max(0, len(tokens) - self.depth + 1) :])
        score, draft = 0.0, ()
        while state != ROOT and (limit := min(limit, int(factor * length))) > score:
            # All of the state's strings vote for the same tokens; the one that may draft most speaks for them.
            shortest = self._length[self._link[state]] + 1
            even = int(self.depth / (1 + factor))
            spoken = (min(max(middle, shortest), length) for middle in (even, even + 1))
            room = max(min(limit, int(factor * own), self.depth - own) for own in spoken)
            if room > score:
                candidate = self._likeliest(state, room, least_probability)
                if candidate[0] > score:
                    score, draft = candidate
            state = self._link[state]
            length = self._length[state]
        return score, draft

    def _likeliest(self, state: int, limit: int, least_probability: float) -> tuple[float, tuple[int, ...]]:
        score, probability, draft = 0.0, 1.0, []
        while len(draft) < limit and (token := self._best[state]) != NOTHING:
            following = self._next[state][token]
            probability *= self._count[following] / self._followed[state]
            if probability < least_probability:
                break
            score += probability
            draft.append(token)
            state = following
        return score, tuple(draft)

    def _holding(self, state: int, length: int) -> int:
        """The state of the suffix with ``length`` tokens of this state's strings."""
        while state != ROOT and length <= self._length[self._link[state]]:
            state = self._link[state]
        return state

    def _append(self, whole: int, token: int) -> int:
        """The state of a whole text, ``whole``'s longest string, with ``token`` added."""
        length = self._length[whole] + 1
        known = self._next[whole].get(token)
        if known is not None:
            return known if self._length[known] == length else self._split(whole, token, known)
        new = self._state(length)
        state = whole
        while state != NOTHING and token not in self._next[state]:
            self._next[state][token] = new
            state = self._link[state]
        if state != NOTHING:
            known = self._next[state][token]
            fits = self._length[known] == self._length[state] + 1
            self._link[new] = known if fits else self._split(state, token, known)
        return new

    def _split(self, state: int, token: int, known: int) -> int:
        """Part from ``known`` its strings that are no longer than ``state``'s with ``token`` added: they end elsewhere
        too from now on."""
        part = self._state(self._length[state] + 1)
        self._next[part] = dict(self._next[known])
        for values in (self._link, self._count, self._followed, self._best):
            values[part] = values[known]
        self._link[known] = part
        while state != NOTHING and self._next[state].get(token) == known:
            self._next[state][token] = part
            state = self._link[state]
        return part

    def _state(self, length: int) -> int:
        self._next.append({})
        for values, value in (
            (self._length, length),
            (self._link, ROOT),
            (self._count, 0),
            (self._followed, 0),
            (self._best, NOTHING),
        ):
            values.append(value)
        return len(self._next) - 1

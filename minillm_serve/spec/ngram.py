"""Prompt lookup: the last tokens stood in the text before, so what followed them then may follow now.

After Saxena, *Prompt Lookup Decoding* (2023), and vLLM's method ``ngram``. vLLM continues after the earliest occurrence
of the longest match; here it is the latest one, which is where a text that changes as it goes (a list, a loop, code)
resembles itself most, and the one that an index finds without searching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class NgramIndex:
    """One text, and for each of its n-grams of ``shortest`` to ``longest`` tokens what followed it last.

    A token more costs ``longest - shortest + 1`` entries, of at most about 200 bytes each, whatever the text's length.
    """

    def __init__(self, shortest: int, longest: int):
        self.tokens: list[int] = []
        self._lengths = range(shortest, longest + 1)
        self._followed: dict[tuple[int, ...], int] = {}  # n-gram -> index of the token after its last occurrence

    def extend(self, token_ids: Sequence[int]) -> None:
        """Append tokens. An n-gram is entered with the token that follows it: the text's end never finds itself."""
        tokens = self.tokens
        for token in token_ids:
            end = len(tokens)
            for length in self._lengths:
                if length > end:
                    break
                self._followed[tuple(tokens[end - length :])] = end
            tokens.append(token)

    def draft(self, limit: int) -> tuple[int, ...]:
        """What followed the longest n-gram that ends the text, at most ``limit`` tokens; empty where none recurs.

        A copy that reaches the end of the text reads on in itself: a loop goes on turning.
        """
        tokens = self.tokens
        for length in reversed(self._lengths):
            if length <= len(tokens) and (start := self._followed.get(tuple(tokens[-length:]))) is not None:
                draft = tokens[start : start + limit]
                period = len(tokens) - start
                while len(draft) < limit:
                    draft.append(draft[-period])
                return tuple(draft)
        return ()


class NgramProposer:
    """Drafts by prompt lookup in each request's own text; a :class:`~minillm_serve.spec.proposer.Proposer`."""

    def __init__(self, shortest: int, longest: int):
        self._range = (shortest, longest)
        self._texts: dict[int, NgramIndex] = {}

    def add(self, rid: int, token_ids: Sequence[int]) -> None:
        self._texts[rid] = text = NgramIndex(*self._range)
        text.extend(token_ids)

    def extend(self, rid: int, token_ids: Sequence[int]) -> None:
        self._texts[rid].extend(token_ids)

    def drop(self, rid: int) -> None:
        self._texts.pop(rid, None)

    def propose(self, limits: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
        drafts = {rid: self._texts[rid].draft(limit) for rid, limit in limits.items()}
        return {rid: draft for rid, draft in drafts.items() if draft}

"""Suffix decoding: what followed the last tokens most often, in this request's text or in any answer remembered.

After Oliaro et al., *SuffixDecoding* (2024, arXiv:2411.04975), and vLLM's method ``suffix``. The counts of a request's
own text, prompt included, and those of the answers of all requests make a draft each; the one expected to be accepted
longer is proposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minillm_serve.spec.suffix_counts import GrowingText, SuffixCounts

MAX_REMEMBERED_TOKENS = 500_000
"""Of all answers remembered together, whatever ``max_cached_requests`` says: about 200 MB."""


class AnswerMemory:
    """The answers of the requests begun last, in two generations: the older one is forgotten as a whole.

    max_answers, max_tokens: what both hold at most together. A generation is full with half of either; the answers
    still being written when theirs is forgotten are lost to later requests.
    """

    def __init__(self, depth: int, max_answers: int, max_tokens: int = MAX_REMEMBERED_TOKENS):
        self._depth = depth
        self._max_answers = max_answers
        self._max_tokens = max_tokens
        self._num_answers = 0  # in the newest generation
        self.generations = [SuffixCounts(depth)]  # the newest last

    def begin(self) -> tuple[SuffixCounts, GrowingText] | None:
        """Where a new answer goes; None where none is remembered."""
        if self._max_answers == 0:
            return None
        newest = self.generations[-1]
        if self._num_answers >= max(1, self._max_answers // 2) or newest.num_tokens >= self._max_tokens // 2:
            kept = [newest] if self._max_answers > 1 else []
            self.generations = [*kept, SuffixCounts(self._depth)]
            self._num_answers = 0
        self._num_answers += 1
        return self.generations[-1], self.generations[-1].begin()


@dataclass(slots=True)
class _Context:
    """A request's text, its counts, and where its answer is written down."""

    tokens: list[int]
    counts: SuffixCounts
    text: GrowingText
    answer: tuple[SuffixCounts, GrowingText] | None


class SuffixProposer:
    """Drafts by suffix counts; a :class:`~minillm_serve.spec.proposer.Proposer`.

    max_tree_depth: tokens of match and draft together, at most. max_cached_requests: answers remembered; 0: none.
    max_spec_factor: drafts per matched token. min_token_prob: of a draft as a whole, at least.

    A request's answer is what :meth:`extend` brings; one resumed after a preemption begins a new answer. Memory: see
    :class:`SuffixCounts` for the texts of the requests at hand, and MAX_REMEMBERED_TOKENS for the answers.
    """

    def __init__(
        self, max_tree_depth: int, max_cached_requests: int, max_spec_factor: float, min_token_prob: float
    ) -> None:
        self._depth = max_tree_depth
        self._factor = max_spec_factor
        self._least_probability = min_token_prob
        self._memory = AnswerMemory(max_tree_depth, max_cached_requests)
        self._contexts: dict[int, _Context] = {}

    def add(self, rid: int, token_ids: Sequence[int]) -> None:
        counts = SuffixCounts(self._depth)
        text = counts.begin()
        for token in token_ids:
            counts.append(text, token)
        self._contexts[rid] = _Context(list(token_ids), counts, text, self._memory.begin())

    def extend(self, rid: int, token_ids: Sequence[int]) -> None:
        context = self._contexts[rid]
        context.tokens += token_ids
        for token in token_ids:
            context.counts.append(context.text, token)
            if context.answer is not None:
                counts, answer = context.answer
                counts.append(answer, token)

    def drop(self, rid: int) -> None:
        self._contexts.pop(rid, None)

    def propose(self, limits: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
        drafts = {rid: self._draft(self._contexts[rid], limit) for rid, limit in limits.items()}
        return {rid: draft for rid, draft in drafts.items() if draft}

    def _draft(self, context: _Context, limit: int) -> tuple[int, ...]:
        best, chosen = 0.0, ()
        for counts in (context.counts, *reversed(self._memory.generations)):
            score, draft = counts.draft(context.tokens, limit, self._factor, self._least_probability)
            if score > best:
                best, chosen = score, draft
        return chosen

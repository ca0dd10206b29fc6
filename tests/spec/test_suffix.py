"""Suffix decoding counts exactly, drafts what counting by hand would, and remembers no more than it may."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.spec.suffix import AnswerMemory, SuffixProposer
from minillm_serve.spec.suffix_counts import SuffixCounts

tokens = st.integers(0, 2)
# Tokens as they come in, each for one of three texts.
events = st.lists(st.tuples(st.integers(0, 2), tokens), max_size=60)
factors = st.sampled_from((0.0, 0.5, 1.0, 1.5, 4.0))
shares = st.sampled_from((0.0, 0.1, 0.4, 1.0))


class ByHand:
    """What SuffixCounts keeps, found by looking through the texts."""

    def __init__(self) -> None:
        self.texts: dict[int, list[tuple[int, int]]] = {}  # text -> (token, when it came)
        self.now = 0

    def append(self, text: int, token: int) -> None:
        self.now += 1
        self.texts.setdefault(text, []).append((token, self.now))

    def followers(self, string: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Token -> how often it followed ``string``, and when last."""
        found: dict[int, tuple[int, int]] = {}
        for text in self.texts.values():
            plain = [token for token, _ in text]
            for start in range(len(plain) - len(string)):
                if plain[start : start + len(string)] == list(string):
                    token, when = text[start + len(string)]
                    count, last = found.get(token, (0, 0))
                    found[token] = (count + 1, max(last, when))
        return found

    def draft(self, string: Sequence[int], limit: int, least: float) -> tuple[float, tuple[int, ...]]:
        score, probability, drafted = 0.0, 1.0, []
        while len(drafted) < limit and (found := self.followers([*string, *drafted])):
            token = max(found, key=found.__getitem__)
            probability *= found[token][0] / sum(count for count, _ in found.values())
            if probability < least:
                break
            score += probability
            drafted.append(token)
        return score, tuple(drafted)

    def best(self, context: Sequence[int], depth: int, limit: int, factor: float, least: float) -> float:
        """The highest score of any suffix of the context."""
        lengths = range(1, min(depth - 1, len(context)) + 1)
        rooms = ((n, min(limit, int(factor * n), depth - n)) for n in lengths)
        return max((self.draft(context[-n:], room, least)[0] for n, room in rooms), default=0.0)


@given(events, st.lists(tokens, max_size=8), st.integers(1, 7), st.integers(1, 6), factors, shares)
@settings(max_examples=400, deadline=None)
def test_a_draft_is_the_one_that_counting_by_hand_finds(events, context, depth, limit, factor, least):
    """Texts that grow side by side; the context need not be one of them."""
    counts, by_hand = SuffixCounts(depth), ByHand()
    growing = {text: counts.begin() for text in range(3)}
    for text, token in events:
        counts.append(growing[text], token)
        by_hand.append(text, token)
    for ends in (context, *([token for token, _ in text] for text in by_hand.texts.values())):
        score, draft = counts.draft(ends, limit, factor, least)
        assert score == pytest.approx(by_hand.best(ends, depth, limit, factor, least))
        lengths = range(1, min(depth - 1, len(ends)) + 1)
        voters = [n for n in lengths if min(limit, int(factor * n), depth - n) >= len(draft)]
        assert not draft or any(by_hand.draft(ends[-n:], len(draft), least) == (score, draft) for n in voters)


@given(events, st.integers(2, 6))
@settings(max_examples=200, deadline=None)
def test_counts_are_exact_and_states_few(events, depth):
    counts, by_hand = SuffixCounts(depth), ByHand()
    growing = {text: counts.begin() for text in range(3)}
    for text, token in events:
        counts.append(growing[text], token)
        by_hand.append(text, token)
    assert counts.num_tokens == len(events)
    assert len(counts._next) <= 2 * len(events) + 1
    plain = [[token for token, _ in text] for text in by_hand.texts.values()]
    strings = {tuple(t[i : i + n]) for t in plain for n in range(1, depth) for i in range(len(t) - n + 1)}
    for string in strings:
        state, length = counts.match(string)
        assert length == len(string)
        following = {token: counts._count[state] for token, state in counts._next[state].items()}
        found = {token: count for token, (count, _) in by_hand.followers(string).items()}
        assert following == found and counts._followed[state] == sum(found.values())


@pytest.mark.parametrize("depth", [2, 5, 12])
def test_strings_above_the_depth_cost_nothing(depth: int):
    """In a loop every string is a suffix: counting them all would take longer with each token."""
    counts = SuffixCounts(depth)
    text = counts.begin()
    for _ in range(40):
        counts.append(text, 0)
    counted = [length for length, count in zip(counts._length, counts._count, strict=True) if count]
    assert sorted(counted) == list(range(1, depth + 1))


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("depth", range(2, 15))
def test_a_match_shares_the_depth_with_its_draft_as_suits_it_best(depth: int, factor: float):
    counts = SuffixCounts(depth)
    text = counts.begin()
    for token in range(60):
        counts.append(text, token)
    room = max(min(int(factor * own), depth - own) for own in range(1, depth))
    assert counts.draft(range(30), 60, factor, 0.1) == (room, tuple(range(30, 30 + room)))


def test_a_draft_is_no_longer_than_its_match_times_the_factor():
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    for factor, expected in ((0.4, ()), (0.5, (3,)), (1.0, (3, 4)), (2.0, (3, 4, 5, 6))):
        proposer = SuffixProposer(24, 0, factor, 0.1)
        proposer.add(0, [*text, 9, 1, 2])
        assert proposer.propose({0: 8}) == ({0: expected} if expected else {})


def test_the_most_frequent_continuation_is_drafted_and_improbable_ones_are_not():
    text = [7, 1, 2, 5, 8, 1, 2, 6, 9, 1, 2, 5, 4, 1, 2]
    for least, expected in ((0.6, {0: (5,)}), (0.7, {})):
        proposer = SuffixProposer(24, 0, 0.5, least)
        proposer.add(0, text)
        assert proposer.propose({0: 4}) == expected


def answered(proposer: SuffixProposer, rid: int, answer: list[int]) -> None:
    proposer.add(rid, [100 + rid])
    proposer.extend(rid, answer)
    proposer.drop(rid)


def asked(proposer: SuffixProposer, context: list[int]) -> tuple[int, ...]:
    """What a request with this prompt would be offered; it leaves nothing behind."""
    proposer.add(-1, context)
    draft = proposer.propose({-1: 4}).get(-1, ())
    proposer.drop(-1)
    return draft


def test_answers_of_others_are_remembered_their_prompts_are_not():
    proposer = SuffixProposer(24, 100, 1.0, 0.1)
    proposer.add(1, [1, 2, 3, 4])
    proposer.extend(1, [5, 6, 7, 8])
    assert asked(proposer, [5, 6]) == (7, 8), "its request is still under way"
    proposer.drop(1)
    proposer.drop(1)
    assert asked(proposer, [5, 6]) == (7, 8)
    assert asked(proposer, [1, 2]) == ()


def test_without_a_memory_only_the_own_text_counts():
    proposer = SuffixProposer(24, 0, 1.0, 0.1)
    answered(proposer, 1, [5, 6, 7, 8])
    assert asked(proposer, [5, 6]) == ()
    assert asked(proposer, [5, 6, 7, 5, 6]) == (7, 5)
    proposer.add(2, [1])
    proposer.extend(2, [2, 3, 1, 2])
    assert proposer.propose({2: 4}) == {2: (3, 1)}


@pytest.mark.parametrize("most", [1, 2, 3, 10])
def test_no_more_answers_are_remembered_than_allowed_and_the_oldest_go_first(most: int):
    proposer = SuffixProposer(24, most, 1.0, 0.1)
    for rid in range(25):
        answered(proposer, rid, [10 * rid, 10 * rid + 1, 10 * rid + 2])
        fresh = SuffixProposer(24, 0, 1.0, 0.1)
        fresh._memory.generations = proposer._memory.generations  # asking is no answer: it must not be remembered
        known = [old for old in range(rid + 1) if asked(fresh, [10 * old, 10 * old + 1])]
        assert known == list(range(rid + 1))[-len(known) :], "not the newest ones"
        assert max(1, min(rid + 1, most // 2)) <= len(known) <= most


def test_no_more_tokens_are_remembered_than_allowed():
    memory = AnswerMemory(depth=8, max_answers=10**6, max_tokens=100)
    for answer in range(50):
        counts, text = memory.begin()
        for token in range(10):
            counts.append(text, 10 * answer + token)
        assert sum(generation.num_tokens for generation in memory.generations) <= 100
    assert len(memory.generations) == 2


def test_a_resumed_request_goes_on_in_its_own_text():
    proposer = SuffixProposer(24, 100, 1.0, 0.1)
    proposer.add(1, [1, 2, 3])
    proposer.extend(1, [4, 5])
    proposer.drop(1)
    proposer.add(1, [1, 2, 3, 4, 5])
    proposer.extend(1, [1, 2])
    assert proposer.propose({1: 2}) == {1: (3, 4)}

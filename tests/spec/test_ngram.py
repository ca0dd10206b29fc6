"""The n-gram index drafts what a search through the whole text would find."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from minillm_serve.spec.ngram import NgramProposer

texts = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def searched(tokens: list[int], shortest: int, longest: int, limit: int) -> tuple[int, ...]:
    """What followed the latest earlier occurrence of the longest suffix; the text goes on in its own draft."""
    for length in range(min(longest, len(tokens) - 1), shortest - 1, -1):
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == tokens[-length:]:
                written = list(tokens)
                for index in range(limit):
                    written.append(written[start + length + index])
                return tuple(written[len(tokens) :])
    return ()


@given(texts, st.lists(st.integers(0, 40)), st.integers(1, 4), st.integers(0, 3), st.integers(1, 6))
def test_the_index_finds_what_a_search_finds(tokens, cuts, shortest, more, limit):
    """However the text came in, piece by piece."""
    proposer = NgramProposer(shortest, shortest + more)
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    proposer.add(7, tokens[: edges[1]])
    for start, end in pairwise(edges[1:]):
        proposer.extend(7, tokens[start:end])
    expected = searched(tokens, shortest, shortest + more, limit)
    assert proposer.propose({7: limit}) == ({7: expected} if expected else {})


def test_the_longest_match_goes_before_the_latest():
    proposer = NgramProposer(1, 3)
    proposer.add(0, [1, 2, 3, 50, 9, 3, 60, 1, 2, 3])
    assert proposer.propose({0: 2}) == {0: (50, 9)}


def test_of_equal_matches_the_latest_goes_on():
    proposer = NgramProposer(2, 2)
    proposer.add(0, [1, 2, 50, 1, 2, 60, 1, 2])
    assert proposer.propose({0: 1}) == {0: (60,)}


def test_a_loop_goes_on_beyond_the_texts_end():
    proposer = NgramProposer(3, 3)
    proposer.add(0, [8, 1, 2, 1, 2, 1])
    assert proposer.propose({0: 7}) == {0: (2, 1, 2, 1, 2, 1, 2)}


def test_requests_know_nothing_of_each_other_and_are_forgotten():
    proposer = NgramProposer(2, 2)
    proposer.add(1, [1, 2, 3])
    proposer.add(2, [1, 2])
    assert proposer.propose({1: 3, 2: 3}) == {}
    proposer.drop(1)
    proposer.drop(1)
    proposer.add(1, [5, 6, 7, 5, 6])
    assert proposer.propose({1: 1}) == {1: (7,)}

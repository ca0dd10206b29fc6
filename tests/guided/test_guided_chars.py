"""Algebra of automata over code points, against sets of texts that are written out."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.guided.errors import SchemaError
from minillm_serve.guided.text import codepoints
from minillm_serve.guided.text.chars import MAX_CODE_POINT, CharDfa
from minillm_serve.guided.text.chars_algebra import (
    ANYTHING,
    NOTHING,
    complement,
    count_words,
    from_words,
    intersect,
    is_disjoint,
    is_empty,
    is_subset,
    is_universal,
    longest_length,
    shortest_length,
    subtract,
    tagged,
    union,
    with_length,
    words,
)
from minillm_serve.guided.text.dfa_cache import DfaCache
from minillm_serve.guided.text.regex import compile_pattern

LETTERS = "ab\U0001f600"
LONGEST = 4
TEXTS = ["".join(text) for length in range(LONGEST + 1) for text in product(LETTERS, repeat=length)]


def language(dfa: CharDfa) -> frozenset[str]:
    """What it accepts among TEXTS, one by one."""
    return frozenset(text for text in TEXTS if dfa.match(text) >= 0)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda both: f"(?:{both[0]}|{both[1]})"),
        st.tuples(inner, st.sampled_from("*+?")).map(lambda both: f"(?:{both[0]}){both[1]}"),
    )


DFAS = st.recursive(st.sampled_from(["a", "b", "\U0001f600", "[ab]", "[^a]", "."]), _larger, max_leaves=6).map(
    lambda pattern: compile_pattern(pattern, anchored=True)
)


@settings(max_examples=200, deadline=None)
@given(DFAS, DFAS, DFAS)
def test_and_or_not_are_those_of_sets(one: CharDfa, two: CharDfa, three: CharDfa) -> None:
    sets = [language(dfa) for dfa in (one, two, three)]
    everything = frozenset(TEXTS)
    assert language(intersect(one, two, three)) == sets[0] & sets[1] & sets[2]
    assert language(union(one, two, three)) == sets[0] | sets[1] | sets[2]
    assert language(complement(one)) == everything - sets[0]
    assert language(subtract(one, two, three)) == sets[0] - sets[1] - sets[2]
    both_ways = complement(union(complement(one), complement(two)))  # De Morgan
    assert is_empty(subtract(both_ways, intersect(one, two))) and is_empty(subtract(intersect(one, two), both_ways))
    assert is_universal(union(one, complement(one))) and is_empty(intersect(one, complement(one)))


@settings(max_examples=200, deadline=None)
@given(DFAS, DFAS)
def test_questions_are_answered_for_all_texts(one: CharDfa, two: CharDfa) -> None:
    assert is_subset(intersect(one, two), one) and is_subset(one, union(one, two))
    if is_subset(one, two):
        assert language(one) <= language(two)
    else:
        witness = next(words(subtract(one, two), 1))
        assert one.match(witness) >= 0 > two.match(witness)
    if is_disjoint(one, two):
        assert not language(one) & language(two)
    else:
        witness = next(words(intersect(one, two), 1))
        assert one.match(witness) >= 0 and two.match(witness) >= 0


@settings(max_examples=200, deadline=None)
@given(DFAS, st.integers(0, 5), st.none() | st.integers(0, 5))
def test_lengths_are_counted_in_code_points(dfa: CharDfa, low: int, high: int | None) -> None:
    counted = with_length(dfa, low, high)
    assert counted is not None
    assert language(counted) == {
        text for text in language(dfa) if low <= len(text) <= (high if high is not None else 99)
    }


@settings(max_examples=200, deadline=None)
@given(DFAS)
def test_words_come_short_ones_first_and_are_as_many_as_counted(dfa: CharDfa) -> None:
    some = list(words(dfa, 300))
    assert len(some) == len(set(some)) == count_words(dfa, 300)
    assert [len(word) for word in some] == sorted(len(word) for word in some)
    assert all(dfa.match(word) >= 0 for word in some)
    assert shortest_length(dfa) == (len(some[0]) if some else None)
    longest = longest_length(dfa)
    if longest is not None:
        assert all(len(word) <= longest for word in some) and with_length(dfa, longest, longest) is not NOTHING
    if len(some) < 300:
        assert set(some) >= language(dfa)
        assert not some or longest == len(some[-1])


@settings(max_examples=150, deadline=None)
@given(st.lists(DFAS, max_size=3), st.dictionaries(st.integers(0, 7), st.integers(-1, 5)))
def test_a_tag_says_which_of_them_accept(dfas: list[CharDfa], tag_by_set: dict[int, int]) -> None:
    asked: list[int] = []

    def tag_of(accepted: int) -> int:
        asked.append(accepted)
        return tag_by_set.get(accepted, -1)

    both = tagged(dfas, tag_of)
    assert len(asked) == len(set(asked))
    for text in TEXTS:
        accepted = sum(1 << index for index, dfa in enumerate(dfas) if dfa.match(text) >= 0)
        assert accepted in asked and both.match(text) == tag_by_set.get(accepted, -1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8))
def test_words_become_exactly_themselves(texts: list[str]) -> None:
    dfa = from_words(texts)
    assert set(words(dfa, len(texts) + 1)) == set(texts)
    assert count_words(dfa, 100) == len(set(texts))
    assert dfa.match("".join(texts) + "!") < 0 or "".join(texts) + "!" in texts


def test_nothing_and_anything_are_recognised_however_they_came_to_be() -> None:
    assert is_empty(intersect(compile_pattern("^a$"), compile_pattern("^b$"))) and is_empty(union())
    assert is_universal(compile_pattern("")) and is_universal(intersect()) and is_universal(complement(NOTHING))
    assert is_universal(compile_pattern("^[\\u{0}-\\u{D7FF}\\u{E000}-\\u{10FFFF}]*$"))
    assert is_empty(complement(ANYTHING)) and is_empty(compile_pattern("^[\\uD800-\\uDFFF]$"))
    assert shortest_length(NOTHING) is None and longest_length(NOTHING) is None and list(words(NOTHING, 5)) == []
    assert longest_length(ANYTHING) is None and count_words(ANYTHING, 10**9) == 10**9
    assert count_words(compile_pattern("[\\u{0}-\\u{10FFFF}]", anchored=True), 10**9) == 0x110000 - 0x800


def test_lengths_that_take_too_many_states_are_left_to_the_caller() -> None:
    assert with_length(ANYTHING, 0, 100_000) is None
    assert with_length(ANYTHING, 100_000, None) is None
    assert with_length(ANYTHING, 3, 2) is NOTHING
    assert with_length(ANYTHING, 2, None).rows == ((1,), (2,), (2,))


def test_a_product_that_explodes_is_refused_with_the_path_it_was_given() -> None:
    counters = [compile_pattern(f"^(?:a{{{prime}}})*$") for prime in (97, 101, 103)]
    with pytest.raises(SchemaError) as refused:
        intersect(*counters, keyword="patternProperties", path="/x")
    assert refused.value.keyword == "patternProperties" and refused.value.path == "/x"
    with pytest.raises(SchemaError):
        from_words(chr(0x4E00 + index) + chr(0x6000 + index) for index in range(2_000))


def test_many_words_share_their_endings() -> None:
    dfa = from_words(f"word-{number:05}-end" for number in range(10_000))
    assert len(dfa.rows) == len("word-00000-end") + 1 and count_words(dfa, 20_000) == 10_000


SETS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=5).map(
    lambda pairs: codepoints.ranges((first, first + length) for first, length in pairs)
)


def _members(one: codepoints.Ranges) -> set[int]:
    return {code for first, last in one for code in range(first, min(last, 99) + 1)}


@settings(max_examples=200, deadline=None)
@given(SETS, SETS, SETS)
def test_sets_of_code_points_and_their_partition(
    one: codepoints.Ranges, two: codepoints.Ranges, three: codepoints.Ranges
) -> None:
    assert _members(codepoints.union(one, two)) == _members(one) | _members(two)
    assert _members(codepoints.intersection(one, two)) == _members(one) & _members(two)
    assert _members(codepoints.complement(one)) == set(range(100)) - _members(one)
    assert codepoints.complement(codepoints.complement(one)) == one
    bounds, classes, held = codepoints.partition([one, two, three])
    assert bounds[0] == 0 and list(bounds) == sorted(set(bounds)) and bounds[-1] <= MAX_CODE_POINT
    for code in range(100):
        place = sum(bound <= code for bound in bounds) - 1
        sets_with_it = sum(1 << bit for bit, each in enumerate((one, two, three)) if code in _members(each))
        assert held[classes[place]] == sets_with_it


def test_the_cache_keeps_what_was_used_last_within_its_bound() -> None:
    cache = DfaCache(max_cells=1_000)
    for number in range(20):
        cache.put(number, ANYTHING)
        assert cache.get(0) is ANYTHING  # used each time, so never the one to go
    assert cache.cells <= 1_000 and cache.get(19) is ANYTHING and cache.get(1) is None

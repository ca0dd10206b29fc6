"""Draft lengths follow what is accepted and what verifying costs: they end where they do not pay, and come back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.spec.length import PROBE_EVERY, DraftLength, StepCosts
from minillm_serve.speculative import speculative_config

MOST = 6
LINEAR = StepCosts(free=4, slope=0.1)


def make(device: str = "cpu", draft_cost: float = 0.0, costs: StepCosts | None = LINEAR, **keys: object) -> DraftLength:
    config = speculative_config({"method": "ngram", "num_speculative_tokens": MOST} | keys)
    return DraftLength(config, device, draft_cost, costs)


def taught(length: DraftLength, rid: int, drafted: int, accepted: int, times: int = 60) -> None:
    for _ in range(times):
        length.observe(rid, drafted, accepted)


def speed(rates: list[float], lengths: tuple[int, ...], costs: StepCosts, draft_cost: float) -> float:
    """Expected tokens per time, as the formulas say it."""
    tokens = sum(sum(rate**i for i in range(k + 1)) for rate, k in zip(rates, lengths, strict=True))

    computed = len(rates) + sum(lengths)
    return tokens / (1 + costs.slope * max(0, computed - costs.free) + draft_cost * max(lengths))


@given(
    st.lists(st.sampled_from((0, 1, 2, 3, 5, 8)), min_size=1, max_size=3),
    st.sampled_from((0.0, 0.05, 0.4)),
    st.sampled_from((StepCosts(0, 0.5), StepCosts(2, 0.2), LINEAR, StepCosts(50, 0.01))),
)
@settings(deadline=None)
def test_no_other_lengths_are_faster(accepted_of_eight, draft_cost, costs):
    """Against every combination of lengths, for requests with histories of their own."""
    length = make(draft_cost=draft_cost, costs=costs, num_speculative_tokens=4)
    for rid, accepted in enumerate(accepted_of_eight):
        taught(length, rid, 8, accepted, times=9)
    rates = [length.acceptance(rid) for rid in range(len(accepted_of_eight))]
    chosen = tuple(length.lengths(range(len(rates))).values())
    every: list[tuple[int, ...]] = [()]
    for _ in rates:
        every = [(*some, k) for some in every for k in range(5)]
    best = max(speed(rates, lengths, costs, draft_cost) for lengths in every)
    assert speed(rates, chosen, costs, draft_cost) == pytest.approx(best)


def test_more_is_drafted_where_more_is_accepted():
    lengths = []
    for accepted in range(MOST + 1):
        length = make(costs=StepCosts(1, 0.3))
        taught(length, 0, MOST, accepted)
        lengths.append(length.lengths([0])[0])
    assert lengths == sorted(lengths) and lengths[0] == 0 and lengths[-1] == MOST


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_that_fills_the_machine_drafts_nothing(device: str):
    length = make(device, costs=None)
    assert length.lengths([0])[0] > 0, "a request alone, of which nothing is known, tries"
    drafted = [sum(length.lengths(range(batch)).values()) / batch for batch in (1, 4, 16, 64, 256, 2048)]
    assert drafted == sorted(drafted, reverse=True) and drafted[-1] == 0


def test_a_dear_draft_model_drafts_less():
    lengths = [make(draft_cost=cost).lengths([0])[0] for cost in (0.0, 0.1, 0.3, 1.0)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[2] > lengths[-1] == 0


def test_a_request_that_turned_unpredictable_is_probed_and_comes_back():
    length = make(costs=StepCosts(1, 0.2))
    taught(length, 3, MOST, 0)
    drafts = [length.lengths([3])[3] for _ in range(4 * PROBE_EVERY)]
    assert sorted(set(drafts)) == [0, 1] and drafts.count(1) == 4
    for _ in range(8 * PROBE_EVERY):
        drafted = length.lengths([3])[3]
        length.observe(3, drafted, drafted)
        if drafted > 1:
            break
    assert drafted > 1, "probes were accepted, and still it gets no more"
    taught(length, 3, MOST, MOST, times=30)
    assert length.lengths([3])[3] == MOST


def test_a_full_batch_is_not_probed():
    length = make(costs=StepCosts(1, 0.2))
    for rid in range(64):
        taught(length, rid, MOST, 0, times=20)
    assert not any(any(length.lengths(range(64)).values()) for _ in range(3 * PROBE_EVERY))


def test_requests_are_told_apart_and_new_ones_begin_like_all():
    length = make(costs=StepCosts(1, 0.2))
    for _ in range(40):
        length.observe(0, MOST, MOST)
        length.observe(1, MOST, 0)
    lengths = length.lengths([0, 1])
    assert lengths[0] > lengths[1] == 0
    assert length.acceptance(1) < length.acceptance(2) < length.acceptance(0)
    length.drop(0)
    length.drop(0)
    assert length.acceptance(0) == length.acceptance(2), "what it did is still part of what all did"


def test_a_draft_counts_up_to_its_first_refusal():
    """Three of six accepted are three hits in four trials: nobody knows of the last two."""
    length = make()
    taught(length, 0, MOST, 3, times=400)
    assert length.acceptance(0) == pytest.approx(0.75, abs=0.01)
    known = length.acceptance(0), length.acceptance(1)
    length.observe(0, 0, 0)
    assert (length.acceptance(0), length.acceptance(1)) == known, "a step without drafts says nothing"


def test_what_new_requests_begin_with_follows_the_times():
    length = make()
    taught(length, 0, MOST, 0, times=1000)
    assert length.acceptance(1) < 0.1
    taught(length, 0, MOST, MOST, times=1000)
    assert length.acceptance(1) > 0.95


def test_without_dynamic_the_configuration_alone_decides():
    fixed = make(dynamic=False)
    taught(fixed, 0, MOST, 0)
    assert fixed.lengths([0, 1, 2]) == {0: MOST, 1: MOST, 2: MOST}
    by_size = make(num_speculative_tokens_per_batch_size=[[1, 2, 5], [3, 8, 2], [9, 9, 0]])
    taught(by_size, 0, MOST, 0)
    assert by_size.lengths([0, 1]) == {0: 5, 1: 5}
    assert set(by_size.lengths(range(8)).values()) == {2}
    assert set(by_size.lengths(range(100)).values()) == {0}


def test_with_both_the_table_is_an_upper_bound():
    both = make(dynamic=True, num_speculative_tokens_per_batch_size=[[1, 1, 3], [2, 2, 0]])
    taught(both, 0, MOST, MOST)
    assert both.lengths([0]) == {0: 3} and both.lengths([0, 1]) == {0: 0, 1: 0}
    slow = make(costs=StepCosts(1, 0.5), dynamic=True, num_speculative_tokens_per_batch_size=[[1, 9, 3]])
    taught(slow, 0, MOST, 0)
    assert slow.lengths([0]) == {0: 0}


def test_an_empty_batch_has_no_lengths():
    assert make().lengths([]) == {}


def test_peeking_tells_what_comes_and_takes_no_step():
    """An engine that runs ahead asks twice a step: were both steps, it might never meet the one that probes."""
    length = make(costs=StepCosts(1, 0.2))
    taught(length, 3, MOST, 0)
    drafted = 0
    for _ in range(4 * PROBE_EVERY):
        told = length.lengths([3], peek=True)
        assert length.lengths([3], peek=True) == told == length.lengths([3])
        drafted += told[3]
    assert drafted == 4


def test_a_network_rests_while_the_batch_fills_the_machine():
    """Nothing is drafted, probed or read; with fewer requests it drafts again, of what was known of them."""
    costs = StepCosts(free=2, slope=1.0)
    length = make(draft_cost=0.1, costs=costs)
    rids = list(range(8))
    for _ in range(3 * PROBE_EVERY):
        assert not any(length.lengths(rids).values())
        assert length.resting
    assert length.lengths([0])[0] > 0
    assert not length.resting
    length.lengths([])
    assert not length.resting, "nobody fills a machine with prompts alone"


def test_a_request_alone_never_rests():
    """However seldom its drafts stood: it is probed."""
    length = make(draft_cost=0.1)
    taught(length, 0, drafted=3, accepted=0)
    seen = []
    for _ in range(2 * PROBE_EVERY):
        seen.append(length.lengths([0])[0])
        assert not length.resting
    assert sorted(set(seen)) == [0, 1]


def test_what_was_learnt_can_be_forgotten():
    length, fresh = make(draft_cost=0.1), make(draft_cost=0.1)
    taught(length, 0, drafted=3, accepted=0)
    length.lengths([0])
    length.forget()
    assert length.acceptance(0) == fresh.acceptance(0)
    assert [length.lengths([0]) for _ in range(20)] == [fresh.lengths([0]) for _ in range(20)]

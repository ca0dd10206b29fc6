"""A chain that stops when it no longer pays is as fast as the best fixed length, whatever confidence is worth.

Time is modelled as the engine models it (StepCosts); each token of a text has a chance to be guessed, drawn from a
process with a seed, and a confidence that may or may not tell of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from random import Random

import pytest

from minillm_serve.spec.length import PROBE_EVERY, Chains, DraftLength, StepCosts
from minillm_serve.speculative import speculative_config

MOST = 8
COSTS, DRAFT_COST = StepCosts(free=5, slope=0.09), 0.04
Token = tuple[float, float]  # chance that the draft of it stands, and the probability that the drafter gives it


def constant(chance: float) -> Callable[[Random], Token]:
    return lambda random: (chance, 0.8 * chance)


def mixture(easy: float) -> Callable[[Random], Token]:
    """Easy and hard tokens; the drafter is too modest, but it knows which is which."""
    return lambda random: (0.95, random.uniform(0.7, 1.0)) if random.random() < easy else (0.2, random.uniform(0, 0.4))


def graded(random: Random) -> Token:
    """Every shade between, and confidence that is only about right."""
    chance = random.random() ** 0.6
    return chance, min(1.0, max(0.0, chance + random.gauss(0, 0.15)))


def uninformative(chance: float) -> Callable[[Random], Token]:
    return lambda random: (chance, random.random())


@dataclass(frozen=True)
class Case:
    """A process, and how many requests say such texts at a time."""

    process: Callable[[Random], Token]
    batch: int = 1
    steps: int = 2400

    def speed(self, fixed: int | None = None, stops_early: bool = True) -> float:
        """Tokens per time, expected of the drafts that were made: ``fixed`` ones, or as many as the rule has it."""
        random, chances = Random(5), Random(6)
        config = speculative_config({"method": "ngram", "num_speculative_tokens": MOST})
        length = DraftLength(config, "cpu", DRAFT_COST, COSTS, stops_early)
        tokens, time, rids = 0.0, 0.0, list(range(self.batch))
        for _ in range(self.steps // self.batch):
            texts = [[self.process(random) for _ in range(MOST)] for _ in rids]
            limits = dict.fromkeys(rids, fixed) if fixed is not None else length.lengths(rids)
            chains = length.chains() if fixed is None else None
            drafted, passes = draft(chains, limits, texts)
            for rid, text in enumerate(texts):
                stands = list(accumulate((chance for chance, _ in text[: drafted[rid]]), mul))
                tokens += 1 + sum(stands)
                if drafted[rid]:
                    luck = chances.random()  # of all that could be accepted, as many as the chances have it
                    length.observe(rid, drafted[rid], sum(luck < stand for stand in stands))
            computed = self.batch + sum(drafted)
            time += 1 + COSTS.slope * max(0.0, computed - COSTS.free) + DRAFT_COST * passes
        return tokens / time

    def best_fixed(self) -> float:
        return max(self.speed(fixed=count) for count in range(MOST + 1))


def draft(chains: Chains | None, limits: dict[int, int], texts: list[list[Token]]) -> tuple[list[int], int]:
    """How many tokens each request has to verify, and the passes of the drafter that they took."""
    drafted, passes = [0] * len(texts), 0
    growing = [rid for rid, limit in limits.items() if limit]
    while growing:
        confidences = [texts[rid][passes][1] for rid in growing]
        passes += 1
        worth = [True] * len(growing)
        going = [limits[rid] > passes for rid in growing]
        if chains is not None:
            worth, going = chains.grown(growing, going, confidences)
        for rid, stays in zip(growing, worth, strict=True):
            drafted[rid] += stays
        growing = [rid for rid, goes in zip(growing, going, strict=True) if goes]
    return drafted, passes


@pytest.mark.parametrize("chance", [0.3, 0.6, 0.85])
def test_constant_chances_make_the_best_fixed_length(chance):
    case = Case(constant(chance))
    assert case.speed() > 0.99 * case.best_fixed()


@pytest.mark.parametrize(
    ("case", "gain"),
    [
        (Case(mixture(0.5)), 1.0),
        (Case(mixture(0.7)), 1.05),
        (Case(mixture(0.7), batch=4), 1.1),
        (Case(mixture(0.7), batch=8), 1.05),
        (Case(graded), 1.0),
    ],
    ids=["half easy", "most easy", "a batch", "a large batch", "all shades"],
)
def test_confidence_that_tells_easy_from_hard_beats_every_fixed_length(case, gain):
    assert case.speed() > gain * case.best_fixed()


@pytest.mark.parametrize("batch", [1, 4, 8])
@pytest.mark.parametrize("chance", [0.3, 0.6, 0.85])
def test_confidence_that_tells_nothing_costs_next_to_nothing(chance, batch):
    case = Case(uninformative(chance), batch)
    assert case.speed() > 0.97 * case.speed(stops_early=False)


def lengths(stops_early: bool = True, **keys: object) -> DraftLength:
    config = speculative_config({"method": "ngram", "num_speculative_tokens": MOST} | keys)
    return DraftLength(config, "cpu", DRAFT_COST, COSTS, stops_early)


def chain(length: DraftLength, confidence: float | None) -> int:
    """How many tokens a request alone drafts whose every token has this confidence."""
    limit, count, goes = length.lengths([0])[0], 0, True
    chains = length.chains()
    while goes:
        count += 1
        _, (goes,) = chains.grown([0], [count < limit], None if confidence is None else [confidence])
    return count


def test_sure_chains_are_longer_than_unsure_ones():
    counts = [chain(lengths(), confidence) for confidence in (0.02, 0.3, 0.6, 0.99)]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == MOST


def test_what_is_said_with_confidence_and_falls_is_soon_not_believed():
    length = lengths()
    assert chain(length, 0.99) == MOST
    for _ in range(30):
        chain(length, 0.99)
        length.observe(0, 4, 0)
        chain(length, 0.2)
        length.observe(0, 4, 4)
    assert length.standing(0, 0.99) < 0.1 and length.standing(0, 0.2) > 0.9
    assert chain(length, 0.99) < chain(length, 0.2)


def test_without_confidence_a_chain_is_as_long_as_the_acceptance_rate_has_it():
    for accepted in (1, 2, 3, 4):
        length, fixed = lengths(), lengths(stops_early=False)
        for each in (length, fixed):
            for _ in range(60):
                each.observe(0, 4, accepted)
        assert chain(length, None) == fixed.lengths([0])[0]


def test_a_draft_that_is_left_counts_as_what_was_expected_of_it():
    """In a full batch only what is likely is verified: were the rest forgotten, everything would look likely."""
    left, length = 0, lengths()
    for _ in range(40):
        rids = list(range(6))
        length.lengths(rids)
        worth, _ = length.chains().grown(rids, [False] * 6, [0.99] * 3 + [0.1] * 3)
        left += worth.count(False)
        for rid in rids:
            if worth[rid]:
                length.observe(rid, 1, int(rid < 3))
    assert left > 80 and length.acceptance(0) > 0.8 and length.acceptance(5) < 0.3
    assert 0.3 < length.acceptance(99) < 0.7


def test_a_probing_step_verifies_whatever_was_drafted():
    """Else confidence that is wrongly thought to be worthless would never be put to the test."""
    length, verified = lengths(), 0
    rids = list(range(6))
    for _ in range(4 * PROBE_EVERY):
        length.lengths(rids)
        worth, _ = length.chains().grown(rids, [False] * 6, [0.01] * 6)
        verified += all(worth)
    assert verified == 4


def test_nan_is_no_confidence():
    length = lengths()
    assert chain(length, float("nan")) == 1
    length.observe(0, 1, 0)
    assert 0 < length.acceptance(0) < 1


def test_fixed_lengths_have_no_chains():
    assert lengths(dynamic=False).chains() is None
    assert lengths(stops_early=False).chains() is None

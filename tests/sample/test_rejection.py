"""Rejection sampling is safe at the edges, refuses what it cannot honour, and hangs on the request alone.

That it keeps the target's distribution is the matter of test_lossless_law.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from asked import asked
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_kernels.noise import gumbel_noise
from minillm_serve.sample import rejection
from minillm_serve.sample.rejection import probabilities, standard, synthetic, uniforms, verify
from minillm_serve.sample.sampler import sample

VOCAB, INF = 12, float("inf")
ALMOST_ONE = 1 - 2.0**-53  # the largest number that uniforms gives


def logits_for(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 2


def one_hot(*tokens: int) -> np.ndarray:
    return np.eye(VOCAB)[list(tokens)]


# ---- What is drawn from


@pytest.mark.parametrize("cuts", [{}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2}, {"typical_p": 0.6}])
def test_probabilities_are_a_softmax_over_the_tokens_that_are_ever_drawn(cuts):
    """The weights of the tokens kept are in the softmax's proportions, and 3,000 draws find them all."""
    logits, rows = logits_for(1), torch.arange(3000)
    logits[0, 3] = -INF
    found = probabilities(logits, asked(rows[:1], temperature=1.5, **cuts))[0]
    kept = torch.nonzero(found).flatten()
    assert torch.equal(sample(logits.expand(3000, -1), asked(rows, temperature=1.5, **cuts)).unique(), kept)
    torch.testing.assert_close(found[kept], (logits[0, kept].double() / 1.5).softmax(-1), rtol=1e-6, atol=0)


def test_at_temperature_zero_the_first_maximum_has_it_all_even_beside_drawn_rows():
    logits, mixed = logits_for(4), asked(torch.arange(4))
    logits[0, [2, 7]] = 9.0
    mixed.temperature[::2] = 0
    found = probabilities(logits, mixed)
    assert found[::2].tolist() == one_hot(2, int(logits[2].argmax())).tolist()
    torch.testing.assert_close(found[1::2], logits[1::2].double().softmax(-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("temperature", [1e-38, 1e-6])
def test_extreme_temperatures_stay_finite(temperature):
    logits = logits_for(3) * 50
    found = probabilities(logits, asked(torch.arange(3), temperature=temperature))
    assert found.tolist() == one_hot(*logits.argmax(-1).tolist()).tolist()


def test_a_row_that_may_draw_nothing_has_no_probabilities_and_a_broken_one_has_no_numbers():
    logits = logits_for(3)
    logits[0] = -INF
    logits[1, 5], logits[2, 5] = float("nan"), INF
    found = probabilities(logits, asked(torch.arange(3)))
    assert not found[0].any()
    assert found[1:].isnan().any(-1).all()


# ---- The random numbers


def test_uniforms_are_even_independent_and_hang_on_seed_and_position():
    """Five standard errors, for 100,000 seeds: both columns against each other, the next position and the noise."""
    seeds, count = torch.arange(100_000), 100_000
    here, there = (uniforms(seeds, torch.full((count,), at)) for at in (4, 5))
    noise = gumbel_noise(seeds, torch.full((count,), 4), 2).numpy()
    assert here.min() >= 0 and here.max() < 1
    assert np.abs(here.mean(0) - 0.5).max() < 5 * (1 / 12 / count) ** 0.5
    correlation = np.corrcoef(np.column_stack([here, there, noise]), rowvar=False) - np.eye(6)
    assert np.abs(correlation).max() < 5 / count**0.5
    assert np.array_equal(here[7:8], uniforms(torch.tensor([7]), torch.tensor([4])))


# ---- One request


@st.composite
def cases(draw):
    """Drafts and probabilities with many zeros, among them target rows and draft rows of a single token."""
    count = draw(st.integers(0, 4))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))

    def rows(number: int) -> np.ndarray:
        weights = generator.random((number, 5)) * (generator.random((number, 5)) < draw(st.sampled_from([0.3, 0.7, 1])))
        weights[np.arange(number), generator.integers(0, 5, number)] += 0.1
        return weights / weights.sum(-1, keepdims=True)

    drafts = generator.integers(0, 5, count).tolist()
    target, share = rows(count + 1), draw(st.sampled_from([None, rows(count), "target's"]))
    noise = np.where(generator.random((count + 1, 2)) < 0.3, ALMOST_ONE, generator.random((count + 1, 2)))
    noise[generator.random((count + 1, 2)) < 0.1] = 0
    return drafts, target[:-1] if isinstance(share, str) else share, target, noise


@settings(max_examples=400, deadline=None)
@given(case=cases())
def test_every_token_is_one_that_the_target_may_draw_and_a_replacement_is_not_its_draft(case):
    """Also for drafts that the draft model could not have drawn, and at both ends of the uniforms."""
    drafts, share, target, noise = case
    tokens = verify(drafts, share, target, noise)
    accepted = len(tokens) - 1
    assert tokens[:-1] == drafts[:accepted]
    assert all(target[index, token] > 0 for index, token in enumerate(tokens))
    if accepted < len(drafts):
        assert tokens[-1] != drafts[accepted]
        if share is not None and share[accepted, drafts[accepted]]:
            assert target[accepted, tokens[-1]] > share[accepted, tokens[-1]]


def test_a_draft_from_the_targets_own_distribution_always_stands():
    """Also where the draft model's copy of it is off by rounding, and nothing is left to replace the draft with."""
    p = probabilities(logits_for(3), asked(torch.arange(3))).numpy()
    noise = np.full((3, 2), ALMOST_ONE)
    assert verify((4, 9), p[:2], p, noise)[:2] == [4, 9]
    above = one_hot(4, 9) * (1 + 1e-9)
    assert verify((4, 9), above, one_hot(4, 9, 0), noise) == [4, 9, 0]
    assert verify((4, 9), None, one_hot(4, 9, 0) * (1 - 1e-9), noise) == [4, 9, 0]


def test_the_smallest_of_residuals_is_drawn_from_like_any_other():
    """Its only token has the smallest number there is, and a product with it rounds to itself."""
    p = one_hot(4, 0) * (1 - 1e-9)
    p[0, 2] = 5e-324
    assert verify((4,), one_hot(4), p, np.full((2, 2), ALMOST_ONE)) == [2]


def test_where_both_models_are_sure_and_the_draft_is_neithers_the_targets_token_comes():
    """p - q is all zero there, and the draft has no probability."""
    assert verify((2,), one_hot(5), one_hot(5, 0), np.full((2, 2), 0.5)) == [5]


def test_without_drafts_the_last_row_is_drawn_from():
    p = probabilities(logits_for(1), asked(torch.arange(1))).numpy()
    edges = np.append(0.0, p[0].cumsum())
    for token in range(VOCAB):
        middle = np.array([[0.0, (edges[token] + edges[token + 1]) / 2]])
        assert verify((), None, p, middle) == verify((), p[:0], p, middle) == [token]
    halves = (one_hot(3) + one_hot(8)) / 2
    assert [verify((), None, halves, np.array([[0.0, uniform]])) for uniform in (0.0, 0.5, ALMOST_ONE)] == [
        [3],
        [8],
        [8],
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"target_probs": one_hot(1, 2)}, r"target_probs is \(2, 12\); 2 drafts need \[3, vocab\]"),
        ({"draft_probs": one_hot(1)}, r"draft_probs is \(1, 12\); expected \[2, 12\]"),
        ({"draft_probs": np.full((2, VOCAB), np.nan)}, "draft_probs has a NaN"),
        ({"target_probs": np.where(one_hot(1, 2, 3), np.nan, 0)}, "target_probs has a NaN"),
        ({"target_probs": one_hot(1, 2, 3) * 1.1}, "does not sum to 1"),
        ({"target_probs": one_hot(1, 2, 3) * 2 - one_hot(2, 3, 4)}, "a negative number"),
        ({"uniforms": np.full((2, 2), 0.5)}, r"uniforms is \(2, 2\); expected \[3, 2\]"),
        ({"uniforms": np.ones((3, 2))}, r"numbers in \[0, 1\)"),
        ({"uniforms": np.full((3, 2), np.nan)}, r"numbers in \[0, 1\)"),
        ({"drafts": (1, VOCAB)}, "vocabulary of 12"),
        ({"drafts": (-1, 1)}, "vocabulary of 12"),
    ],
)
def test_what_cannot_be_verified_is_refused(change, complaint):
    fine = {"drafts": (1, 2), "draft_probs": one_hot(1, 2), "target_probs": one_hot(1, 2, 3)}
    fine["uniforms"] = np.full((3, 2), 0.5)
    assert verify(**fine) == [1, 2, 3]
    with pytest.raises(ValueError, match=complaint):
        verify(**fine | change)


# ---- A batch of them


def batch(requests: int = 80, temperature: float = 1.0):
    """Requests of 1 to 4 drafts, each after a row that drafts nothing; every other's drafts are drawn."""
    generator = np.random.default_rng(1)
    counts = [1 + index % 4 for index in range(requests)]
    ends = np.cumsum([count + 2 for count in counts]).tolist()
    spans = [slice(end - count - 1, end) for end, count in zip(ends, counts, strict=True)]
    logits, rows = logits_for(ends[-1]), torch.arange(ends[-1])
    mixed = asked(rows % 5, rows, temperature=temperature)
    mixed.temperature.mul_(0.5 + rows % 4 / 3)
    drafts = [generator.integers(0, 3, count).tolist() for count in counts]
    share = [
        probabilities(logits_for(count, index), asked(rows[:count])).numpy() if index % 2 else None
        for index, count in enumerate(counts)
    ]
    logits[:, :3] += 4  # so that some drafts stand
    return sample(logits, mixed), logits, mixed, spans, drafts, share


def standing(tokens: list[int], drafts: list[int]) -> int:
    """The number of leading tokens that equal the drafts."""
    return next((at for at, draft in enumerate(drafts) if tokens[at] != draft), len(drafts))


def test_each_span_holds_what_verify_says_and_other_rows_the_samplers_tokens():
    sampled, logits, mixed, spans, drafts, share = batch()
    before, p, noise = sampled.clone(), probabilities(logits, mixed).numpy(), uniforms(mixed.seeds, mixed.positions)
    expected, counts = sampled.clone(), set()
    settled = standard(sampled, logits, mixed, spans, drafts, share)
    for span, own, q in zip(spans, drafts, share, strict=True):
        tokens = verify(own, q, p[span], noise[span])
        expected[span.start : span.start + len(tokens)] = torch.tensor(tokens)
        assert standing(settled[span].tolist(), own) == len(tokens) - 1
        counts.add(len(tokens))
    assert torch.equal(settled, expected) and torch.equal(sampled, before)
    assert counts == {1, 2, 3, 4, 5}


def test_a_request_is_settled_alike_in_any_batch(monkeypatch):
    """Its drafts stand or fall by its own seed and positions, wherever its rows lie and whoever is verified beside."""
    sampled, logits, mixed, spans, drafts, share = batch()
    settled = standard(sampled, logits, mixed, spans, drafts, share)
    for span, own, q in zip(spans, drafts, share, strict=True):
        alone = standard(sampled[span], logits[span], mixed[span], [slice(0, len(own) + 1)], [own], [q])
        assert torch.equal(alone, settled[span])
    monkeypatch.setattr(rejection, "SPANS_AT_ONCE", 3)
    assert torch.equal(standard(sampled, logits, mixed, spans[::-1], drafts[::-1], share[::-1]), settled)


def test_greedy_rejection_keeps_the_drafts_that_are_the_argmax():
    sampled, logits, mixed, spans, drafts, share = batch(temperature=0)
    for span, own in zip(spans[::3], drafts[::3], strict=True):
        own[:] = sampled[span][:-1].tolist()
    assert torch.equal(standard(sampled, logits, mixed, spans, drafts, share), sampled)


@pytest.mark.parametrize("temperature", [0, 1])
def test_where_nothing_may_be_drawn_the_samplers_token_stays(temperature):
    """Its logit of -inf says that the request is to be given up; the other requests go on."""
    sampled, logits, mixed, spans, drafts, share = batch(temperature=temperature)
    settled = standard(sampled, logits, mixed, spans, drafts, share)
    logits[spans[2]] = -INF
    hopeless = sample(logits, mixed)
    hopeless[spans[2]] = 7  # as another sampler may have it
    again = standard(hopeless, logits, mixed, spans, drafts, share)
    fallen = standing(again[spans[2]].tolist(), drafts[2])
    assert again[spans[2]][fallen] == hopeless[spans[2]][fallen]
    settled[spans[2]] = again[spans[2]]
    assert torch.equal(again, settled)


def test_a_models_nan_is_refused_not_drawn_from():
    sampled, logits, mixed, spans, drafts, share = batch()
    logits[spans[1].start] = float("nan")
    with pytest.raises(ValueError, match="target_probs has a NaN"):
        standard(sampled, logits, mixed, spans, drafts, share)


@pytest.mark.parametrize("answer", [[], [0, 1, 2], [1, 0], [0, VOCAB], [0, -1]])
def test_a_rule_that_answers_nonsense_is_told_so(answer):
    logits, mixed = logits_for(2), asked(torch.arange(2))
    spans, drafts = [slice(0, 2)], [[0]]
    with pytest.raises(ValueError, match=r"expected the first n of them and one token below 12"):
        standard(sample(logits, mixed), logits, mixed, spans, drafts, [None], lambda *_: answer)


def test_another_rule_takes_plain_numbers_and_decides():
    sampled, logits, mixed, spans, drafts, share = batch()
    seen = []

    def nothing_stands(own, q, p, noise):
        seen.append((own, q, p.shape, noise.shape))
        return [(own[0] + 1) % VOCAB]

    settled = standard(sampled, logits, mixed, spans, drafts, share, nothing_stands)
    assert [settled[span][0].item() for span in spans] == [(own[0] + 1) % VOCAB for own in drafts]
    shapes = [((len(own) + 1, VOCAB), (len(own) + 1, 2)) for own in drafts]
    assert seen == [(own, q, *shape) for own, q, shape in zip(drafts, share, shapes, strict=True)]


# ---- Acceptance made to measure


def invented(count: int, rates: list[float], own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Requests with a draft for each rate; own: what the target draws. Settled tokens [count, k + 1], and drafts."""
    k = len(rates)
    drafts = np.arange(count * k).reshape(count, k) % VOCAB
    spans = [slice(start, start + k + 1) for start in range(0, own.size, k + 1)]
    seeds, positions = np.arange(count).repeat(k + 1), np.tile(np.arange(k + 1), count)
    settled = synthetic(own.ravel(), spans, drafts.tolist(), rates, seeds, positions, VOCAB)
    return settled.reshape(count, k + 1), drafts


def test_drafts_stand_at_the_rates_asked_for_whatever_the_target_says():
    """Five standard errors of each conditional rate."""
    rates, count = [0.9, 0.6, 0.3], 20_000
    settled, drafts = invented(count, rates, np.random.default_rng(0).integers(0, VOCAB, (count, 4)))
    left = np.ones(count, bool)
    for index, rate in enumerate(rates):
        stands = left & (settled[:, index] == drafts[:, index])
        assert abs(stands.sum() / left.sum() - rate) < 5 * (rate * (1 - rate) / left.sum()) ** 0.5
        left = stands


def test_rates_of_one_and_zero_are_certain_and_the_token_after_is_the_targets():
    own = np.full((50, 4), 3)
    settled, drafts = invented(50, [1.0, 1.0, 0.0], own)
    assert np.array_equal(settled[:, :2], drafts[:, :2])
    assert np.array_equal(settled[:, 2], np.where(drafts[:, 2] == 3, 4, 3))
    assert (own == 3).all()
    settled, drafts = invented(50, [1.0, 1.0, 1.0], own)
    assert np.array_equal(settled, np.column_stack([drafts, own[:, 3]]))
    settled, _ = invented(50, [0.0, 1.0, 1.0], own)
    assert np.array_equal(settled[:, 1:], own[:, 1:])


def test_the_token_after_the_last_id_is_the_first():
    tokens = synthetic(
        np.full(2, VOCAB - 1), [slice(0, 2)], [[VOCAB - 1]], [0.0], np.zeros(2, int), np.arange(2), VOCAB
    )
    assert tokens.tolist() == [0, VOCAB - 1]


def test_more_drafts_than_rates_are_refused():
    with pytest.raises(ValueError, match="2 drafts, but 1 synthetic acceptance rates"):
        synthetic(np.zeros(3, int), [slice(0, 3)], [[1, 2]], [0.5], np.zeros(3, int), np.arange(3), VOCAB)

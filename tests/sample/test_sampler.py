"""The draw follows its definition: the kept set, the distribution, and the request alone, found without a full sort."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

from minillm_kernels.noise import BLOCK, _mix, gumbel_noise
from minillm_serve.sample import truncate
from minillm_serve.sample.blocks import BlockedLogits
from minillm_serve.sample.sampler import SampleSettings, sample

VOCAB = 300  # no multiple of the block


def settings_for(rows: int, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, seed=None, position=0):
    def full(value: float) -> Tensor:
        return torch.full((rows,), float(value))

    return SampleSettings(
        temperature=full(temperature),
        top_k=torch.full((rows,), top_k),
        top_p=full(top_p),
        min_p=full(min_p),
        typical_p=full(typical_p),
        seeds=torch.arange(rows) if seed is None else torch.full((rows,), seed),
        positions=torch.full((rows,), position),
    )


def kept(logits: Tensor, asked: SampleSettings) -> Tensor:
    """[S, vocab] bool: the tokens that may be drawn."""
    limits = asked.temperature, asked.min_p, asked.top_k, asked.top_p, asked.typical_p
    left, cut = truncate.truncate(BlockedLogits.of(logits), *limits)
    values = left.values.flatten(1)[:, : logits.shape[1]]
    return (values >= cut[:, None]) & (values > float("-inf"))


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def kept_by_definition(logits: np.ndarray, temperature, top_k, top_p, min_p, typical_p) -> tuple[set[int], float]:
    """A full sort in float64, one filter after another; and how near the nearest sum came to its limit."""
    scaled = logits.astype(np.float64) / np.float64(np.float32(temperature))
    tokens = [int(token) for token in np.argsort(-scaled, kind="stable")]
    margin = 1.0
    if min_p > 0:
        ratio = np.exp(scaled - scaled.max())
        margin = min(margin, float(np.abs(ratio - min_p).min()))
        tokens = [token for token in tokens if ratio[token] >= min_p]
    if top_k > 0:
        tokens = tokens[:top_k]
    if top_p < 1:
        mass = np.cumsum(softmax(scaled[tokens]))
        margin = min(margin, float(np.abs(mass - top_p).min()))
        tokens = tokens[: int((mass < top_p).sum()) + 1]
    if typical_p < 1:
        p = softmax(scaled[tokens])
        distance = np.abs(-np.log(p) + (p * np.log(p)).sum())
        order = np.argsort(distance, kind="stable")
        mass = np.cumsum(p[order])
        margin = min(margin, float(np.abs(mass - typical_p).min()), float(np.diff(distance[order]).min(initial=1.0)))
        tokens = [tokens[index] for index in order[: int((mass < typical_p).sum()) + 1]]
    return set(tokens), margin


FILTERS = {
    "temperature": st.sampled_from([0.3, 1.0, 1.7]),
    "top_k": st.sampled_from([-1, 0, 1, 2, 7, 64, 65, 150, 299, 300, 1000]),
    "top_p": st.one_of(st.just(1.0), st.floats(0.01, 0.99)),
    "min_p": st.one_of(st.just(0.0), st.floats(1e-4, 0.9), st.just(1.0)),
    "typical_p": st.one_of(st.just(1.0), st.floats(0.05, 0.95)),
}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.5, 2.0, 5.0]), asked=st.fixed_dictionaries(FILTERS))
def test_the_kept_set_equals_its_definition(seed, spread, asked):
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(seed)) * spread
    expected, margin = kept_by_definition(logits[0].numpy(), **asked)
    assume(margin > 1e-5)  # where a sum of probabilities meets its limit exactly, rounding decides
    assert set(kept(logits, settings_for(1, **asked))[0].nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize(("first", "growth"), [(1, 2), (3, 3), (64, 8), (1 << 20, 2)])
def test_the_kept_set_does_not_hang_on_how_many_candidates_are_looked_at(monkeypatch, first, growth):
    logits = torch.randn(40, 1000, generator=torch.Generator().manual_seed(1)) * 2
    mixed = mixed_settings(40)
    expected = kept(logits, mixed)
    monkeypatch.setattr(truncate, "FIRST_CANDIDATES", first)
    monkeypatch.setattr(truncate, "GROWTH", growth)
    assert torch.equal(kept(logits, mixed), expected)


def mixed_settings(rows: int) -> SampleSettings:
    """Every row another combination."""
    index = torch.arange(rows)
    return SampleSettings(
        temperature=0.4 + index.float() / rows,
        top_k=torch.where(index % 3 == 0, index + 1, 0),
        top_p=torch.where(index % 2 == 0, 0.3 + 0.65 * index / rows, 1.0),
        min_p=torch.where(index % 5 == 0, 0.01, 0.0),
        typical_p=torch.where(index % 7 == 0, 0.8, 1.0),
        seeds=index * 31,
        positions=index + 5,
    )


def test_tokens_that_tie_with_the_last_one_kept_are_kept():
    logits = torch.tensor([[3.0, 2.0, 2.0, 2.0, 1.0]])
    assert kept(logits, settings_for(1, top_k=2)).tolist() == [[True, True, True, True, False]]
    assert kept(logits, settings_for(1, top_p=0.6)).tolist() == [[True, True, True, True, False]]


@pytest.mark.parametrize(
    ("asked", "warper"),
    [
        ({"top_k": 17}, TopKLogitsWarper(17)),
        ({"top_p": 0.83}, TopPLogitsWarper(0.83)),
        ({"min_p": 0.07}, MinPLogitsWarper(0.07)),
        ({"typical_p": 0.62}, TypicalLogitsWarper(0.62)),
    ],
)
def test_each_filter_keeps_what_transformers_keeps(asked, warper):
    logits = torch.randn(30, 1000, generator=torch.Generator().manual_seed(3)) * 3
    expected = warper(torch.zeros(30, 1, dtype=torch.long), logits.clone()) > float("-inf")
    assert torch.equal(kept(logits, settings_for(30, **asked)), expected)


@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("vocab", [5, 64, 65, 4000])
def test_the_lazy_draw_is_the_draw_over_the_whole_vocabulary(vocab, spread):
    """Opening few blocks finds the argmax of logits / temperature + noise over all tokens that are kept."""
    rows = 60
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab)) * spread
    for asked in (settings_for(rows), settings_for(rows, top_p=0.9, temperature=0.7), mixed_settings(rows)):
        noise = gumbel_noise(asked.seeds, asked.positions, vocab)
        scores = (logits.double() / asked.temperature[:, None] + noise).masked_fill(~kept(logits, asked), float("-inf"))
        assert torch.equal(sample(logits, asked), scores.argmax(-1))


def test_noise_generator_is_splitmix64():
    """Against the published algorithm in Python integers."""

    def reference(x: int) -> int:
        mask = (1 << 64) - 1
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    inputs = [0, 1, -1, 12345678901234, -(2**63), 2**63 - 1]
    got = [value % 2**64 for value in _mix(torch.tensor(inputs)).tolist()]
    assert got == [reference(value % 2**64) for value in inputs]


def chi_square(ids: Tensor, probabilities: Tensor) -> float:
    expected = probabilities * len(ids)
    return float(((torch.bincount(ids, minlength=len(probabilities)) - expected) ** 2 / expected).sum())


def test_draws_follow_the_softmax():
    """Chi-square over 100,000 seeds: 7 degrees of freedom, 24.3 is the 0.1 % point."""
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, -3.0, 1.5, 0.0])
    ids = sample(logits.expand(100_000, -1), settings_for(100_000, temperature=0.8))
    assert chi_square(ids, (logits / 0.8).softmax(-1)) < 24.3


def test_draws_over_several_blocks_follow_the_softmax():
    """200 tokens in four blocks, the last one short: 199 degrees of freedom, 267 is the 0.1 % point."""
    logits = torch.linspace(0, 3, 200)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    ids = sample(logits.expand(40_000, -1), settings_for(40_000))
    assert chi_square(ids, logits.softmax(-1)) < 267


def test_draws_from_a_nucleus_follow_its_softmax():
    """Five tokens reach 0.95 of the mass: 4 degrees of freedom, 18.5 is the 0.1 % point."""
    logits = torch.tensor([0.0, 3.0, 2.5, -4.0, 2.0, 1.5, -2.0, 1.0])
    mask = kept(logits[None], settings_for(1, top_p=0.95))[0]
    assert mask.sum() == 5
    ids = sample(logits.expand(50_000, -1), settings_for(50_000, top_p=0.95))
    assert mask[ids].all()
    names = torch.full((8,), -1).masked_scatter(mask, torch.arange(5))
    assert chi_square(names[ids], logits[mask].softmax(-1)) < 18.5


def test_consecutive_positions_are_independent_draws():
    """One seed, many positions: same test along the other axis of the counter."""
    rows = 50_000
    logits = torch.tensor([0.0, 1.0, -1.0])
    ids = sample(logits.expand(rows, -1), replace(settings_for(rows, seed=7), positions=torch.arange(rows)))
    assert chi_square(ids, logits.softmax(-1)) < 13.8  # 0.1 % point, 2 degrees
    pairs = ids[:-1] * 3 + ids[1:]
    p = logits.softmax(-1)
    assert chi_square(pairs, torch.outer(p, p).flatten()) < 26.1  # 0.1 % point, 8 degrees


def test_noise_is_standard_gumbel_for_winners_and_others_of_a_block():
    """Mean 0.5772, variance pi^2 / 6, for every place in a block: nobody pays for the block's early arrival."""
    noise = gumbel_noise(torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64), BLOCK + 10)
    assert torch.isfinite(noise).all()
    assert (noise.mean(0) - 0.5772).abs().max() < 0.045  # 5 standard errors
    assert (noise.var(0) - np.pi**2 / 6).abs().max() < 0.15
    correlation = torch.corrcoef(noise.T) - torch.eye(BLOCK + 10, dtype=torch.float64)
    assert correlation.abs().max() < 0.036


def test_a_row_draws_the_same_token_whatever_shares_its_batch():
    logits = torch.randn(48, 5000, generator=torch.Generator().manual_seed(0)) * 2
    mixed = mixed_settings(48)
    mixed.temperature[::6] = 0
    together = sample(logits, mixed)
    for row in range(48):
        alone = torch.tensor([row])
        assert sample(logits[alone], mixed[alone]) == together[row]
    backwards = torch.arange(47, -1, -1)
    assert torch.equal(sample(logits[backwards], mixed[backwards]), together[backwards])


def test_temperature_zero_is_the_first_maximum_even_beside_sampled_rows():
    logits = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(0))
    logits[0, [17, 80, 290]] = 9.0
    mixed = settings_for(4)
    mixed.temperature[::2] = 0
    assert torch.equal(sample(logits, mixed)[::2], logits.argmax(-1)[::2])
    assert sample(logits, settings_for(4, temperature=0))[0] == 17


@pytest.mark.parametrize("temperature", [1e-38, 1e-30, 1e-6, 2.0])
def test_extreme_temperatures_stay_finite(temperature):
    logits = torch.randn(8, VOCAB, generator=torch.Generator().manual_seed(0)) * 50
    for more in ({}, {"top_p": 0.9}, {"top_k": 5, "min_p": 0.1}, {"typical_p": 0.5}):
        ids = sample(logits, settings_for(8, temperature=temperature, **more))
        assert temperature == 2.0 or torch.equal(ids, logits.argmax(-1))


@pytest.mark.parametrize(
    "more", [{}, {"temperature": 0}, {"top_k": 5}, {"top_p": 0.99}, {"min_p": 0.01}, {"typical_p": 0.9}]
)
def test_a_forbidden_token_is_never_drawn(more):
    logits = torch.full((500, VOCAB), float("-inf"))
    logits[:, [2, 5, 299]] = 0.0
    ids = set(sample(logits, settings_for(500, **more)).tolist())
    assert ids == ({2} if "temperature" in more else {2, 5, 299})


def test_sample_leaves_its_arguments_alone():
    logits, mixed = torch.randn(40, 512, generator=torch.Generator().manual_seed(0)), mixed_settings(40)
    before = logits.clone(), [value.clone() for value in vars(mixed).values()]
    sample(logits, mixed)
    assert torch.equal(logits, before[0])
    assert all(map(torch.equal, vars(mixed).values(), before[1]))

"""The draw follows the softmax, depends on the request alone, and honours top-k, top-p and masks exactly."""

from __future__ import annotations

import pytest
import torch

from minillm_serve.sample.sampler import SampleSettings, _mix, gumbel_noise, keep_top, sample


def settings(rows: int, temperature=1.0, top_k=0, top_p=1.0, allowed=None, seed=None, position=0) -> SampleSettings:
    return SampleSettings(
        temperature=torch.full((rows,), float(temperature)),
        top_k=torch.full((rows,), top_k),
        top_p=torch.full((rows,), float(top_p)),
        seeds=torch.arange(rows) if seed is None else torch.full((rows,), seed),
        positions=torch.full((rows,), position),
        allowed=allowed,
    )


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


def test_draws_follow_the_softmax():
    """Chi-square over 100,000 seeds: 7 degrees of freedom, 24.3 is the 0.1 % point."""
    rows = 100_000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, -3.0, 1.5, 0.0])
    ids = sample(logits.expand(rows, -1), settings(rows, temperature=0.8))
    expected = (logits / 0.8).softmax(-1) * rows
    chi2 = ((torch.bincount(ids, minlength=8) - expected) ** 2 / expected).sum()
    assert chi2 < 24.3


def test_consecutive_positions_are_independent_draws():
    """One seed, many positions: same test along the other axis of the counter."""
    rows = 50_000
    logits = torch.tensor([0.0, 1.0, -1.0])
    one_seed = settings(rows, seed=7)
    ids = sample(logits.expand(rows, -1), SampleSettings(**{**vars(one_seed), "positions": torch.arange(rows)}))
    expected = logits.softmax(-1) * rows
    assert ((torch.bincount(ids, minlength=3) - expected) ** 2 / expected).sum() < 13.8  # 0.1 % point, 2 degrees


def test_a_row_draws_the_same_token_whatever_shares_its_batch():
    torch.manual_seed(0)
    logits = torch.randn(5, 40)
    full = settings(5, top_k=10, top_p=0.9)
    together = sample(logits, full)
    for row in range(5):
        single = SampleSettings(*(value[row : row + 1] for value in list(vars(full).values())[:5]))
        assert sample(logits[row : row + 1], single) == together[row]


def test_temperature_zero_is_argmax_even_beside_sampled_rows():
    torch.manual_seed(0)
    logits = torch.randn(4, 30)
    mixed = settings(4)
    mixed.temperature[::2] = 0
    ids = sample(logits, mixed)
    assert torch.equal(ids[::2], logits.argmax(-1)[::2])


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(1, 1.0), (3, 1.0), (0, 0.5), (3, 0.5), (0, 1e-9), (100, 0.999), (-1, 1.0)]
)
def test_kept_set_equals_its_definition(top_k, top_p):
    torch.manual_seed(top_k + 2)
    logits = torch.randn(6, 20)
    kept = keep_top(logits.clone(), torch.full((6,), top_k), torch.full((6,), top_p)) > float("-inf")
    for row in range(6):
        order = logits[row].argsort(descending=True)
        candidates = order[:top_k] if 0 < top_k < 20 else order
        probabilities = logits[row][candidates].softmax(-1)
        keep, total = [], 0.0
        for token, p in zip(candidates.tolist(), probabilities.tolist(), strict=True):
            keep.append(token)
            total += p
            if total >= top_p:
                break
        assert sorted(keep) == kept[row].nonzero().flatten().tolist()


def test_a_forbidden_token_is_never_drawn():
    allowed = torch.zeros(1000, 12, dtype=torch.bool)
    allowed[:, [2, 5]] = True
    logits = torch.zeros(12).index_fill(0, torch.tensor([7]), 50.0).expand(1000, -1)
    assert set(sample(logits, settings(1000, allowed=allowed)).tolist()) == {2, 5}
    assert set(sample(logits, settings(1000, temperature=0, allowed=allowed)).tolist()) == {2}


def test_noise_is_finite():
    assert torch.isfinite(gumbel_noise(torch.arange(200), torch.zeros(200, dtype=torch.int64), 500)).all()

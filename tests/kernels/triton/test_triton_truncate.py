"""Thresholds on the device keep the sampler's tokens; at a limit that rounding decides, one or the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minillm_kernels.triton import truncate
from minillm_serve.sample.blocks import BlockedLogits
from minillm_serve.sample.truncate import cutoffs


def device_cutoffs(device, logits, *limits) -> Tensor:
    """On the CPU, from rows that NaN follows."""
    rows, vocab = logits.shape
    wide = torch.full((rows, vocab + 3), float("nan"), dtype=logits.dtype)
    wide[:, :vocab] = logits
    return truncate.cutoffs(wide.to(device)[:, :vocab], *(x.to(device) for x in limits)).cpu()


def margin(logits: Tensor, temperature: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """How near each row's sums come to a limit, in float64: under 1e-5, rounding decides."""
    scaled = logits.double() / temperature[:, None]
    ratio = (scaled - scaled.amax(-1, keepdim=True)).exp()
    near_floor = ((ratio - min_p[:, None]).abs() + (min_p == 0)[:, None] + (min_p == 1)[:, None]).amin(-1)
    values = ratio.masked_fill(ratio < min_p[:, None], 0).sort(-1, descending=True).values
    k = torch.where(top_k > 0, top_k, logits.shape[1])
    values = values.masked_fill(torch.arange(logits.shape[1]) >= k[:, None], 0)
    mass = values.cumsum(-1)
    near_top_p = ((mass / mass[:, -1:] - top_p[:, None]).abs() + (top_p == 1)[:, None]).amin(-1)
    return near_floor.minimum(near_top_p)


def random_limits(rows: int, seed: int):
    """Every combination of filters: about half of the rows have each."""
    make = torch.Generator().manual_seed(seed)

    def some(values: Tensor, off: float) -> Tensor:
        return torch.where(torch.rand(rows, generator=make) < 0.5, values, off)

    temperature = 0.3 + 1.5 * torch.rand(rows, generator=make)
    min_p = some(torch.rand(rows, generator=make) ** 4, 0)
    top_k = some(torch.randint(1, 80, (rows,), generator=make), 0)
    return temperature, min_p, top_k, some(torch.rand(rows, generator=make), 1)


def assert_same_tokens(logits, limits, cut) -> None:
    expected = cutoffs(BlockedLogits.of(logits.float()), *limits)
    differ = ((logits >= cut[:, None]) != (logits >= expected[:, None])).any(-1)
    differ &= margin(logits, *limits) > 1e-5
    rows = differ.nonzero().flatten().tolist()
    assert not rows, [(row, cut[row], expected[row], [x[row].item() for x in limits]) for row in rows]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize(("vocab", "tile"), [(1, 8192), (65, 32), (300, 8192), (300, 64)])
def test_the_kept_tokens_are_the_samplers(device, monkeypatch, vocab, tile, spread, dtype):
    """Lanes of one token (one tile holds the row) and of many; few distinct logits and all different."""
    monkeypatch.setattr(truncate, "TILE", tile)
    monkeypatch.setattr(truncate, "WARPS", 4)
    rows = 10
    logits = (torch.randn(rows, vocab, generator=torch.Generator().manual_seed(vocab)) * spread - 3).to(dtype)
    limits = random_limits(rows, seed=vocab)
    assert_same_tokens(logits, limits, device_cutoffs(device, logits, *limits))


def test_the_kth_largest_logit_is_exact(device, monkeypatch):
    monkeypatch.setattr(truncate, "TILE", 128)
    monkeypatch.setattr(truncate, "WARPS", 4)
    rows, vocab = 12, 900
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(1)) * 3
    logits[3:6] = logits[3:6].round()  # ties, zeros of both signs
    top_k = torch.tensor([1, 2, 20, 1, 300, 700, 127, 128, 129, 899, 900, 1 << 40])
    off = torch.ones(rows)
    cut = device_cutoffs(device, logits, off, 0 * off, top_k, off)
    ordered = logits.sort(-1, descending=True).values
    expected = ordered[torch.arange(rows), (top_k - 1).clamp(max=vocab - 1)]
    assert torch.equal(cut[:10], expected[:10])
    assert cut[10:].tolist() == [float("-inf")] * 2


def test_forbidden_tokens_and_rows_without_limits(device, monkeypatch):
    """-inf is never kept for its mass; a greedy row and one without limits are not read at all."""
    monkeypatch.setattr(truncate, "TILE", 64)
    monkeypatch.setattr(truncate, "WARPS", 4)
    rows, vocab = 8, 300
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(2))
    logits[:4, torch.arange(vocab) % 10 != 3] = float("-inf")  # 30 are left
    logits[4] = float("-inf")
    logits[5:7] = float("nan")
    off = torch.ones(rows)
    temperature = torch.tensor([0.5, 1, 1, 1, 1, 0, 1, 1])
    top_k = torch.tensor([50, 5, 0, 50, 5, 5, 0, 0])
    top_p = torch.tensor([1, 1, 0.8, 0.8, 0.8, 0.8, 1, 0.5])
    limits = temperature, 0 * off, top_k, top_p
    cut = device_cutoffs(device, logits, *limits)
    assert cut[4:7].tolist() == [float("-inf")] * 3
    assert_same_tokens(logits[:4], [x[:4] for x in limits], cut[:4])
    assert_same_tokens(logits[7:], [x[7:] for x in limits], cut[7:])


def test_a_row_does_not_hang_on_the_others(device, monkeypatch):
    monkeypatch.setattr(truncate, "TILE", 64)
    monkeypatch.setattr(truncate, "WARPS", 4)
    logits = torch.randn(6, 400, generator=torch.Generator().manual_seed(3))
    limits = random_limits(6, seed=9)
    cut = device_cutoffs(device, logits, *limits)
    assert torch.equal(device_cutoffs(device, logits[2:4], *(x[2:4] for x in limits)), cut[2:4])


def test_limits_of_another_number_of_rows_are_refused(device):
    one = torch.ones(3)
    with pytest.raises(ValueError, match=r"top_k: expected \[3\]"):
        truncate.cutoffs(torch.zeros(3, 10), one, one, torch.ones(2, dtype=torch.int64), one)

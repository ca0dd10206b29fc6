"""The device's draw is the sampler's, token for token: noise, ties, cuts and greedy rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minillm_kernels.noise import gumbel_noise
from minillm_kernels.triton.sample import draw
from minillm_serve.sample.sampler import SampleSettings, sample


def random_case(seed: int, rows: int, vocab: int, dtype: torch.dtype, spread: float):
    """Logits with a row stride of their own, half of the rows greedy or so, seeds over all of int64."""
    make = torch.Generator().manual_seed(seed)
    wide = (torch.randn(rows, vocab + 5, generator=make) * spread).to(dtype)
    temperature = torch.where(torch.rand(rows, generator=make) < 0.3, 0.0, 0.2 + 2 * torch.rand(rows, generator=make))
    seeds = torch.randint(-(1 << 63), (1 << 63) - 1, (rows,), generator=make)
    return wide[:, 5:], temperature, seeds, torch.randint(0, 1 << 20, (rows,), generator=make)


def device_draw(device, logits, temperature, seeds, positions, cut=None) -> Tensor:
    """Ids on the CPU; what should not be written is checked here."""
    rows = len(logits)
    wide = torch.full((rows, logits.shape[1] + 3), float("nan"), dtype=logits.dtype)
    wide[:, : logits.shape[1]] = logits  # whoever reads past the end of a row reads NaN
    order = torch.arange(rows).flip(0) + 1
    out, last = torch.full((rows,), -7, device=device), torch.full((rows + 2,), -7, device=device)
    args = (x.to(device) for x in (temperature, seeds, positions))
    draw(
        wide.to(device)[:, : logits.shape[1]],
        *args,
        None if cut is None else cut.to(device),
        out,
        last,
        order.to(device),
    )
    last = last.cpu()
    assert torch.equal(last[order], out.cpu())
    assert last[[0, -1]].tolist() == [-7, -7]
    return out.cpu()


def expected_draw(logits, temperature, seeds, positions) -> Tensor:
    rows = len(logits)
    off = torch.ones(rows)
    return sample(
        logits.float(),
        SampleSettings(temperature, torch.zeros(rows, dtype=torch.int64), off, 0 * off, off, seeds, positions),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("vocab", [1, 63, 64, 65, 1000, 5003])
def test_the_token_is_the_samplers(device, vocab, spread, dtype):
    case = random_case(vocab, 20, vocab, dtype, spread)
    assert torch.equal(device_draw(device, *case), expected_draw(*case))


def test_many_rows_and_a_real_vocabulary(device):
    """Both tile sizes of the first kernel: the token does not hang on how many rows share the call."""
    logits, *settings = random_case(0, 16, 32_003, torch.bfloat16, 2.0)
    drawn = device_draw(device, logits, *settings)
    assert torch.equal(drawn, expected_draw(logits, *settings))
    assert torch.equal(device_draw(device, logits[3:5], *(x[3:5] for x in settings)), drawn[3:5])


def test_forbidden_tokens_and_ties(device):
    """Whole blocks of -inf, one token left, none left; among equal logits a greedy row takes the first."""
    logits, temperature, seeds, positions = random_case(3, 24, 2000, torch.bfloat16, 1.0)
    logits = logits.clone()
    logits[:, 64:1500] = float("-inf")
    logits[:8, :1900] = float("-inf")
    logits[8:12] = float("-inf")
    logits[8:12, 777] = -3.0
    logits[12:16] = logits[12:16].round()  # many ties
    logits[16:18] = float("-inf")
    temperature[:18:2] = 0
    drawn = device_draw(device, logits, temperature, seeds, positions)
    expected = expected_draw(logits, temperature, seeds, positions)
    expected[16:18] = 0
    assert torch.equal(drawn, expected)


def test_no_token_under_the_cut_is_drawn(device):
    logits, temperature, seeds, positions = random_case(4, 30, 700, torch.float32, 2.0)
    temperature += 0.1
    cut = logits.sort(-1, descending=True).values[torch.arange(30), torch.arange(30) * 3].contiguous()
    cut[::5] = float("-inf")
    scores = logits.double() / temperature[:, None] + gumbel_noise(seeds, positions, 700)
    expected = scores.masked_fill(logits < cut[:, None], float("-inf")).argmax(-1)
    assert torch.equal(device_draw(device, logits, temperature, seeds, positions, cut), expected)


def test_nan_logits_still_give_a_token_of_the_vocabulary(device):
    logits, temperature, seeds, positions = random_case(5, 6, 300, torch.float32, 1.0)
    logits = logits.clone()
    logits[:3] = float("nan")
    logits[3:, 100:] = float("nan")
    drawn = device_draw(device, logits, temperature, seeds, positions)
    assert drawn[:3].tolist() == [0, 0, 0]
    assert ((drawn[3:] >= 0) & (drawn[3:] < 100)).all()


def test_settings_of_another_number_of_rows_are_refused(device):
    logits, temperature, seeds, positions = random_case(6, 4, 100, torch.float32, 1.0)
    with pytest.raises(ValueError, match=r"temperature: expected \[4\]"):
        draw(logits, temperature[:3], seeds, positions, None, seeds)
    with pytest.raises(ValueError, match="both or none"):
        draw(logits, temperature, seeds, positions, None, seeds, seeds)


def test_the_table_of_last_drawn_tokens_may_be_left_out(device):
    case = random_case(7, 4, 100, torch.float32, 1.0)
    out = torch.empty(4, dtype=torch.int64, device=device)
    draw(*(x.contiguous().to(device) for x in case), None, out)
    assert torch.equal(out.cpu(), device_draw(device, *case))

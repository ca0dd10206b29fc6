"""Edits on the device are the sampler's: bit for bit in fp32, rounded once in bf16; and nothing else is touched."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels.triton.logits import IN_PROMPT, add_bias, apply_bitmask, count_tokens, penalize, reset_counts
from minillm_serve.sample.edits import LogitEdits, Penalties
from minillm_serve.sample.masks import packed

VOCABS = [1, 33, 300, 5003]
DTYPES = [torch.float32, torch.bfloat16]


def random_logits(device, rows: int, vocab: int, dtype: torch.dtype):
    """A slice of a wider tensor, some tokens forbidden already; and a copy in fp32 on the CPU for the specification."""
    make = torch.Generator().manual_seed(vocab)
    wide = (torch.randn(rows, vocab + 5, generator=make) * 4).to(dtype)
    wide[torch.rand(wide.shape, generator=make) < 0.1] = float("-inf")
    return wide.to(device)[:, :vocab], wide[:, :vocab].float().contiguous()


def assert_edited(logits, expected) -> None:
    """The interpreter cuts fp32 off to bf16 instead of rounding: one step of bf16 is forgiven there."""
    truncates = logits.dtype == torch.bfloat16 and not logits.is_cuda
    step = 2.0**-7 if truncates else 0.0
    torch.testing.assert_close(logits.cpu(), expected.to(logits.dtype), rtol=step, atol=0)
    rest = torch.as_strided(logits, (len(logits), 5), logits.stride(), logits.storage_offset() + logits.shape[1])
    before, _ = random_logits(logits.device, *logits.shape, logits.dtype)
    assert torch.equal(rest, torch.as_strided(before, rest.shape, before.stride(), logits.shape[1]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABS)
def test_a_bitmask_forbids_what_its_bits_leave_out(device, vocab, dtype):
    logits, expected = random_logits(device, 5, vocab, dtype)
    allowed = [list(range(0, vocab, 3)), [vocab - 1], list(range(vocab))]
    masks = torch.stack([torch.from_numpy(packed(tokens, vocab).view("i4")) for tokens in allowed])
    rows = [4, 0, 2]
    LogitEdits(allowed=(rows, masks.numpy().view("u4"))).apply(expected)
    padded = torch.cat((masks, torch.zeros(1, masks.shape[1], dtype=torch.int32)))
    apply_bitmask(logits, torch.tensor([*rows, -1], device=device), padded.to(device))
    assert_edited(logits, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABS)
def test_biases_and_bans_change_single_logits(device, vocab, dtype):
    logits, expected = random_logits(device, 4, vocab, dtype)
    make = torch.Generator().manual_seed(1)
    pairs = torch.randperm(4 * vocab, generator=make)[:200]
    rows, tokens = pairs // vocab, pairs % vocab
    values = torch.randn(len(pairs), generator=make) * 5
    values[::4] = float("-inf")
    LogitEdits(bias=(rows, tokens, values)).apply(expected)
    padded = (torch.cat((x, torch.full((1,), fill))) for x, fill in ((rows, -1), (tokens, 0), (values, 1.0)))
    add_bias(logits, *(x.to(device) for x in padded))
    assert_edited(logits, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", VOCABS)
def test_penalties_by_counts_are_the_samplers(device, vocab, dtype):
    """Each sequence's history enters at once (a row taken over from another) or is counted draw by draw."""
    logits, expected = random_logits(device, 4, vocab, dtype)
    make = torch.Generator().manual_seed(2)
    counts = torch.full((6, vocab), 7, dtype=torch.int32, device=device)
    rows = torch.tensor([5, 1, 3, 0])
    prompts = torch.randint(0, vocab, (4, 40), generator=make)
    generated = torch.randint(0, max(1, vocab // 4), (4, 60), generator=make)
    for row, prompt, ids in zip(rows.tolist(), prompts, generated, strict=True):
        reset_counts(counts, row, prompt.to(device), ids[:30].to(device))
    padding = torch.tensor([-1])
    for ids in generated[:, 30:].T:
        count_tokens(counts, torch.cat((rows, padding)).to(device), torch.cat((ids, padding)).to(device))
    assert (counts[[2, 4]] == 7).all()
    settings = torch.tensor([[1.3, 0.7, 1, 1.1], [0.3, 0, 0, -0.7], [0.1, 0.9, 0, 0]])
    seen = [sorted({*prompt, *ids}) for prompt, ids in zip(prompts.tolist(), generated.tolist(), strict=True)]
    where = [torch.tensor(x) for x in zip(*((r, t) for r, tokens in enumerate(seen) for t in tokens), strict=True)]
    times = torch.stack([torch.bincount(ids, minlength=vocab) for ids in generated])[tuple(where)].float()
    Penalties(*where, times, *(x[where[0]] for x in settings)).apply(expected)
    penalize(logits, rows.to(device), counts, *settings.to(device))
    assert_edited(logits, expected)


def test_one_draw_may_count_a_token_of_one_row_twice(device):
    counts = torch.zeros(2, 10, dtype=torch.int32, device=device)
    count_tokens(counts, torch.tensor([1, 1, 1], device=device), torch.tensor([4, 4, 5], device=device))
    assert counts[1].tolist() == [0, 0, 0, 0, 2, 1, 0, 0, 0, 0]
    assert not counts[0].any()


def test_a_token_of_the_prompt_alone_is_repeated_but_not_frequent(device):
    counts = torch.zeros(1, 4, dtype=torch.int32, device=device)
    reset_counts(counts, 0, torch.tensor([2, 2], device=device), torch.tensor([], dtype=torch.int64, device=device))
    assert counts[0].tolist() == [0, 0, IN_PROMPT, 0]
    logits = torch.tensor([[3.0, 3.0, 3.0, 3.0]], device=device)
    one = torch.ones(1, device=device)
    penalize(logits, torch.zeros(1, dtype=torch.int32, device=device), counts, 2 * one, one, one)
    assert logits[0].tolist() == [3.0, 3.0, 1.5, 3.0]


def test_shapes_that_do_not_fit_are_refused(device):
    logits = torch.zeros(2, 70, device=device)
    rows, one = torch.zeros(2, dtype=torch.int64, device=device), torch.ones(2, device=device)
    with pytest.raises(ValueError, match=r"words: expected \[2, 3\]"):
        apply_bitmask(logits, rows, torch.zeros(2, 2, dtype=torch.int32, device=device))
    with pytest.raises(ValueError, match=r"counts: expected \[rows, 70\]"):
        penalize(logits, rows, torch.zeros(3, 71, dtype=torch.int32, device=device), one, one, one)
    with pytest.raises(ValueError, match="one entry for each of 2"):
        penalize(logits, rows, torch.zeros(3, 70, dtype=torch.int32, device=device), one[:1], one, one)
    with pytest.raises(ValueError, match="contiguous"):
        add_bias(logits.T, rows, rows, one)
    with pytest.raises(ValueError, match="an id per row"):
        count_tokens(torch.zeros(2, 70, dtype=torch.int32, device=device), rows, rows[:1])

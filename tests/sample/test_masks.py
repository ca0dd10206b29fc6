"""Packed masks do to logits what their bits say, whatever the size of the vocabulary."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm_serve.sample.masks import forbid, packed, withdraw, words_for

SIZES = st.sampled_from([1, 7, 8, 31, 32, 33, 100, 512, 1000])


@settings(max_examples=100, deadline=None)
@given(size=SIZES, rows=st.integers(1, 5), seed=st.integers(0, 1000))
def test_forbidden_tokens_are_minus_infinity_and_the_others_stay(size, rows, seed):
    generator = np.random.default_rng(seed)
    allowed = generator.random((rows, size)) < generator.random()
    logits = torch.randn(2 * rows, size, generator=torch.Generator().manual_seed(seed))
    chosen = generator.permutation(2 * rows)[:rows].tolist()
    expected = logits.clone()
    for row, flags in zip(chosen, allowed, strict=True):
        expected[row, torch.from_numpy(~flags)] = float("-inf")
    forbid(logits, chosen, np.stack([packed(np.flatnonzero(flags).tolist(), size) for flags in allowed]))
    assert torch.equal(logits, expected)


@settings(max_examples=100, deadline=None)
@given(size=SIZES, data=st.data())
def test_what_is_withdrawn_is_gone_unless_nothing_would_be_left(size, data):
    token = st.integers(0, size - 1)
    allowed, unwanted = data.draw(st.sets(token, min_size=1)), data.draw(st.sets(token))
    mask = packed(allowed, size)
    assert mask.shape == (words_for(size),) and mask.dtype == np.uint32
    assert withdraw(mask, unwanted) == bool(allowed - unwanted)
    assert mask.tolist() == packed(allowed - unwanted or allowed, size).tolist()

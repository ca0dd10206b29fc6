"""Log-probabilities are those of the model's own softmax, and a row's entry does not hang on its neighbours."""

from __future__ import annotations

import pytest
import torch

from minillm_serve.sample.logprobs import describe


def test_entries_equal_their_definition():
    logits = torch.randn(12, 500, generator=torch.Generator().manual_seed(0)) * 4
    tokens = torch.arange(12) * 40
    counts = [0, 1, 5, -1, 5, 499, 500, 600, 0, 20, 1, -1]
    expected = logits.double().log_softmax(-1)
    for row, entry in enumerate(describe(logits, tokens, counts)):
        own, token = expected[row], int(tokens[row])
        assert (entry.token, entry.rank) == (token, int((own > own[token]).sum()) + 1)
        assert entry.logprob == pytest.approx(float(own[token]), abs=1e-5)
        wanted = 500 if counts[row] == -1 else min(counts[row], 500)
        assert [name for name, _ in entry.top] == own.argsort(descending=True)[:wanted].tolist()
        assert [value for _, value in entry.top] == pytest.approx(
            own.sort(descending=True).values[:wanted].tolist(), abs=1e-5
        )


def test_a_row_is_described_alike_in_any_batch():
    """Bit for bit, ties included: coarse logits hold many equal values."""
    logits = (torch.randn(30, 800, generator=torch.Generator().manual_seed(1)) * 4).round()
    tokens, counts = torch.arange(30), [row % 7 for row in range(30)]
    together = describe(logits, tokens, counts)
    for row in range(30):
        assert describe(logits[row : row + 1], tokens[row : row + 1], counts[row : row + 1]) == [together[row]]

"""Log-probabilities of the tokens that stand in a text and of the likeliest ones beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minillm_serve.params import WHOLE_VOCABULARY
from minillm_serve.plan import TokenLogprobs


def describe(logits: Tensor, tokens: Tensor, counts: Sequence[int]) -> list[TokenLogprobs]:
    """One entry per row. logits: [R, vocab] fp32, as the model gave them; tokens: [R]; counts[r]: likeliest tokens to
    name beside the one that stands there (-1: all). An entry depends on its own row alone."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(1, tokens.unsqueeze(1))
    ranks = (log_p > own).sum(-1).add_(1).tolist()
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(counts)
    for count in set(counts) - {0}:  # one call for each number asked for: where values tie, topk's choice hangs on k
        rows = [row for row, wanted in enumerate(counts) if wanted == count]
        limit = log_p.shape[1] if count == WHOLE_VOCABULARY else min(count, log_p.shape[1])
        values, ids = log_p[torch.tensor(rows)].topk(limit)
        for row, row_ids, row_values in zip(rows, ids.tolist(), values.tolist(), strict=True):
            tops[row] = tuple(zip(row_ids, row_values, strict=True))
    described = zip(tokens.tolist(), own[:, 0].tolist(), ranks, tops, strict=True)
    return [TokenLogprobs(token, logprob, rank, top) for token, logprob, rank, top in described]

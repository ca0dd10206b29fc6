"""Log-probabilities of the tokens that stand in a text and of the likeliest ones beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minillm_serve.params import WHOLE_VOCABULARY
from minillm_serve.plan import TokenLogprobs

Named = int | tuple[int, ...]  # so many of the likeliest tokens (-1: all), or these


def describe(logits: Tensor, tokens: Tensor, named: Sequence[Named]) -> list[TokenLogprobs]:
    """One entry per row. logits: [R, vocab] fp32, as the model gave them; tokens: [R]; named[r]: tokens to name beside
    the one that stands there. An entry depends on its own row alone."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(1, tokens.unsqueeze(1))
    ranks = (log_p > own).sum(-1).add_(1).tolist()
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(named)
    for wish in set(named) - {0}:  # one call for each number asked for: where values tie, topk's choice hangs on k
        rows = [row for row, wanted in enumerate(named) if wanted == wish]
        values, ids = _named(log_p[torch.tensor(rows)], wish)
        for row, row_ids, row_values in zip(rows, ids.tolist(), values.tolist(), strict=True):
            tops[row] = tuple(zip(row_ids, row_values, strict=True))
    described = zip(tokens.tolist(), own[:, 0].tolist(), ranks, tops, strict=True)
    return [TokenLogprobs(token, logprob, rank, top) for token, logprob, rank, top in described]


def _named(log_p: Tensor, wish: Named) -> tuple[Tensor, Tensor]:
    """Log-probabilities and ids of the tokens to name, [R, k] each."""
    if isinstance(wish, tuple):
        ids = torch.tensor(wish, device=log_p.device).expand(log_p.shape[0], -1)
        return log_p.gather(1, ids), ids
    return log_p.topk(log_p.shape[1] if wish == WHOLE_VOCABULARY else min(wish, log_p.shape[1]))

"""Which tokens may be drawn: min-p, top-k and top-p as one threshold on the logits, typical-p as a mask.

Each is taken over what the one before it left. The threshold is exact: a few candidates are looked at first, and
more of them as long as the set is not yet known to be complete. Tokens that tie with the last one kept are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minillm_serve.sample.blocks import BlockedLogits

FIRST_CANDIDATES = 64
GROWTH = 8
ROWS_AT_ONCE = 16  # their logits stay in the processor's cache from one pass to the next


def truncate(
    logits: BlockedLogits, temperature: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor, typical_p: Tensor
) -> tuple[BlockedLogits, Tensor]:
    """Logits and the smallest of them that may be drawn [S]; what typical-p forbids is -inf in the logits returned.

    temperature (> 0), min_p (0: off), top_k (<= 0: off), top_p (1: off), typical_p (1: off): [S].
    """
    cut = cutoffs(logits, temperature, min_p, top_k, top_p)
    rows = torch.nonzero(typical_p < 1).flatten()
    if len(rows):
        values = logits.values.flatten(1).clone()
        for some in rows.split(ROWS_AT_ONCE):
            kept = logits.rows(some)
            kept.masked_fill_(kept < cut[some, None], float("-inf"))
            scaled = (kept - kept.amax(-1, keepdim=True)) / temperature[some, None]  # from 0 down: cannot overflow
            atypical = ~typical(scaled, typical_p[some])
            values[some] = kept.masked_fill_(atypical, float("-inf"))
        logits = BlockedLogits.of(values)
    return logits, cut


def cutoffs(logits: BlockedLogits, temperature: Tensor, min_p: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The smallest logit that may still be drawn in each row: [S] fp32, -inf where every token may.

    temperature (> 0), min_p, top_k (<= 0: all), top_p: [S].
    """
    vocab_size = logits.vocab_size
    cut = torch.full_like(temperature, float("-inf"))
    if bool((min_p > 0).any()):
        cut = logits.maxima.amax(-1) + temperature * min_p.log()  # p >= min_p * p_max, without a softmax
    limited = (top_k > 0) & (top_k < vocab_size)
    top_k = torch.where(limited, top_k, vocab_size)
    for pending in torch.nonzero(limited | (top_p < 1)).flatten().split(ROWS_AT_ONCE):
        count = min(FIRST_CANDIDATES, vocab_size)
        while len(pending):
            part = _Candidates(logits, pending, count, temperature[pending], cut[pending])
            found, complete = part.cut(top_k[pending], top_p[pending])
            cut[pending[complete]] = found[complete]
            pending, count = pending[~complete], min(count * GROWTH, vocab_size)
    return cut


class _Candidates:
    """The ``count`` likeliest tokens of some rows, best first, with their weights exp((logit - max) / temperature)."""

    def __init__(self, logits: BlockedLogits, rows: Tensor, count: int, temperature: Tensor, floor: Tensor):
        self.logits, self.rows, self.count, self.temperature, self.floor = logits, rows, count, temperature, floor
        self.values = logits.largest(rows, count)

    def cut(self, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
        """Threshold of each row [R], and whether it is known already [R] (else: look at more candidates)."""
        kept = (self.values >= self.floor.unsqueeze(1)).sum(-1).minimum(top_k)
        ends_here = (kept < self.count) | (kept == top_k) | (self.count == self.logits.vocab_size)
        nucleus = (top_p < 1) & (ends_here | (top_k == self.logits.vocab_size))  # of top-k's tokens: once they are here
        kept = torch.where(nucleus, self._nucleus_size(kept, ends_here, nucleus, top_p), kept).clamp(min=1)
        complete = ends_here | (nucleus & (kept <= self.count))
        last = self.values.gather(1, kept.clamp(max=self.count).unsqueeze(1) - 1).squeeze(1)
        return last, complete

    def _nucleus_size(self, kept: Tensor, ends_here: Tensor, nucleus: Tensor, top_p: Tensor) -> Tensor:
        """How many tokens, likeliest first, reach the mass top_p (Holtzman et al. 2020, arXiv:1904.09751); count + 1
        where these candidates do not reach it. The whole mass is theirs, or the row's when the row goes on."""
        rank = torch.arange(self.count, device=kept.device)
        relative = (self.values - self.values[:, :1]).double() / self.temperature.unsqueeze(1)
        mass = relative.exp().masked_fill(rank >= kept.unsqueeze(1), 0.0).cumsum(-1)
        whole = mass[:, -1].clone()
        goes_on = torch.nonzero(nucleus & ~ends_here).flatten()
        if len(goes_on):
            whole[goes_on] = self._row_mass(goes_on)
        before = (mass < (top_p * whole).unsqueeze(1)).sum(-1)
        return torch.where(ends_here, kept.minimum(before + 1), before + 1)

    def _row_mass(self, some: Tensor) -> Tensor:
        """The sum of all weights not under the floor. Softmax sums each row by itself, whatever shares the batch."""
        rows = self.rows[some]
        values = self.logits.rows(rows)
        floor = self.floor[some]
        if bool((floor > float("-inf")).any()):
            values = values.masked_fill(values < floor.unsqueeze(1), float("-inf"))
        scaled = values.sub_(self.values[some, :1]).div_(self.temperature[some].unsqueeze(1))
        return 1 / scaled.softmax(-1).amax(-1).double()


def typical(logits: Tensor, typical_p: Tensor) -> Tensor:
    """The tokens whose surprise is nearest to the expected one, up to the mass ``typical_p``: [S, vocab] bool.

    logits: [S, vocab], scaled, -inf where not to be drawn; typical_p: [S] (Meister et al. 2022, arXiv:2202.00666).
    """
    rows, vocab_size = logits.shape
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    surprise = torch.where(p > 0, -log_p, 0.0)
    entropy = (p * surprise).cumsum(-1, dtype=torch.float64)[:, -1:]  # a running sum: one order in any batch
    distance = torch.where(p > 0, (surprise - entropy).abs(), float("inf"))
    limit = torch.empty_like(entropy)
    pending, count = torch.arange(rows, device=logits.device), min(FIRST_CANDIDATES, vocab_size)
    while len(pending):
        nearest, tokens = distance[pending].topk(count, largest=False)
        mass = p[pending].gather(1, tokens).cumsum(-1, dtype=torch.float64)
        before = (mass < typical_p[pending, None]).sum(-1, keepdim=True)
        limit[pending] = nearest.gather(1, before.clamp(max=count - 1))
        pending = pending[(before[:, 0] == count) & (count < vocab_size)]
        count = min(count * GROWTH, vocab_size)
    return distance <= limit

"""What a request does to its logits before one is drawn: masks, biases, bans, penalties. Few tokens of few rows.

Order (vLLM's): allowed tokens, min_tokens, logit_bias, bad words, then the penalties. -inf is a forbidden token, and
stays one through everything that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_serve.sample.masks import forbid


@dataclass(frozen=True)
class Penalties:
    """N pairs of a row and a token that it has seen, each with the row's penalties.

    rows, tokens: [N] int64; counts: [N] fp32, times generated (0: only in the prompt); repetition, frequency, presence:
    [N] fp32.
    """

    rows: Tensor
    tokens: Tensor
    counts: Tensor
    repetition: Tensor
    frequency: Tensor
    presence: Tensor

    def apply(self, logits: Tensor) -> None:
        """Repetition divides positive logits and multiplies negative ones (Keskar et al. 2019, arXiv:1909.05858)."""
        values = logits[self.rows, self.tokens]
        values = torch.where(values > 0, values / self.repetition, values * self.repetition)
        values -= self.frequency * self.counts
        values -= self.presence * (self.counts > 0)
        logits[self.rows, self.tokens] = values


@dataclass(frozen=True)
class LogitEdits:
    """One step's edits, each None where no row needs it. Rows are those of the logits [S, vocab].

    allowed: rows [R] and packed masks uint32 [R, words] (:mod:`minillm_serve.sample.masks`); bias: rows, tokens [N] and
    fp32 values [N]; forbidden: rows, tokens [N].
    """

    allowed: tuple[Sequence[int], NDArray[np.uint32]] | None = None
    bias: tuple[Tensor, Tensor, Tensor] | None = None
    forbidden: tuple[Tensor, Tensor] | None = None
    penalties: Penalties | None = None

    def apply(self, logits: Tensor) -> None:
        """Change ``logits`` in place. Bans commute with the bias, so all of them are one call."""
        if self.allowed is not None:
            forbid(logits, *self.allowed)
        if self.bias is not None:
            rows, tokens, values = self.bias
            logits[rows, tokens] += values
        if self.forbidden is not None:
            logits[self.forbidden] = float("-inf")
        if self.penalties is not None:
            self.penalties.apply(logits)

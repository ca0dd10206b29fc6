"""Logits in blocks of 64 with each block's maximum: what finds the few tokens that matter without sorting them all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from minillm_kernels.noise import BLOCK

TOPK_LIMIT = 1024


@dataclass(frozen=True)
class BlockedLogits:
    """values: [S, blocks, BLOCK] (-inf past the vocabulary's end); maxima: [S, blocks]."""

    values: Tensor
    maxima: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> BlockedLogits:
        """logits: [S, vocab]. Shares its memory where the vocabulary is a multiple of BLOCK."""
        if logits.shape[1] % BLOCK:
            logits = pad(logits, (0, -logits.shape[1] % BLOCK), value=float("-inf"))
        values = logits.view(logits.shape[0], -1, BLOCK)
        return cls(values, values.amax(-1))

    def __getitem__(self, rows: Tensor) -> BlockedLogits:
        return BlockedLogits(self.values.index_select(0, rows), self.maxima.index_select(0, rows))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def vocab_size(self) -> int:
        """Padding included."""
        return self.values.shape[1] * BLOCK

    def rows(self, rows: Tensor) -> Tensor:
        """A copy of some rows: [len(rows), vocab_size]."""
        return self.values.flatten(1).index_select(0, rows)

    def blocks(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """A copy of one block of each of some rows: rows, blocks [N] -> [N, BLOCK]."""
        return self.values.flatten(0, 1).index_select(0, rows * self.values.shape[1] + blocks)

    def argmax(self) -> Tensor:
        """[S] int64, the lowest id among equals: from the first block that holds the maximum."""
        block = self.maxima.argmax(-1)
        every_row = torch.arange(len(self), device=block.device)
        return block * BLOCK + self.blocks(every_row, block).argmax(-1)

    def largest(self, rows: Tensor, count: int) -> Tensor:
        """The ``count`` largest values of some rows, best first: [len(rows), count].

        They lie in the ``count`` blocks of largest maximum: each of those holds one value that no other block beats.
        """
        if count * 4 > self.maxima.shape[1]:  # gathering the blocks would cost as much as reading them all
            return largest(self.rows(rows), count)
        chosen = self.maxima.index_select(0, rows).topk(count, sorted=False).indices
        return largest(self.blocks(rows.repeat_interleave(count), chosen.flatten()).view(len(rows), -1), count)


def largest(values: Tensor, count: int) -> Tensor:
    """The ``count`` largest of each row of ``values`` [R, N], best first; the values alone."""
    if count <= TOPK_LIMIT:
        return values.topk(count).values
    found = values.numpy(force=True)  # NumPy sorts bare values; topk drags their indices along, four times slower
    if count < values.shape[1]:
        found = np.partition(found, -count, axis=1)[:, -count:]
    return torch.from_numpy(np.sort(found, axis=1)[:, ::-1].copy()).to(values.device)

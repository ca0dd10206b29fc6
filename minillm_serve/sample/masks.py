"""Packed masks on logits: which tokens a row may draw, one bit each, written into its logits as 0 or -inf.

A byte of a mask is looked up as eight floats at once and added: no test for each token, no mask of booleans.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def _spread_bytes() -> NDArray[np.void]:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.where(bits, np.float32(0), np.float32(-np.inf)).view("V32")[:, 0]


_EIGHT_FLOATS = _spread_bytes()


def words_for(vocab_size: int) -> int:
    """Words of a packed mask: bit t % 32 of word t // 32 says whether token t may be drawn."""
    return -(-vocab_size // 32)


def packed(tokens: Iterable[int], vocab_size: int) -> NDArray[np.uint32]:
    """The mask of these tokens and no others: uint32 [words]."""
    flags = np.zeros(words_for(vocab_size) * 32, np.uint8)
    flags[list(tokens)] = 1
    return np.packbits(flags, bitorder="little").view("<u4").astype(np.uint32, copy=False)


def withdraw(mask: NDArray[np.uint32], tokens: Iterable[int]) -> bool:
    """Clear the bits of ``tokens``. False, and nothing changed, if that would leave no token."""
    kept = mask.copy()
    for token in tokens:
        kept[token // 32] &= ~np.uint32(1 << (token % 32))
    if not kept.any():
        return False
    mask[:] = kept
    return True


def forbid(logits: Tensor, rows: Iterable[int], masks: NDArray[np.uint32]) -> None:
    """Set to -inf, in place, what each row may not draw. logits: [S, vocab] fp32 on the CPU; masks: one row each."""
    values, vocab_size = logits.numpy(), logits.shape[1]
    spread = np.empty(masks.shape[1] * 4, _EIGHT_FLOATS.dtype)
    floats = spread.view(np.float32)[:vocab_size]
    for row, mask in zip(rows, masks, strict=True):
        np.take(_EIGHT_FLOATS, mask.view(np.uint8), out=spread, mode="clip")
        np.add(values[row], floats, out=values[row])

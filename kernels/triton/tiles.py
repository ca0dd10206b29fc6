"""The work list of a decode step: every sequence's tokens cut into tiles that split-K attention spreads over the GPU.

A step's sequences may hold 10 or 10,000 tokens. One program per sequence would leave a GPU idle that has one long
sequence, and wait for the longest of many. So the host cuts them into tiles of at most ``chunk`` tokens; each tile and
KV head is one program of :mod:`minillm_kernels.triton.decode` (Flash-Decoding, Dao et al. 2023).

The grid of a CUDA graph is fixed when it is captured, so the list has a fixed ``capacity`` and ``chunk`` gives way:

- about ``FEW_TILES`` tiles are enough to fill the machine: while they are not full, ``chunk`` is as small as 64 tokens;
- past them ``chunk`` grows with the tokens up to ``LONG_TILE``: shorter tiles only write more partial results;
- it grows on only where the list would not fit: ``tiles <= sequences + tokens / chunk``, so it ends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEP = 64  # tokens; chunk is a multiple of it, and attention's inner loop never takes more at once
FEW_TILES = 64
LONG_TILE = 1024


class Tiles(NamedTuple):
    """chunk: tokens per tile; tile_seq, tile_start [tiles] int32: a tile's sequence and its first token;
    tile_first [B + 1] int32: each sequence's first tile, and the number of tiles at the end."""

    chunk: int
    tile_seq: NDArray[np.int32]
    tile_start: NDArray[np.int32]
    tile_first: NDArray[np.int32]


def capacity(num_seqs: int) -> int:
    """Length of the work list of ``num_seqs`` sequences: two tiles for each, and what fills the GPU if there is one."""
    return 2 * num_seqs + FEW_TILES


def plan_tiles(seq_lens: ArrayLike, cap: int, window: int = 0) -> Tiles:
    """Cut B sequences into at most ``cap`` tiles of consecutive tokens, a sequence's tiles side by side.

    seq_lens: [B] tokens in the cache, 0 for a row that only pads the batch: it gets no tile. window: the widest of the
    model's layers, 0 if one sees all; tokens before it get no tile. Raises ValueError where even one tile for each
    sequence is more than ``cap``.
    """
    lens = np.asarray(seq_lens, np.int64)
    begins = np.maximum(lens - window, 0) if window else np.zeros_like(lens)
    spans = lens - begins
    if np.count_nonzero(spans) > cap:
        raise ValueError(f"{np.count_nonzero(spans)} sequences need as many tiles, the work list holds {cap}")
    chunk = _round_up(min(max(int(spans.sum()) // FEW_TILES, 1), LONG_TILE))
    counts = -(-spans // chunk)
    while (tiles := int(counts.sum())) > cap:
        chunk = _round_up(chunk * tiles // cap + 1)  # longer by the overshoot
        counts = -(-spans // chunk)
    tile_first = np.zeros(len(lens) + 1, np.int32)
    np.cumsum(counts, out=tile_first[1:])
    tile_seq = np.repeat(np.arange(len(lens), dtype=np.int32), counts)
    nth = np.arange(tiles) - tile_first[tile_seq]  # within its sequence
    return Tiles(chunk, tile_seq, (begins[tile_seq] + nth * chunk).astype(np.int32), tile_first)


def _round_up(tokens: int) -> int:
    return -(-tokens // STEP) * STEP

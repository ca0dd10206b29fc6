"""A decode step out of static buffers: block tables, inputs, model, draw; no number from the host but in one copy.

So the same launches serve every step of a batch size, and a CUDA graph can hold them.

Inputs of a step: for each sequence its row of the block tables and its length; the token to go on from, or "the one
that you drew last"; where its tables have grown; the attention's work list; temperature, top-k, top-p, min-p and seed.
What is drawn stays on the device for the next step, and is copied to the host beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_kernels.triton.attention import TritonPlan
from minillm_kernels.triton.decode import DecodeWork
from minillm_kernels.triton.decode_inputs import prepare_decode, scatter_tables
from minillm_kernels.triton.sample import draw
from minillm_kernels.triton.tiles import capacity, plan_tiles
from minillm_kernels.triton.truncate import cutoffs
from minillm_serve.attention.backends import KVCache, PagedAttention
from minillm_serve.model.llama import LlamaModel
from minillm_serve.runner.batch import PersistentBatch, StepBatch
from minillm_serve.runner.gpu.packed import PackedBuffer
from minillm_serve.runner.sampling_state import SamplingState

MAX_GROWTH = 1024  # changed table entries that travel with a step's inputs; more go ahead of it
Growth = tuple[int, int, Sequence[int]]  # a row of the block tables, its first new entry, the blocks


@dataclass(frozen=True)
class Drawn:
    """What one step leaves behind. ids: [B] int64; logits: [B, vocab] in the model's dtype. Static: valid until the
    next step."""

    ids: Tensor
    logits: Tensor


class DecodeStep:
    """Static buffers for up to ``size`` sequences, and the launches of a step over the first ``size`` or fewer of them.

    last_drawn: [rows + 1] int64, the last token that each batch row drew; the last row stands in for padding.
    """

    def __init__(self, model: LlamaModel, kv_cache: KVCache, batch: PersistentBatch, last_drawn: Tensor, size: int):
        self.model, self.kv_cache, self.last_drawn = model, kv_cache, last_drawn
        device, rows, width = last_drawn.device, *batch.tables.shape
        self.padding_row, self.table_width, self.capacity = rows, width, capacity(size)
        self.tables = torch.zeros(rows + 1, width, dtype=torch.int32, device=device)
        self.inputs = PackedBuffer(
            {
                "rows": (np.int32, size),
                "ids": (np.int32, size),
                "seq_lens": (np.int32, size),
                "drawn_at": (np.int64, size),
                "temperature": (np.float32, size),
                "top_k": (np.int64, size),
                "top_p": (np.float32, size),
                "min_p": (np.float32, size),
                "seeds": (np.int64, size),
                "tile_seq": (np.int32, self.capacity),
                "tile_start": (np.int32, self.capacity),
                "tile_first": (np.int32, size + 1),
                "num_tiles": (np.int32, 1),
                "chunk": (np.int32, 1),
                "grown_at": (np.int32, MAX_GROWTH),
                "grown_to": (np.int32, MAX_GROWTH),
                "num_grown": (np.int32, 1),
            },
            device,
        )
        self.ids, self.positions, self.slots, self.drawn = (
            torch.zeros(size, dtype=torch.int64, device=device) for _ in range(4)
        )
        self.every = torch.arange(size, device=device)
        config = model.config
        self.partials = torch.empty(self.capacity, config.num_heads, config.head_dim, device=device)
        self.lse = torch.empty(self.capacity, config.num_heads, device=device)
        windows = config.sliding_windows
        self.window = max(windows) if all(windows) else 0  # tiles must cover what the layer that sees most sees

    def grow_tables(self, grown: Sequence[Growth]) -> None:
        """Write new entries of the block tables, ahead of whatever is launched next."""
        if grown:
            at, blocks = self._flat(grown)
            device = self.tables.device
            self.tables.view(-1)[_sent(at, device)] = _sent(blocks.astype(np.int32), device)

    def fill(self, batch: StepBatch, state: SamplingState, grown: Sequence[Growth], size: int) -> None:
        """Send one step's inputs. batch: of decodes alone, padded here to ``size`` sequences."""
        count, host = len(batch.rids), self.inputs.begin()
        rows = batch.rows
        host["rows"][:count], host["rows"][count:size] = rows, self.padding_row
        host["ids"][:count], host["ids"][count:size] = batch.ids, 0
        host["seq_lens"][:count], host["seq_lens"][count:size] = batch.seq_lens, 0
        host["drawn_at"][:count], host["temperature"][:count] = batch.drawn_at, state.temperature[rows]
        host["top_k"][:count], host["top_p"][:count] = state.top_k[rows], state.top_p[rows]
        host["min_p"][:count], host["seeds"][:count] = state.min_p[rows], state.seed[rows]
        host["drawn_at"][count:size] = host["temperature"][count:size] = host["seeds"][count:size] = 0
        tiles = plan_tiles(host["seq_lens"][:size], capacity(size), self.window)
        num_tiles = len(tiles.tile_seq)
        host["tile_seq"][:num_tiles], host["tile_start"][:num_tiles] = tiles.tile_seq, tiles.tile_start
        host["tile_first"][: size + 1] = tiles.tile_first
        host["num_tiles"][0], host["chunk"][0] = num_tiles, tiles.chunk
        at, blocks = self._flat(grown)
        if len(at) > MAX_GROWTH:
            self.grow_tables(grown)
            at = at[:0]
        host["num_grown"][0] = len(at)
        host["grown_at"][: len(at)], host["grown_to"][: len(at)] = at, blocks[: len(at)]
        self.inputs.upload()

    def launch(self, size: int) -> Drawn:
        """The whole step over the inputs that ``fill`` sent: what a CUDA graph captures."""
        inputs = self.inputs.device
        rows, seq_lens = inputs["rows"][:size], inputs["seq_lens"][:size]
        ids, positions, slots = self.ids[:size], self.positions[:size], self.slots[:size]
        scatter_tables(self.tables, inputs["grown_at"], inputs["grown_to"], inputs["num_grown"])
        block_size = self.kv_cache.block_size
        known = inputs["ids"][:size]
        prepare_decode(rows, seq_lens, known, self.last_drawn, self.tables, block_size, ids, positions, slots)
        attention = PagedAttention(self.kv_cache, slots, TritonPlan(decode=self._work(rows, seq_lens, size)))
        logits = self.model.forward(ids, positions, attention, self.every[:size])
        drawn = self.drawn[:size]
        temperature, seeds, drawn_at = (inputs[name][:size] for name in ("temperature", "seeds", "drawn_at"))
        cut = cutoffs(logits, temperature, *(inputs[name][:size] for name in ("min_p", "top_k", "top_p")))
        draw(logits, temperature, seeds, drawn_at, cut, drawn, self.last_drawn, rows)
        return Drawn(drawn, logits)

    def _work(self, rows: Tensor, seq_lens: Tensor, size: int) -> DecodeWork:
        inputs, tiles = self.inputs.device, capacity(size)
        return DecodeWork(
            self.tables,
            rows,
            seq_lens,
            inputs["tile_seq"][:tiles],
            inputs["tile_start"][:tiles],
            inputs["tile_first"][: size + 1],
            inputs["num_tiles"],
            inputs["chunk"],
            self.partials[:tiles],
            self.lse[:tiles],
        )

    def _flat(self, grown: Sequence[Growth]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in the tables laid flat, and the blocks that belong there."""
        if not grown:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        counts = np.array([len(blocks) for *_, blocks in grown], np.int64)
        starts = np.array([row * self.table_width + first for row, first, _ in grown], np.int64)
        ends = counts.cumsum()
        at = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)
        return at, np.concatenate([np.asarray(blocks, np.int64) for *_, blocks in grown])


def _sent(values: NDArray, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

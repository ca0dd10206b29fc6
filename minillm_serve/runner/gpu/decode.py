"""A decode step out of static buffers: block tables, inputs, model, draw; no number from the host but in one copy.

So the same launches serve every step of a batch size, and a CUDA graph can hold them.

Inputs of a step: for each sequence its row of the block tables and its length; the token to go on from, or "the one
that you drew last", or "the second that you drafted"; where its tables have grown; the attention's work list;
temperature, top-k, top-p, min-p and seed.
What is drawn stays on the device for the next step, and is copied to the host beside it.

A sequence that verifies drafts is there once for each of its tokens, of that length each time: all keys and values of a
layer are written before anything reads them, so every token finds those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_kernels.triton.attention import TritonPlan
from minillm_kernels.triton.decode_inputs import prepare_decode, scatter_tables
from minillm_kernels.triton.sample import draw
from minillm_kernels.triton.truncate import cutoffs
from minillm_serve.attention.backends import KVCache, PagedAttention
from minillm_serve.model.llama import LlamaModel, Taps
from minillm_serve.runner.batch import PersistentBatch, StepBatch
from minillm_serve.runner.gpu.packed import PackedBuffer, sent
from minillm_serve.runner.gpu.work_list import WorkList
from minillm_serve.runner.sampling_state import SamplingState

MAX_GROWTH = 1024  # changed table entries that travel with a step's inputs; more go ahead of it
Growth = tuple[int, int, Sequence[int]]  # a row of the block tables, its first new entry, the blocks


@dataclass(frozen=True)
class Drawn:
    """What one step leaves behind. ids: [B] int64; logits: [B, vocab] in the model's dtype; features: [B, F], what a
    draft head reads, None where there is none. Static: valid until the next step."""

    ids: Tensor
    logits: Tensor
    features: Tensor | None = None


class DecodeStep:
    """Static buffers for up to ``size`` sequences, and the launches of a step over the first ``size`` or fewer of them.

    recent: [1 + drafts, rows + 1] int64, the last token that each batch row drew, then those that were drafted for it;
    the last row stands in for padding. aux_layers: see DraftNet. features: [size + rows + 2, F], first those of the
    step's tokens; what is behind them is the drafter's, to keep one for each batch row (see draft_step.py).
    """

    def __init__(
        self,
        model: LlamaModel,
        kv_cache: KVCache,
        batch: PersistentBatch,
        recent: Tensor,
        size: int,
        aux_layers: tuple[int, ...] | None = None,
    ):
        self.model, self.kv_cache, self.recent, self.aux_layers = model, kv_cache, recent, aux_layers
        device, rows, width = recent.device, *batch.tables.shape
        self.size, self.padding_row, self.table_width = size, rows, width
        self.list = WorkList("", size, model.config, device)
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
                **self.list.fields,
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
        self.features: Tensor | None = None
        if aux_layers is not None:
            shape = size + rows + 2, (len(aux_layers) + 1) * model.config.hidden_size
            self.features = torch.zeros(shape, dtype=model.weights.dtype, device=device)

    def holds(self, features: Tensor) -> bool:
        """Whether these are the static ones, which the next step overwrites."""
        return self.features is not None and features.data_ptr() == self.features.data_ptr()

    def grow_tables(self, grown: Sequence[Growth]) -> None:
        """Write new entries of the block tables, ahead of whatever is launched next."""
        if grown:
            at, blocks = self._flat(grown)
            device = self.tables.device
            self.tables.view(-1)[sent(at, device)] = sent(blocks.astype(np.int32), device)

    def fill(self, batch: StepBatch, state: SamplingState, grown: Sequence[Growth], size: int) -> None:
        """Send one step's inputs. batch: of tokens that are all drawn from, padded here to ``size``."""
        count, host = len(batch.ids), self.inputs.begin()
        rows = batch.rows[batch.sampling]
        host["rows"][:count], host["rows"][count:size] = rows, self.padding_row
        host["ids"][:count], host["ids"][count:size] = batch.ids, 0
        host["seq_lens"][:count], host["seq_lens"][count:size] = batch.positions + 1, 0
        host["drawn_at"][:count], host["temperature"][:count] = batch.drawn_at, state.temperature[rows]
        host["top_k"][:count], host["top_p"][:count] = state.top_k[rows], state.top_p[rows]
        host["min_p"][:count], host["seeds"][:count] = state.min_p[rows], state.seed[rows]
        host["drawn_at"][count:size] = host["temperature"][count:size] = host["seeds"][count:size] = 0
        self.list.fill(host, host["seq_lens"][:size])
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
        prepare_decode(rows, seq_lens, known, self.recent, self.tables, block_size, ids, positions, slots)
        attention = PagedAttention(
            self.kv_cache, slots, TritonPlan(decode=self.list.work(inputs, self.tables, rows, seq_lens))
        )
        taps = None if self.aux_layers is None else Taps(self.aux_layers)
        hidden = self.model.hidden(ids, positions, attention, self.every[:size], taps)
        logits = self.model.logits(hidden)
        features = None if taps is None else torch.cat((*taps.states, hidden), 1, out=self.features[:size])
        drawn = self.drawn[:size]
        temperature, seeds, drawn_at = (inputs[name][:size] for name in ("temperature", "seeds", "drawn_at"))
        cut = cutoffs(logits, temperature, *(inputs[name][:size] for name in ("min_p", "top_k", "top_p")))
        draw(logits, temperature, seeds, drawn_at, cut, drawn, self.recent[0], rows)
        return Drawn(drawn, logits, features)

    def _flat(self, grown: Sequence[Growth]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in the tables laid flat, and the blocks that belong there."""
        if not grown:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        counts = np.array([len(blocks) for *_, blocks in grown], np.int64)
        starts = np.array([row * self.table_width + first for row, first, _ in grown], np.int64)
        ends = counts.cumsum()
        at = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)
        return at, np.concatenate([np.asarray(blocks, np.int64) for *_, blocks in grown])

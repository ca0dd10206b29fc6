"""Drafting out of static buffers: one pass over what the target has computed, then a token at a time; one copy to the
device before it all, and nothing back to the host until every draft is there. So a CUDA graph can hold it.

The likeliest token of each pass is the next one's input, on the device; all of them are left in the decode step's
``recent``, where the step that verifies them looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minillm_kernels.triton.attention import TritonPlan
from minillm_kernels.triton.decode_inputs import prepare_decode
from minillm_serve.attention.backends import KVCache, PagedAttention
from minillm_serve.model.draft_head import DraftNet
from minillm_serve.runner.batch import PersistentBatch
from minillm_serve.runner.gpu.decode import DecodeStep
from minillm_serve.runner.gpu.packed import PackedBuffer
from minillm_serve.runner.gpu.work_list import WorkList


@dataclass(frozen=True)
class Part:
    """One request's share of a pass: positions from ``start`` to ``stop`` of its batch row; ``drafts`` tokens are
    wanted after them, 0 where the network only reads.

    offset: the features of position p are row ``p + offset`` of the step's; first: the step's first position of it;
    computed: tokens of it that the step has left in the cache. follows: the features of ``first - 1`` are kept.
    """

    rid: int
    row: int
    start: int
    stop: int
    drafts: int
    offset: int
    first: int
    computed: int
    follows: bool


class DraftStep:
    """Static buffers for up to ``size`` requests that read in a graph, and for the drafts of any batch.

    Tokens lie request by request, ``num_drafts + 1`` places each, padding at the end of each; then those drafted of
    all requests, first to last. Kept features: those of each row's last computed token, behind the step's own (see
    DecodeStep; of the two rows after them one stays zero, the other takes what nobody wants), and in ``of_block``
    [num_blocks + 1, F] those of each block's last token.
    """

    def __init__(
        self, net: DraftNet, kv_cache: KVCache, batch: PersistentBatch, step: DecodeStep, num_drafts: int, size: int
    ):
        self.net, self.kv_cache, self.batch, self.step = net, kv_cache, batch, step
        self.num_drafts, self.width, self.size = num_drafts, num_drafts + 1, size
        self.device, rows, num_blocks = step.tables.device, len(batch.tokens), len(kv_cache.layers[0].keys)
        self.reads = WorkList("read_", size * self.width, net.config, self.device)
        self.chain = WorkList("chain_", rows, net.config, self.device, slack=num_drafts)
        tokens = max(size * 2 * num_drafts, rows * (num_drafts - 1))
        self.kept_at, self.zero, self.trash = step.size, step.size + rows, step.size + rows + 1
        places = size * self.width
        self.inputs = PackedBuffer(
            {
                "rows": (np.int32, tokens),
                "ids": (np.int32, tokens),
                "seq_lens": (np.int32, tokens),
                "owners": (np.int64, rows),
                "last": (np.int64, size),
                "before": (np.int64, places),
                "keep_from": (np.int64, size),
                "keep_to": (np.int64, size),
                "ends_from": (np.int64, places),
                "ends_to": (np.int64, places),
                **self.reads.fields,
                **self.chain.fields,
            },
            self.device,
        )
        self.ids, self.positions, self.slots = (
            torch.zeros(tokens, dtype=torch.int64, device=self.device) for _ in range(3)
        )
        self.every = torch.arange(rows, device=self.device)
        self.of_block: Tensor | None = None
        if step.features is not None:
            self.of_block = step.features.new_zeros(num_blocks + 1, step.features.shape[1])

    def fill(self, parts: Sequence[Part], size: int) -> None:
        """Send what a pass over ``parts`` needs, padded to ``size`` requests. Each reads at most ``width`` tokens."""
        host, width = self.inputs.begin(), self.width
        places = size * width
        rows, ids, seq_lens = (self._grid(host[name], size) for name in ("rows", "ids", "seq_lens"))
        rows[:], ids[:], seq_lens[:] = self.step.padding_row, 0, 0
        host["last"][:size] = np.arange(size) * width
        for place, part in enumerate(parts):
            count = part.stop - part.start
            rows[place, :count] = part.row
            ids[place, :count] = self.batch.tokens[part.row, part.start : part.stop]
            seq_lens[place, :count] = np.arange(part.start + 1, part.stop + 1)
            host["last"][place] += max(count - 1, 0)
        self.reads.fill(host, seq_lens.reshape(-1))
        if self.of_block is not None:
            self._fill_features(host, parts, size)
        self._fill_chain(host, parts, places, size)
        self.inputs.upload()

    def fill_chain(self, parts: Sequence[Part]) -> None:
        """Send what is needed to go on after a pass that was not made here."""
        self._fill_chain(self.inputs.begin(), parts, 0, len(parts))
        self.inputs.upload()

    def launch(self, size: int, num_drafts: int) -> Tensor:
        """The pass that ``fill`` was told of, and ``num_drafts`` tokens of each request: [num_drafts, size] ids, which
        are also in ``recent``, behind what was drawn."""
        places, inputs, features = size * self.width, self.inputs.device, self.step.features
        self._prepare(places + (num_drafts - 1) * size)
        before = None if features is None else features[inputs["before"][:places]]
        attention = self._attention(self.reads, 0, places)
        last = inputs["last"][:size]
        logits, state = self.net.first(self.ids[:places], self.positions[:places], attention, last, before)
        if features is not None:
            self.of_block[inputs["ends_to"][:places]] = features[inputs["ends_from"][:places]]
            features[inputs["keep_to"][:size]] = features[inputs["keep_from"][:size]]
        return self._go_on(logits, state, places, num_drafts)

    def launch_chain(self, logits: Tensor, state: Tensor, num_drafts: int) -> Tensor:
        """The same after another first pass, which left logits [S, D] and state [S, hidden]."""
        self._prepare((num_drafts - 1) * len(logits))
        return self._go_on(logits, state, 0, num_drafts)

    def _go_on(self, logits: Tensor, state: Tensor, begin: int, num_drafts: int) -> Tensor:
        size = len(logits)
        drafts = [self._likeliest(logits)]
        for at in range(begin, begin + (num_drafts - 1) * size, size):
            attention = self._attention(self.chain, at, size)
            positions, every = self.positions[at : at + size], self.every[:size]
            logits, state = self.net.further(drafts[-1], positions, attention, every, state)
            drafts.append(self._likeliest(logits))
        ids = torch.stack(drafts)
        self.step.recent[1 : num_drafts + 1].index_copy_(1, self.inputs.device["owners"][:size], ids)
        return ids

    def _likeliest(self, logits: Tensor) -> Tensor:
        ids, token_map = logits.argmax(-1), self.net.token_map
        return ids if token_map is None else token_map[ids]

    def _prepare(self, count: int) -> None:
        """Ids, positions and slots of the first ``count`` tokens; padding has no slot."""
        if count:
            rows, seq_lens, known = (self.inputs.device[name][:count] for name in ("rows", "seq_lens", "ids"))
            out = self.ids[:count], self.positions[:count], self.slots[:count]
            step, block_size = self.step, self.kv_cache.block_size
            prepare_decode(rows, seq_lens, known, step.recent, step.tables, block_size, *out)

    def _attention(self, tiles: WorkList, at: int, count: int) -> PagedAttention:
        inputs, span = self.inputs.device, slice(at, at + count)
        work = tiles.work(inputs, self.step.tables, inputs["rows"][span], inputs["seq_lens"][span])
        return PagedAttention(self.kv_cache, self.slots[span], TritonPlan(decode=work))

    def _fill_features(self, host: dict[str, NDArray], parts: Sequence[Part], size: int) -> None:
        before, ends_from, ends_to = (self._grid(host[name], size) for name in ("before", "ends_from", "ends_to"))
        before[:], ends_from[:], ends_to[:] = self.zero, self.zero, len(self.of_block) - 1
        host["keep_from"][:size], host["keep_to"][:size] = self.zero, self.trash
        block_size = self.kv_cache.block_size
        for place, part in enumerate(parts):
            before[place, : part.stop - part.start] = self.before(part, self.kept_at + part.row, self.zero)
            host["keep_from"][place] = part.computed - 1 + part.offset
            host["keep_to"][place] = self.kept_at + part.row
            ends = block_ends(part, block_size)
            ends_from[place, : len(ends)] = ends + part.offset
            ends_to[place, : len(ends)] = self.batch.tables[part.row, ends // block_size]

    @staticmethod
    def before(part: Part, kept: int, nothing: int) -> NDArray[np.int64]:
        """Where the features of the position before each of its tokens lie, among the step's; of the step's first
        position they are at ``kept``, if they are known, or at ``nothing``."""
        places = np.arange(part.start - 1, part.stop - 1) + part.offset
        if part.start == part.first:
            places[0] = kept if part.follows else nothing
        return places

    def _fill_chain(self, host: dict[str, NDArray], parts: Sequence[Part], begin: int, size: int) -> None:
        """Draft i of a request, from 1 on, is made of the one before, at ``stop - 1 + i``; none beyond what it may."""
        count, steps = len(parts), self.num_drafts - 1
        host["owners"][:count], host["owners"][count:size] = [part.row for part in parts], self.step.padding_row
        if not steps:
            return
        span = slice(begin, begin + steps * size)
        rows, ids, seq_lens = (host[name][span].reshape(steps, size) for name in ("rows", "ids", "seq_lens"))
        rows[:, :count], rows[:, count:], ids[:] = [part.row for part in parts], self.step.padding_row, 0
        nth = np.arange(1, steps + 1)[:, None]
        lens = np.array([part.stop for part in parts]) + nth
        seq_lens[:, :count] = np.where(nth < [part.drafts for part in parts], lens, 0)
        seq_lens[:, count:] = 0
        self.chain.fill(host, seq_lens.max(0))

    def _grid(self, values: NDArray, size: int) -> NDArray:
        """A field as [size, width], in place."""
        return values[: size * self.width].reshape(size, self.width)


def block_ends(part: Part, block_size: int) -> NDArray[np.int64]:
    """Positions that the step has computed and that end a block."""
    return np.arange(part.first // block_size * block_size + block_size - 1, part.computed, block_size)

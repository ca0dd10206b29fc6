"""A batch of sequences whose tokens lie in shuffled blocks of one cache layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minillm_kernels import Ops


@dataclass
class PagedCase:
    """lens: (tokens in cache, how many of them are new) per sequence. Keys and values of every token are at hand."""

    lens: list[tuple[int, int]]
    heads: int
    groups: int
    dim: int
    block_size: int
    seed: int = 0
    tables: Tensor = field(init=False)
    num_blocks: int = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        per_sequence = max(-(-total // self.block_size) for total, _ in self.lens)
        self.num_blocks = per_sequence * len(self.lens) + 3
        order = torch.randperm(self.num_blocks, generator=generator)[: self.num_blocks - 3]
        self.tables = order.view(len(self.lens), per_sequence)
        self.q, self.k, self.v = (
            [torch.randn(total, heads, self.dim, generator=generator) for total, _ in self.lens]
            for heads in (self.heads, self.groups, self.groups)
        )

    def slots(self, sequence: int, start: int, stop: int) -> Tensor:
        places = torch.arange(start, stop)
        return self.tables[sequence][places // self.block_size] * self.block_size + places % self.block_size

    def make_cache(self, ops: Ops, quantized: bool = False):
        """One empty layer."""
        return ops.make_kv_cache(1, self.num_blocks, self.block_size, self.groups, self.dim, torch.float32, quantized)[
            0
        ]

    def step(self, ops: Ops, cache, parts: list[tuple[int, int, int]], window: int = 0) -> list[Tensor]:
        """Compute tokens start .. stop - 1 of some sequences as one step. parts: (sequence, start, stop)."""
        q, k, v = (torch.cat([x[b][start:stop] for b, start, stop in parts]) for x in (self.q, self.k, self.v))
        slots = torch.cat([self.slots(*part) for part in parts])
        lens, new = [stop for *_, stop in parts], [stop - start for _, start, stop in parts]
        plan = ops.plan_attention(self.tables[[b for b, *_ in parts]], lens, new, self.block_size)
        return list(ops.attend(q, k, v, cache, slots, plan, self.dim**-0.5, window).split(new))

    def run(self, ops: Ops, quantized: bool = False, window: int = 0) -> Tensor:
        """The old tokens are in the cache already; all new ones are computed in one step: [T, heads, dim]."""
        cache = self.make_cache(ops, quantized)
        for b, (total, new) in enumerate(self.lens):
            ops.write_kv(self.k[b][: total - new], self.v[b][: total - new], cache, self.slots(b, 0, total - new))
        parts = [(b, total - new, total) for b, (total, new) in enumerate(self.lens)]
        return torch.cat(self.step(ops, cache, parts, window))

"""Paged decode attention in Triton: against float64 attention over the same cache, and its work list against a loop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from minillm_kernels.kv_cache import quantize_kv
from minillm_kernels.triton.cache import TritonKV
from minillm_kernels.triton.decode import DecodeWork, decode_attention
from minillm_kernels.triton.tiles import LONG_TILE, STEP, capacity, plan_tiles

BOUND = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
LENS = [1, 200, 0, 64, 65, 5]


@dataclass
class Case:
    """A step's random queries and its cache, whose blocks lie in any order with garbage around them."""

    lens: list[int]
    heads: int
    kv_heads: int
    dim: int
    block_size: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    kv_dtype: torch.dtype | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        batch, longest = len(self.lens), max(*self.lens, 1)
        per_sequence = -(-longest // self.block_size) + 1
        num_rows = batch + 2
        blocks = torch.randperm(num_rows * per_sequence + 3, generator=generator)[: num_rows * per_sequence]
        self.tables = blocks.view(num_rows, per_sequence)
        self.rows = torch.randperm(num_rows, generator=generator)[:batch]
        self.q = torch.randn(batch, self.heads, self.dim, generator=generator).to(self.dtype)
        shape = (num_rows * per_sequence + 3, self.kv_heads, self.block_size, self.dim)
        stored = [self._store(torch.randn(shape, generator=generator)) for _ in range(2)]
        (keys, key_scales), (values, value_scales) = stored
        parts = (None if x is None else x.to(self.device) for x in (keys, values, key_scales, value_scales))
        self.cache = TritonKV(*parts)

    def _store(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.kv_dtype == torch.int8:
            codes, scales = quantize_kv(x.flatten(0, 1))
            x, scales = codes.view(x.shape), scales.view(x.shape[:3])
        else:
            x, scales = x.to(self.kv_dtype or self.dtype), None
        unused = torch.ones(x.shape[0], self.block_size, dtype=torch.bool)
        for row, length in zip(self.rows, self.lens, strict=True):
            token = torch.arange(length)
            unused[self.tables[row][token // self.block_size], token % self.block_size] = False
        unused = unused.unsqueeze(1).expand(x.shape[:3])
        if scales is None:
            x = x.float().masked_fill(unused.unsqueeze(-1), float("nan")).to(x.dtype)  # never to be read
        else:
            scales[unused] = float("nan")
        return x, scales

    def reference(self, scale: float, window: int = 0) -> Tensor:
        """In float64, of what the cache holds."""
        keys, values = self.cache.keys.double().cpu(), self.cache.values.double().cpu()
        if self.cache.key_scales is not None:
            keys = keys * self.cache.key_scales.double().cpu().unsqueeze(-1)
            values = values * self.cache.value_scales.double().cpu().unsqueeze(-1)
        out = torch.zeros(self.q.shape, dtype=torch.float64)
        for b, (row, length) in enumerate(zip(self.rows, self.lens, strict=True)):
            if not length:
                continue
            token = torch.arange(max(0, length - window) if window else 0, length)
            block, offset = self.tables[row][token // self.block_size], token % self.block_size
            k, v = (x[block, :, offset].repeat_interleave(self.heads // self.kv_heads, 1) for x in (keys, values))
            weights = torch.einsum("hd,khd->hk", self.q[b].double(), k).mul(scale).softmax(-1)
            out[b] = torch.einsum("hk,khd->hd", weights, v)
        return out

    def work(self, window: int = 0, cap: int | None = None) -> DecodeWork:
        """As a runner makes it: full-size lists, garbage past the tiles of this step, scratch full of NaN."""
        cap = cap or capacity(len(self.lens))
        tiles = plan_tiles(self.lens, cap, window)

        def upload(x, size: int | None = None) -> Tensor:
            x = torch.as_tensor(x, dtype=torch.int32)
            padding = torch.full(((size or len(x)) - len(x),), 2**30, dtype=torch.int32)
            return torch.cat((x, padding)).to(self.device)

        return DecodeWork(
            tables=self.tables.to(self.device, torch.int32),
            rows=upload(self.rows),
            seq_lens=upload(self.lens),
            tile_seq=upload(tiles.tile_seq, cap),
            tile_start=upload(tiles.tile_start, cap),
            tile_first=upload(tiles.tile_first),
            num_tiles=upload([len(tiles.tile_seq)]),
            chunk=upload([tiles.chunk]),
            partials=torch.full((cap, self.heads, self.dim), float("nan"), device=self.device),
            lse=torch.full((cap, self.heads), float("nan"), device=self.device),
        )

    def check(self, window: int = 0, planned_window: int | None = None, cap: int | None = None) -> None:
        """Run on strided queries into a NaN-filled strided output, and compare."""
        batch, heads, dim = self.q.shape
        wide = torch.full((batch, heads + 3, dim + 1), float("nan"), dtype=self.dtype, device=self.device)
        q = wide[:, 1 : 1 + heads, :dim]
        q.copy_(self.q)
        out = torch.full((batch, 2 * heads, dim), float("nan"), dtype=self.dtype, device=self.device)[:, ::2]
        work = self.work(window if planned_window is None else planned_window, cap)
        scale = dim**-0.5
        result = decode_attention(q, self.cache, work, scale, window, out)
        assert result is out
        expected, got = self.reference(scale, window), out.cpu().double()
        error = ((got - expected).norm() / expected.norm()).item()
        # An int8 value is exact in the products; what is rounded is the weight, to the products' dtype.
        lossy = self.kv_dtype == torch.int8 and self.dtype == torch.float16
        assert error < BOUND[torch.bfloat16 if lossy else self.dtype], f"error {error:.2e} in {self}"
        assert not got[[b for b, n in enumerate(self.lens) if n == 0]].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 2), (4, 1)])
def test_equals_float64(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int) -> None:
    Case(LENS, heads, kv_heads, 32, 16, device, dtype).check()


@pytest.mark.parametrize("group", [1, 2, 4, 7, 16, 24])
def test_any_group_of_query_heads(device: torch.device, group: int) -> None:
    Case([70, 3], 2 * group, 2, 16, 16, device, seed=group).check()


@pytest.mark.parametrize("dim", [8, 16, 48, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_head_size(device: torch.device, dim: int, dtype: torch.dtype) -> None:
    Case([70, 3], 2, 1, dim, 16, device, dtype, seed=dim).check()


@pytest.mark.parametrize("block_size", [1, 3, 16, 64, 100])
def test_any_block_size(device: torch.device, block_size: int) -> None:
    Case([70, 0, 130], 4, 2, 16, block_size, device, seed=block_size).check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kv_dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_cache(device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype) -> None:
    Case(LENS, 4, 2, 32, 16, device, dtype, kv_dtype).check()


@pytest.mark.parametrize("window", [1, 10, 64, 100, 1000])
@pytest.mark.parametrize("planned", ["its own", "none"])
def test_window(device: torch.device, window: int, planned: str) -> None:
    """Tiles planned for full attention serve a layer with a window too: hidden ones weigh nothing."""
    case = Case([1, 9, 0, 300, 64, 129], 4, 2, 16, 16, device, seed=window)
    case.check(window, planned_window=0 if planned == "none" else window)


def test_first_turn_of_the_merge_can_be_hidden_whole(device: torch.device) -> None:
    """1,300 tokens in 21 tiles, of which a window of 20 leaves the last: 16 partial results at a time."""
    Case([1300], 2, 1, 16, 16, device).check(20, planned_window=0)


def test_many_tiles_are_merged(device: torch.device) -> None:
    """Two turns of 16 partial results; of eight heads some have their largest score in the second."""
    case = Case([1300, 2], 8, 2, 16, 16, device)
    assert int(case.work().num_tiles) == 22
    case.check()


def test_list_without_room_to_split(device: torch.device) -> None:
    Case([300, 0, 7, 64], 2, 1, 16, 16, device).check(cap=3)


def test_large_scores_do_not_overflow(device: torch.device) -> None:
    case = Case([150, 3], 2, 1, 16, 16, device)
    case.q *= 300
    case.check()


def test_same_buffers_for_one_step_after_another(device: torch.device) -> None:
    """What a CUDA graph does: nothing that an earlier, larger step left in scratch is seen by a later one."""
    case = Case(LENS, 4, 2, 16, 16, device)
    work = case.work()
    for lens in ([200, 200, 200, 200, 200, 200], [0, 70, 3, 0, 0, 130]):
        step = Case(lens, 4, 2, 16, 16, device, seed=1)
        new = step.work()
        work = replace(new, partials=work.partials, lse=work.lse)
        out = torch.full(step.q.shape, float("nan"), device=device)
        decode_attention(step.q.to(device), step.cache, work, 0.25, 0, out)
        expected = step.reference(0.25)
        assert ((out.cpu().double() - expected).norm() / expected.norm()).item() < BOUND[torch.float32]


@pytest.mark.parametrize("broken", ["heads", "batch", "scratch", "stride"])
def test_shapes_that_do_not_fit(device: torch.device, broken: str) -> None:
    case = Case([5, 7], 4, 2, 16, 16, device)
    q, work = case.q.to(device), case.work()
    if broken == "heads":
        q = q[:, :3]
    elif broken == "batch":
        q = q[:1]
    elif broken == "scratch":
        work = replace(work, partials=work.partials[:, :2])
    else:
        q = q.transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError):
        decode_attention(q, case.cache, work, 1.0, 0, torch.empty_like(q))


def test_tiles_cover_what_is_seen_once_and_in_order() -> None:
    """Against a loop over the sequences, for 2,000 random steps."""
    random = np.random.default_rng(20)
    for _ in range(2000):
        lens = random.integers(0, 4 ** int(random.integers(1, 8)), random.integers(1, 40)) * (random.random() < 0.97)
        lens[random.random(len(lens)) < 0.2] = 0
        window = int(random.choice([0, 1, 50, 4096]))
        cap = int(random.choice([len(lens), capacity(len(lens))]))
        chunk, tile_seq, tile_start, tile_first = plan_tiles(lens.tolist(), cap, window)
        seqs, starts, firsts = [], [], [0]
        for seq, length in enumerate(lens.tolist()):
            cuts = range(max(0, length - window) if window else 0, length, chunk)
            seqs += [seq] * len(cuts)
            starts += cuts
            firsts.append(len(seqs))
        assert chunk > 0
        assert chunk % STEP == 0
        assert len(tile_seq) <= cap, (lens, window, cap)
        assert (tile_seq.tolist(), tile_start.tolist(), tile_first.tolist()) == (seqs, starts, firsts), (lens, window)
        assert all(x.dtype == np.int32 for x in (tile_seq, tile_start, tile_first))


@pytest.mark.parametrize(
    ("lens", "chunk", "tiles"),
    [
        ([512], 64, 8),  # alone on the machine
        ([192] * 50, 192, 50),  # one tile each is enough to fill it
        ([1000] * 256, LONG_TILE, 256),
        ([8192] * 8, LONG_TILE, 64),
        ([16384] * 8, 1664, 80),
        ([], 64, 0),
        ([0, 0], 64, 0),
    ],
)
def test_length_of_tiles(lens: list[int], chunk: int, tiles: int) -> None:
    plan = plan_tiles(lens, capacity(len(lens)))
    assert (plan.chunk, len(plan.tile_seq)) == (chunk, tiles)


def test_more_sequences_than_tiles_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 sequences need as many tiles"):
        plan_tiles([1, 0, 2, 3], 2)

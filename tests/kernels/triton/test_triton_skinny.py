"""A few tokens times a weight: split-K equals float64 for any split, gives the same bits each time, leaves its counters
at zero; and the row ``linear``, which chooses between the kernels and torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

skinny_page = pytest.importorskip("minillm_kernels.triton.skinny", reason="triton is not installed")
from minillm_kernels.triton import linear as rows  # noqa: E402
from minillm_kernels.triton.gemv import GemvTile  # noqa: E402

SkinnyTile, skinny, arrivals = skinny_page.SkinnyTile, skinny_page.skinny, skinny_page.arrivals

BOUND = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 6e-4}  # the last bit (the interpreter cuts bf16 off)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer a kernel gets is full of NaN: what it does not write shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(float("nan")))


def random(rows: int, cols: int, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    """A window in a buffer of NaN, so that what a kernel must not read shows."""
    values = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    buffer = torch.full((rows + 128, cols), float("nan"))
    buffer[:rows] = values
    return buffer.to(device, dtype)[:rows]


def check(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    expected = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert out.shape == expected.shape
    error = ((out.double() - expected).norm() / expected.norm()).item()
    assert error <= BOUND[out.dtype], f"relative error {error:.1e}"


@pytest.mark.parametrize(
    ("n", "k", "split"), [(33, 100, 1), (33, 100, 2), (33, 100, 3), (16, 128, 4), (9, 300, 8), (1, 1, 2)]
)
@pytest.mark.parametrize("num_tokens", [1, 2, 17, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_skinny_equals_float64(device, dtype, num_tokens, n, k, split):
    x, weight = random(num_tokens, k, dtype, device, 0), random(n, k, dtype, device, 1)
    bias, counters = random(1, n, dtype, device, 2)[0], arrivals(n, device)
    tile = SkinnyTile(16 if split > 1 else 32, 32, split, num_warps=2, num_stages=2)
    for b in (None, bias):
        check(skinny(x, weight, b, counters, tile), x, weight, b)
        assert not counters.any(), "the next call needs zeros"


def test_a_slice_of_wider_tokens_is_read_as_it_looks(device):
    wide, weight = random(5, 90, torch.float32, device, 0), random(20, 40, torch.float32, device, 1)
    counters, tile = arrivals(20, device), SkinnyTile(16, 32, 2, 2, 2)
    for x in (wide[:, 30:70], wide.t()[20:60].t(), random(40, 5, torch.float32, device, 2).t()):
        check(skinny(x, weight, None, counters, tile), x, weight, None)


def test_other_shapes_are_refused(device):
    x, weight = (random(n, 64, torch.float32, device, n) for n in (65, 33))
    counters, tile = arrivals(33, device), SkinnyTile(16, 32, 2, 2, 2)
    for wrong in (x, x[:0], x[:5, :63]):
        with pytest.raises(ValueError, match=r"expected x \[1..64, 64\]"):
            skinny(wrong, weight, None, counters, tile)
    with pytest.raises(ValueError, match="contiguous weight"):
        skinny(x[:5, :32], weight[:, :32], None, counters, tile)
    with pytest.raises(ValueError, match="bias"):
        skinny(x[:5], weight, torch.zeros(32, device=device), counters, tile)
    with pytest.raises(ValueError, match="counters"):
        skinny(x[:5], weight, None, counters[:2], tile)


@pytest.mark.parametrize(
    ("num_tokens", "dtype"), [*((n, torch.bfloat16) for n in (0, 1, 2, 33, 65)), (2, torch.float16)]
)
def test_the_row_equals_float64_for_any_number_of_tokens(device, dtype, num_tokens):
    weight, bias = random(48, 100, dtype, device, 0), random(1, 48, dtype, device, 1)[0]
    x, packed = random(num_tokens, 100, dtype, device, 2), rows.pack_linear(weight)
    assert packed.data.data_ptr() == weight.data_ptr(), "a contiguous weight is not copied"
    for b in (None, bias):
        if num_tokens:
            check(rows.linear(x, packed, b), x, weight, b)
        else:
            assert rows.linear(x, packed, b).shape == (0, 48)


def test_a_weight_that_is_a_view_is_packed_as_it_looks(device):
    weight, x = random(100, 96, torch.bfloat16, device, 0).t()[::2], random(3, 100, torch.bfloat16, device, 1)
    check(rows.linear(x, rows.pack_linear(weight), None), x, weight, None)


def test_fp32_is_left_to_torch(device):
    weight, x = random(48, 100, torch.float32, device, 0), random(3, 100, torch.float32, device, 1)
    assert rows.pack_linear(weight) is weight
    assert torch.equal(rows.linear(x, weight, None), functional.linear(x, weight))


def test_choice_by_tokens_and_shape():
    assert isinstance(rows.choose(1, 128256, 4096), GemvTile)
    assert isinstance(rows.choose(1, 577, 1000), GemvTile)  # not in the table
    assert isinstance(rows.choose(6, 128256, 4096), SkinnyTile)  # in the table
    assert rows.choose(2, 128256, 5120) is None  # large and not in the table: cuBLAS is near the limit
    assert rows.choose(2, 577, 1000) == rows.choose(16, 577, 1000)  # one kernel for a bucket
    assert rows.choose(17, 577, 1000) is None  # measured: cuBLAS is as fast from there on
    for tokens, n, k in [(2, 1, 1), (16, 48, 100), (16, 577, 1000)]:
        tile = rows.choose(tokens, n, k)
        assert isinstance(tile, SkinnyTile)
        assert (tile.split - 1) * tile.block_k < k, "a slice without inputs"


@pytest.mark.parametrize("num_tokens", [1, 2, 64, 65])
def test_every_choice_computes_the_same(device, num_tokens):
    choices = list(rows.choices(num_tokens, 1024, 300))
    assert choices[0] is None and len(set(choices)) == len(choices)
    assert (len(choices) > 1) == (num_tokens <= 64)
    weight, x = random(18, 300, torch.bfloat16, device, 0), random(num_tokens, 300, torch.bfloat16, device, 1)
    packed = rows.pack_linear(weight)
    for tile in choices:
        check(rows.linear_by(tile, x, packed, None), x, weight, None)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("n", "k"), [(1024, 2048), (1024, 3072), (4096, 1024), (577, 1000)])
@pytest.mark.parametrize("num_tokens", [2, 16, 33, 64])
def test_the_same_bits_a_thousand_times(device, num_tokens, n, k):
    """Programs finish in any order; a sum read before it is written, or a counter left behind, would show."""
    weight, x = random(n, k, torch.bfloat16, device, 0), random(num_tokens, k, torch.bfloat16, device, 1)
    counters = arrivals(n, device)
    for tile in (SkinnyTile(16, 128, 4, 2, 3), SkinnyTile(64, 128, 8, 4, 4), SkinnyTile(32, 64, 5, 4, 3)):
        first = skinny(x, weight, None, counters, tile)
        check(first, x, weight, None)
        differ = torch.zeros((), dtype=torch.int64, device=device)
        for _ in range(1000):
            differ += (skinny(x, weight, None, counters, tile) != first).any()
        assert differ.item() == 0 and not counters.any()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("num_tokens", [1, 8, 64])
def test_a_graph_replays_the_row(device, num_tokens):
    weights = [random(n, k, torch.bfloat16, device, n) for n, k in ((1024, 2048), (2048, 1024))]
    packed = [rows.pack_linear(weight) for weight in weights]
    x = random(num_tokens, 2048, torch.bfloat16, device, 1).clone()
    run = lambda: rows.linear(rows.linear(x, packed[0], None), packed[1], None)  # noqa: E731
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    for seed in range(3):
        x.copy_(random(num_tokens, 2048, torch.bfloat16, device, seed))
        graph.replay()
        assert torch.equal(out, run())

"""Matrix times one vector: equal to float64 for any shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

gemv_page = pytest.importorskip("minillm_kernels.triton.gemv", reason="triton is not installed")
GemvTile, gemv = gemv_page.GemvTile, gemv_page.gemv

BOUND = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 6e-4}  # the last bit (the interpreter cuts bf16 off)
DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(11, 100), (1, 1), (8, 64), (5, 130)]  # N, K: not whole blocks but for the third
TILES = [GemvTile(1, 64, 4), GemvTile(4, 32, 4), GemvTile(2, 256, 4)]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer a kernel gets is full of NaN: what it does not write shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: empty(*args, **kwargs).fill_(float("nan")))


class Case:
    """Random tensors of one shape, each a window in a buffer of NaN: what a kernel must not read shows as well."""

    def __init__(self, n: int, k: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
        self.generator, self.dtype, self.device = torch.Generator().manual_seed(seed), dtype, device
        self.weight, self.x, self.bias = self.random(n, k), self.random(1, k), self.random(1, n)[0]

    def random(self, rows: int, cols: int) -> Tensor:
        values = torch.randn(rows, cols, generator=self.generator)
        buffer = torch.full((rows + 64, cols), float("nan"))
        buffer[:rows] = values
        return buffer.to(self.device, self.dtype)[:rows]


def check(out: Tensor, expected: Tensor) -> None:
    assert out.shape == expected.shape
    error = ((out.double() - expected).norm() / expected.norm()).item()
    assert error <= BOUND[out.dtype], f"relative error {error:.1e}"


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gemv_equals_float64(device, n, k, dtype, tile):
    case = Case(n, k, dtype, device)
    product = functional.linear(case.x.double(), case.weight.double())
    check(gemv(case.x, case.weight, None, tile), product)
    check(gemv(case.x, case.weight, case.bias, tile), product + case.bias.double())


def test_a_strided_token_is_read_as_it_looks(device):
    case = Case(16, 64, torch.float32, device)
    column = torch.stack([case.x[0], case.x[0] + 1], 1).t()[:1]  # stride 2 between elements
    assert column.stride(1) == 2
    check(gemv(column, case.weight, None, TILES[1]), functional.linear(case.x.double(), case.weight.double()))


def test_other_shapes_are_refused(device):
    case, tile = Case(16, 64, torch.float32, device), TILES[0]
    for x in (case.x[:, :63], case.x.expand(2, 64), case.x[0]):
        with pytest.raises(ValueError, match=r"expected x \[1, 64\]"):
            gemv(x, case.weight, None, tile)
    with pytest.raises(ValueError, match="contiguous weight"):
        gemv(case.x[:, :32], case.weight[:, :32], None, tile)
    with pytest.raises(ValueError, match="bias"):
        gemv(case.x, case.weight, case.bias[:15], tile)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("n", "k"), [(4096, 14336), (151936, 1024), (576, 576), (300_000, 8192)])
def test_real_shapes(device, n, k):
    """The last one has more than 2**31 elements: 4.9 GB."""
    generator = torch.Generator(device).manual_seed(0)
    weight, x = (torch.randn(rows, k, generator=generator, device=device).bfloat16() for rows in (n, 1))
    out = gemv(x, weight, None, GemvTile(2, 1024, 4))
    for rows in (slice(0, 512), slice(n - 512, n)):
        check(out[:, rows], functional.linear(x.double(), weight[rows].double()))

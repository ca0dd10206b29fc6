"""W4A16 layers in Triton: against float64 products of the weight that the codes stand for."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels.ref_w4 import W4Weight, dequantize_w4, linear_w4, pack_linear_w4, pack_w4
from minillm_kernels.triton import linear_w4 as triton_w4

# A bf16 rounding errs by 2**-9 at most where hardware rounds; the interpreter cuts off.
BOUND = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3 if torch.cuda.is_available() else 8e-3}
DTYPES = [torch.float32, torch.bfloat16]


def random_w4(outputs: int, inputs: int, group: int, device: torch.device, *, ordered: bool = False, seed: int = 0):
    """Any codes, scales and zeros: also those that rounding a weight would not give."""
    generator = torch.Generator().manual_seed(seed)
    groups = -(-inputs // group)
    codes = torch.randint(0, 16, (outputs, inputs), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (groups, outputs), generator=generator, dtype=torch.uint8)
    scales = (0.5 + torch.rand(groups, outputs, generator=generator)).half()
    order = torch.randperm(inputs, generator=generator).to(device) if ordered else None
    packed = pack_w4(codes.to(device), scales.to(device), zeros.to(device), group, order)
    wide_zeros, wide_scales = (x.double().T.repeat_interleave(group, 1)[:, :inputs] for x in (zeros, scales))
    return packed, (codes.double() - wide_zeros) * wide_scales


def exact(x: torch.Tensor, weight: torch.Tensor, packed: W4Weight, bias: torch.Tensor | None) -> torch.Tensor:
    """In float64, on the CPU. weight: columns in ``order``."""
    x64 = x.cpu().double()
    if packed.order is not None:
        x64 = x64[:, packed.order.cpu()]
    out = x64 @ weight.T
    return out if bias is None else out + bias.cpu().double()


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    assert torch.isfinite(out).all(), "some outputs were not written"
    return float((out.cpu().double() - expected).norm() / expected.norm())


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN: an element that no kernel writes shows."""
    empty = torch.empty
    monkeypatch.setattr(
        triton_w4.torch,
        "empty",
        lambda *shape, **options: empty(*shape, **options).fill_(float("nan")),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 40])
@pytest.mark.parametrize(
    ("outputs", "inputs", "group"), [(40, 256, 128), (33, 192, 64), (70, 288, 32), (7, 100, 64), (16, 32, 32)]
)
def test_any_shape_equals_the_float64_product(outputs, inputs, group, tokens, dtype, device, monkeypatch):
    poison(monkeypatch)
    packed, weight = random_w4(outputs, inputs, group, device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(tokens, inputs, generator=generator).to(device, dtype)
    bias = torch.randn(outputs, generator=generator).to(device, dtype) if outputs % 2 else None
    out = triton_w4.linear_w4(x, packed, bias)
    assert out.shape == (tokens, outputs) and out.dtype == dtype
    assert error(out, exact(x, weight, packed, bias)) < BOUND[dtype]


@pytest.mark.parametrize("tokens", [1, 3, 512])
def test_half_precision(tokens, device):
    packed, weight = random_w4(24, 160, 32, device)
    x = torch.randn(tokens, 160, generator=torch.Generator().manual_seed(10)).to(device, torch.float16)
    assert error(triton_w4.linear_w4(x, packed, None), exact(x, weight, packed, None)) < BOUND[torch.float16]


@pytest.mark.parametrize(("gemv", "gemm"), [((4, 128, 1), (64, 16, 1, 4, 3)), ((8, 16, 2), (16, 32, 8, 2, 2))], ids=str)
def test_any_tile_gives_the_same(gemv, gemm, device, monkeypatch):
    """The tiles of wide layers on a narrow one, several turns of the loop, a last one that is not full."""
    monkeypatch.setattr(triton_w4, "gemm_tile", lambda outputs, blocks, tokens: gemm)
    monkeypatch.setattr(triton_w4, "gemv_tile", lambda outputs, words: gemv)
    packed, weight = random_w4(37, 1200, 64, device)
    x = torch.randn(3, 1200, generator=torch.Generator().manual_seed(3)).to(device)
    for some in (x, x[:1]):
        assert error(triton_w4.linear_w4(some, packed, None), exact(some, weight, packed, None)) < BOUND[torch.float32]


@pytest.mark.parametrize("split", [2, 4])
def test_programs_that_share_a_tile_add_up_in_order(split, device, monkeypatch):
    """The second call finds the counters as the first did, and gives the same bits."""
    poison(monkeypatch)
    monkeypatch.setattr(triton_w4, "gemm_tile", lambda outputs, blocks, tokens: (16, 16, split, 2, 2))
    packed, weight = random_w4(50, 1100, 128, device)
    x, bias = (
        torch.randn(5, 1100, generator=torch.Generator().manual_seed(11)).to(device),
        torch.ones(50, device=device),
    )
    first, second = (triton_w4.linear_w4(x, packed, bias) for _ in range(2))
    assert error(first, exact(x, weight, packed, bias)) < BOUND[torch.float32]
    assert torch.equal(first, second) and not packed.arrivals.any()


def test_the_split_is_a_power_of_two_with_work_for_each():
    for outputs in (16, 576, 1024, 4096, 6144, 28672, 128256):
        for blocks in (1, 5, 32, 112):
            for tokens in (2, 16, 17, 64, 65, 300):
                rows, tile_tokens, split, *_ = triton_w4.gemm_tile(outputs, blocks, tokens)
                assert split & (split - 1) == 0 and (split == 1 or (split * 4 <= blocks and tokens <= tile_tokens))
                assert rows >= 16


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("outputs", "inputs", "group"), [(40, 256, 128), (33, 160, 32)])
def test_a_long_prompt_multiplies_the_weight_written_out(outputs, inputs, group, dtype, device, monkeypatch):
    poison(monkeypatch)
    monkeypatch.setattr(triton_w4, "DEQUANTIZE_FROM", 20)
    packed, weight = random_w4(outputs, inputs, group, device)
    written = triton_w4.dequantize_w4(packed, dtype)
    assert ((written.cpu() - weight).abs() <= torch.finfo(dtype).eps * weight.abs()).all()
    x = torch.randn(20, inputs, generator=torch.Generator().manual_seed(4)).to(device, dtype)
    bias = torch.ones(outputs, device=device, dtype=dtype)
    assert error(triton_w4.linear_w4(x, packed, bias), exact(x, weight, packed, bias)) < BOUND[dtype]


@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_inputs_in_another_order(tokens, device, monkeypatch):
    """GPTQ's act-order: columns of x follow the codes."""
    monkeypatch.setattr(triton_w4, "DEQUANTIZE_FROM", 20)
    packed, weight = random_w4(24, 256, 64, device, ordered=True)
    x = torch.randn(tokens, 256, generator=torch.Generator().manual_seed(5)).to(device)
    assert error(triton_w4.linear_w4(x, packed, None), exact(x, weight, packed, None)) < BOUND[torch.float32]


@pytest.mark.parametrize("tokens", [1, 4])
def test_rows_of_x_at_any_stride(tokens, device):
    packed, weight = random_w4(24, 128, 32, device)
    wide = torch.randn(tokens, 300, generator=torch.Generator().manual_seed(6)).to(device)
    for x in (wide[:, 100:228], wide[:, :256:2]):
        assert error(triton_w4.linear_w4(x, packed, None), exact(x, weight, packed, None)) < BOUND[torch.float32]


def test_what_is_not_finite_beyond_the_inputs_stays_out(device):
    """The last block of 128 is not full: what lies behind x's rows must not be multiplied, not even by zero."""
    packed, weight = random_w4(24, 96, 32, device)
    wide = torch.full((3, 200), float("nan"), device=device)
    wide[:, :96] = torch.randn(3, 96, generator=torch.Generator().manual_seed(7)).to(device)
    for x in (wide[:, :96], wide[:1, :96]):
        assert error(triton_w4.linear_w4(x, packed, None), exact(x, weight, packed, None)) < BOUND[torch.float32]


def test_no_tokens_no_outputs(device):
    packed, _ = random_w4(24, 128, 64, device)
    assert triton_w4.linear_w4(torch.empty(0, 128, device=device), packed, None).shape == (0, 24)


def test_shapes_that_do_not_fit_are_refused(device):
    packed, _ = random_w4(24, 128, 64, device)
    for x, bias in (((2, 127), 24), ((2, 128), 23), ((128,), 24)):
        with pytest.raises(ValueError, match="does not fit a 4-bit weight"):
            triton_w4.linear_w4(torch.zeros(x, device=device), packed, torch.zeros(bias, device=device))


def test_the_reference_is_the_float64_product_too(device):
    packed, weight = random_w4(33, 288, 32, device, ordered=True)
    x, bias = torch.randn(5, 288, generator=torch.Generator().manual_seed(8)).to(device), torch.ones(33, device=device)
    assert error(linear_w4(x, packed, bias), exact(x, weight, packed, bias)) < BOUND[torch.float32]


@pytest.mark.parametrize("inputs", [256, 192, 160, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounding_is_off_by_half_a_step_at_most(inputs, dtype, device):
    """Beside the scale's own rounding to the weight's dtype, which the outermost codes feel."""
    weight = torch.randn(20, inputs, generator=torch.Generator().manual_seed(9)).to(device, dtype)
    weight[3] = 0
    weight[4] = weight[4].abs() + 1  # zero is outside what the group holds
    packed = pack_linear_w4(weight)
    steps = packed.scales.float().T.repeat_interleave(packed.group, 1)[:, :inputs]
    off = (dequantize_w4(packed) - weight.float()).abs() / steps
    assert off.max() <= 0.5 + 16 * torch.finfo(dtype).eps
    assert not dequantize_w4(packed)[3].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("tokens", [1, 2, 50, 200, 600])
@pytest.mark.parametrize(("outputs", "inputs", "group"), [(4096, 14336, 128), (28672, 4096, 64), (1024, 3072, 32)])
def test_layers_of_real_models_also_replayed_from_a_graph(outputs, inputs, group, tokens, device):
    generator = torch.Generator(device).manual_seed(12)
    codes = torch.randint(0, 16, (outputs, inputs), generator=generator, dtype=torch.uint8, device=device)
    zeros = torch.randint(0, 16, (inputs // group, outputs), generator=generator, dtype=torch.uint8, device=device)
    scales = (0.5 + torch.rand(inputs // group, outputs, generator=generator, device=device)).half()
    packed = pack_w4(codes, scales, zeros, group)
    x = torch.randn(tokens, inputs, generator=generator, device=device, dtype=torch.bfloat16)
    triton_w4.linear_w4(x, packed, None)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = triton_w4.linear_w4(x, packed, None)
    expected = x.double() @ dequantize_w4(packed).double().T
    for _ in range(2):
        out.fill_(float("nan"))
        graph.replay()
        assert torch.isfinite(out).all()
        assert (out.double() - expected).norm() / expected.norm() < BOUND[torch.bfloat16]

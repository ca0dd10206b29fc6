"""FP8 layers: the reference's own properties, and the Triton rows against float64 of the same codes."""

from __future__ import annotations

import pytest
import torch
from eight_bit_case import DTYPES, SHAPES, bound, error, needs_gpu, operands, poison_new_memory, replayed

from minillm_kernels.ref_fp8 import Fp8Weight, pack_linear_fp8, quantize_rows_fp8
from minillm_kernels.ref_fp8 import linear_fp8 as reference
from minillm_kernels.triton import linear_fp8 as module
from minillm_kernels.triton.linear_fp8 import linear_fp8
from minillm_kernels.triton.quantize import quantize

PER_TENSOR = pytest.mark.parametrize("per_tensor", [False, True], ids=["per output", "per tensor"])


def exact_product(x: torch.Tensor, weight: Fp8Weight) -> torch.Tensor:
    """float64, from the same codes."""
    codes, scales = quantize_rows_fp8(x)
    rounded = codes.double() * scales.double().unsqueeze(1)
    return rounded @ (weight.codes.double() * weight.scales.double().unsqueeze(1)).T


@DTYPES
@pytest.mark.parametrize("depth", [1, 72, 300])
def test_activations_are_rounded_to_the_codes_of_the_reference(device, dtype, depth):
    x, _, _ = operands(5, 1, depth, dtype, device)
    x[1:3] *= 1e-3 * torch.rand(2, depth, device=device).to(dtype) ** 6  # many below the smallest normal number
    codes, scales = quantize(x, torch.float8_e4m3fn, 512)
    expected_codes, expected_scales = quantize_rows_fp8(x)
    assert torch.equal(codes.float(), expected_codes.float())
    torch.testing.assert_close(scales[0], expected_scales, rtol=1e-6, atol=0)


def test_every_number_of_the_format_is_its_own_code(device):
    """All finite ones, the subnormal too, and the midpoints between them, which go to the even neighbour."""
    codes = torch.arange(127, dtype=torch.uint8, device=device).view(torch.float8_e4m3fn).float()
    x = torch.cat((codes, -codes, (codes[1:] + codes[:-1]) / 2)).unsqueeze(0)
    got, scales = quantize(x, torch.float8_e4m3fn, 512)
    assert abs(scales.item() - 1) < 1e-6 and torch.equal(got.float(), x.to(torch.float8_e4m3fn).float())
    assert torch.equal(got.float()[0, :254], x[0, :254])


@DTYPES
@pytest.mark.parametrize(("shape", "per_tensor"), [(shape, False) for shape in SHAPES] + [(SHAPES[1], True)])
def test_the_product_equals_float64_of_the_same_codes(device, dtype, shape, per_tensor, monkeypatch):
    x, weight, bias = operands(*shape, dtype, device)
    packed = pack_linear_fp8(weight, per_tensor)
    expected = exact_product(x, packed)
    largest = max(bound(dtype, device), 1e-3 if device.type == "cuda" else 0.0)  # Hopper keeps 14 bits of an FP8 sum
    poison_new_memory(monkeypatch)
    for b in (None, bias):
        for op in (linear_fp8, reference):
            got = op(x, packed, b)
            assert got.dtype == dtype and got.shape == shape[:2]
            assert error(got, expected if b is None else expected + bias.double()) < largest


@PER_TENSOR
def test_a_weight_keeps_three_bits_of_mantissa_and_its_scales(per_tensor):
    weight = torch.randn(40, 72, generator=torch.Generator().manual_seed(0))
    weight[3] *= 8
    packed = pack_linear_fp8(weight, per_tensor)
    assert packed.codes.dtype == torch.float8_e4m3fn and packed.scales.shape == (40,)
    largest = weight.abs().amax().expand(40) if per_tensor else weight.abs().amax(1)
    torch.testing.assert_close(packed.scales, largest / 448)
    rounded = packed.codes.float() * packed.scales.unsqueeze(1)
    step = torch.maximum(weight.abs() / 16, packed.scales.unsqueeze(1) * 2**-10)
    assert ((rounded - weight).abs() <= 1.0001 * step).all(), "half of the last bit"


@pytest.mark.parametrize("op", [linear_fp8, reference], ids=["triton", "ref"])
def test_zeros_give_zeros_and_what_is_not_a_number_stays_in_its_row(op, device):
    x, weight, _ = operands(4, 50, 200, torch.float32, device)
    x[0], x[1, 5], x[3, 150] = 0, float("nan"), float("inf")
    packed = pack_linear_fp8(weight)
    out = op(x, packed, None)
    assert (out[0] == 0).all() and out[2].isfinite().all()
    assert out[1].isnan().all() and not out[3].isfinite().any()
    assert op(x[1:2], packed, None).isnan().all(), "one token goes another way"


@pytest.mark.parametrize("tokens", [1, 6])
def test_rows_may_be_slices_of_longer_ones(device, tokens):
    wide, weight, _ = operands(tokens, 33, 144, torch.float32, device)
    packed = pack_linear_fp8(weight[:, :72])
    for x in (wide[:, 72:], wide[:, ::2]):
        assert torch.equal(linear_fp8(x, packed, None), linear_fp8(x.contiguous(), packed, None))


def test_no_tokens_give_no_outputs_and_what_does_not_fit_is_refused(device):
    packed = pack_linear_fp8(torch.ones(50, 72, device=device))
    x = torch.ones(2, 72, device=device)
    assert linear_fp8(x[:0], packed, None).shape == (0, 50)
    with pytest.raises(ValueError, match=r"takes \[tokens, 72\], got \[2, 71\]"):
        linear_fp8(x[:, 1:], packed, None)
    with pytest.raises(ValueError, match=r"bias of this layer is \[50\], got \[1\]"):
        linear_fp8(x, packed, x[0, :1])


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 8, 200])
def test_a_captured_layer_replays_on_new_activations(device, tokens):
    x, weight, bias = operands(tokens, 512, 640, torch.bfloat16, device)
    packed, other = pack_linear_fp8(weight), torch.randn_like(x)
    expected = linear_fp8(other, packed, bias)
    assert torch.equal(replayed(lambda x: linear_fp8(x, packed, bias), x, other), expected)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [65, 256])
def test_many_tokens_are_multiplied_by_cublas_which_computes_the_same(device, tokens, monkeypatch):
    x, weight, bias = operands(tokens, 512, 640, torch.bfloat16, device)
    packed, products = pack_linear_fp8(weight), []
    scaled_mm = torch._scaled_mm
    monkeypatch.setattr(
        torch, "_scaled_mm", lambda *args, **kwargs: products.append(scaled_mm(*args, **kwargs)) or products[-1]
    )
    for b in (None, bias):
        theirs = linear_fp8(x, packed, b)
        assert products.pop() is theirs
        with monkeypatch.context() as patch:
            patch.setattr(module, "MAX_TOKENS", tokens)
            ours = linear_fp8(x, packed, b)
        assert not products and error(theirs, ours.double()) < bound(torch.bfloat16, device)
        expected = exact_product(x, packed) + (0 if b is None else b.double())
        assert error(theirs, expected) < bound(torch.bfloat16, device)
    x[3, 5] = float("nan")
    assert torch.equal(linear_fp8(x, packed, bias).isnan().any(1).nonzero().flatten(), torch.tensor([3], device=device))

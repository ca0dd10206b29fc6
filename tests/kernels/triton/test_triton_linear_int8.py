"""W8A8 in Triton: the reference's integers in groups of 128, whatever the shape."""

from __future__ import annotations

import itertools

import pytest
import torch
from eight_bit_case import DTYPES, SHAPES, bound, error, needs_gpu, operands, poison_new_memory, replayed

from minillm_kernels import ref
from minillm_kernels.triton.eight_bit import DEPTH, Tile, choose, gemv_tile
from minillm_kernels.triton.linear_int8 import linear_int8
from minillm_kernels.triton.quantize import quantize


def codes_and_scales(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's, group by group: codes [T, K], scales [groups, T]."""
    codes, scales = zip(*(ref.quantize_rows(group) for group in x.split(DEPTH, 1)), strict=True)
    return torch.cat(codes, 1), torch.stack(scales)


def exact_product(x: torch.Tensor, weight: ref.Int8Weight) -> torch.Tensor:
    """float64, from the same codes."""
    codes, scales = codes_and_scales(x)
    rounded = codes.double() * scales.double().T.repeat_interleave(DEPTH, 1)[:, : x.shape[1]]
    return rounded @ (weight.codes.double() * weight.scales.double().unsqueeze(1)).T


@DTYPES
@pytest.mark.parametrize("depth", [1, 72, 128, 300])
def test_activations_are_rounded_to_the_codes_of_the_reference(device, dtype, depth):
    x, _, _ = operands(5, 1, depth, dtype, device)
    codes, scales = quantize(x, torch.int8, DEPTH)
    expected_codes, expected_scales = codes_and_scales(x)
    assert torch.equal(codes, expected_codes)
    torch.testing.assert_close(scales, expected_scales, rtol=1e-6, atol=0)


@DTYPES
@pytest.mark.parametrize(("tokens", "outputs", "depth"), SHAPES)
def test_the_product_equals_float64_of_the_same_codes(device, dtype, tokens, outputs, depth, monkeypatch):
    x, weight, bias = operands(tokens, outputs, depth, dtype, device)
    packed = ref.pack_linear_int8(weight)
    expected = exact_product(x, packed)
    poison_new_memory(monkeypatch)
    for b in (None, bias):
        got = linear_int8(x, packed, b)
        assert got.dtype == dtype and got.shape == (tokens, outputs)
        assert error(got, expected if b is None else expected + bias.double()) < bound(dtype, device)


@pytest.mark.parametrize("tokens", [1, 9])
def test_the_op_is_the_references_with_groups_of_a_tile(device, tokens, monkeypatch):
    monkeypatch.setattr(ref, "INT8_GROUP", DEPTH)
    x, weight, bias = operands(tokens, 40, 300, torch.float32, device)
    packed = ref.pack_linear_int8(weight)
    torch.testing.assert_close(linear_int8(x, packed, bias), ref.linear_int8(x, packed, bias), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 5])
def test_the_largest_integers_of_one_sign_do_not_overflow(device, tokens):
    """In 16 bits a sum of two products would."""
    x, weight = torch.full((tokens, 520), 127.0, device=device), torch.full((20, 520), -127.0, device=device)
    assert torch.equal(linear_int8(x, ref.pack_linear_int8(weight), None), x @ weight.T)


@pytest.mark.parametrize("tokens", [1, 4])
def test_an_outlier_spoils_the_precision_of_its_group_alone(device, tokens):
    x, weight, _ = operands(tokens, 40, 3 * DEPTH, torch.float32, device)
    x[:, 0], weight[:, :DEPTH] = 1e4, 0
    assert error(linear_int8(x, ref.pack_linear_int8(weight), None), x.double() @ weight.double().T) < 0.03


def test_zeros_give_zeros_and_what_is_not_a_number_stays_in_its_row(device):
    x, weight, _ = operands(4, 50, 200, torch.float32, device)
    x[0], x[1, 5], x[3, 150] = 0, float("nan"), float("inf")
    packed = ref.pack_linear_int8(weight)
    out = linear_int8(x, packed, None)
    assert (out[0] == 0).all() and out[2].isfinite().all()
    assert out[1].isnan().all() and not out[3].isfinite().any()
    assert linear_int8(x[1:2], packed, None).isnan().all(), "one token goes another way"


@pytest.mark.parametrize("tokens", [1, 6])
def test_rows_may_be_slices_of_longer_ones(device, tokens):
    wide, weight, _ = operands(tokens, 33, 144, torch.float32, device)
    packed = ref.pack_linear_int8(weight[:, :72])
    for x in (wide[:, 72:], wide[:, ::2]):
        assert torch.equal(linear_int8(x, packed, None), linear_int8(x.contiguous(), packed, None))


def test_a_token_has_the_same_bits_in_every_tile(device):
    """Groups are summed one after the other whatever the tile; only a token alone goes another way."""
    x, weight, _ = operands(70, 50, 300, torch.bfloat16, device)
    packed = ref.pack_linear_int8(weight)
    together = linear_int8(x, packed, None)
    for rows in (2, 17, 40):
        assert torch.equal(linear_int8(x[:rows], packed, None), together[:rows])


def test_no_tokens_give_no_outputs_and_what_does_not_fit_is_refused(device):
    packed = ref.pack_linear_int8(torch.ones(50, 72, device=device))
    x = torch.ones(2, 72, device=device)
    assert linear_int8(x[:0], packed, None).shape == (0, 50)
    with pytest.raises(ValueError, match=r"takes \[tokens, 72\], got \[2, 71\]"):
        linear_int8(x[:, 1:], packed, None)
    with pytest.raises(ValueError, match=r"bias of this layer is \[50\], got \[1\]"):
        linear_int8(x, packed, x[0, :1])


@pytest.mark.parametrize(
    ("outputs", "few", "some", "few_fp8"),
    [
        (4096, Tile(16, 16, 4, 4), Tile(64, 16, 4, 4), Tile(64, 32, 4, 6)),
        (6144, Tile(16, 16, 4, 4), Tile(64, 16, 4, 4), Tile(64, 64, 4, 6)),
        (28672, Tile(16, 64, 4, 4), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3)),
    ],
)
def test_the_tiles_are_those_that_were_measured_to_be_fast(outputs, few, some, few_fp8):
    assert choose(torch.int8, 8, outputs) == few and choose(torch.int8, 50, outputs) == some
    assert choose(torch.float8_e4m3fn, 8, outputs) == choose(torch.float8_e4m3fn, 50, outputs) == few_fp8
    assert gemv_tile(outputs) == (8, 1024 if outputs == 4096 else 512)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_the_pipeline_of_a_tile_fits_the_shared_memory_of_a_program(dtype):
    for tokens, outputs in itertools.product((2, 17, 64, 65, 256, 257, 8192), (1, 1024, 4096, 28672, 151936)):
        bm, bn, _, stages = choose(dtype, tokens, outputs)
        assert (bm + bn) * DEPTH * stages <= 226 << 10, "of 227 KB on Hopper; the rest is for barriers"


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 8, 200])
def test_a_captured_layer_replays_on_new_activations(device, tokens):
    x, weight, bias = operands(tokens, 512, 640, torch.bfloat16, device)
    packed, other = ref.pack_linear_int8(weight), torch.randn_like(x)
    expected = linear_int8(other, packed, bias)
    assert torch.equal(replayed(lambda x: linear_int8(x, packed, bias), x, other), expected)

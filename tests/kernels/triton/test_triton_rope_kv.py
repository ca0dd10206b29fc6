"""Norms of heads, rotation and KV write in one kernel, beside the three steps in float64."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import HeadNorms
from minillm_kernels.triton.cache import TritonKV, make_kv_cache
from minillm_kernels.triton.rope_kv import rope_kv

EPS = 1e-6
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
# One rounding of bf16 errs by 2**-9 at most where hardware rounds; the interpreter cuts off.
BOUND = {torch.float32: 1e-6, torch.bfloat16: 2.5e-3 if torch.cuda.is_available() else 6e-3}
FP8 = torch.float8_e4m3fn


class Case:
    """T tokens in random slots of a cache full of NaN, and what must come out of them in float64."""

    def __init__(self, device, dtype, tokens=5, heads=4, groups=2, dim=64, block_size=16, seed=0):
        torch.manual_seed(seed)
        blocks, positions = 6, 40
        self.heads, self.groups, self.dim, self.block_size = heads, groups, dim, block_size
        self.device, self.dtype = device, dtype
        self.qkv = torch.randn(tokens, heads + 2 * groups, dim).to(device, dtype)
        self.norms = HeadNorms(*(torch.randn(dim).to(device, dtype) for _ in range(2)), EPS)
        turns = torch.randn(positions, dim // 2)
        self.positions = torch.randint(positions, (tokens,)).to(device)
        self.angles = (turns.cos().to(device, dtype), turns.sin().to(device, dtype), self.positions)
        self.slots = torch.randperm(blocks * block_size)[:tokens].to(device)
        self.shape = (blocks, groups, block_size, dim)

    def cache(self, dtype=None, quantized=False) -> TritonKV:
        blocks, groups, block_size, dim = self.shape
        [cache] = make_kv_cache(1, blocks, block_size, groups, dim, dtype or self.dtype, quantized, self.device)
        for x in (cache.keys, cache.values, cache.key_scales, cache.value_scales):
            if x is not None:
                x.view(torch.uint8).fill_(0x7F if x.dtype == torch.int8 else 0xFF)
        return cache

    def expected(self, norms: bool, turned: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [T, H, D], keys and values [T, G, D], float64."""
        q, k, v = self.qkv.double().split((self.heads, self.groups, self.groups), 1)
        if norms:
            q, k = (
                x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight.double()
                for x, weight in ((q, self.norms.q), (k, self.norms.k))
            )
        if turned:
            cos, sin = (x.double()[self.positions][:, None] for x in self.angles[:2])
            q, k = (torch.cat((a * cos - b * sin, b * cos + a * sin), -1) for a, b in (x.chunk(2, -1) for x in (q, k)))
        return q, k, v

    def at_slots(self, x: torch.Tensor) -> torch.Tensor:
        """What a cache tensor [blocks, G, block_size, ...] has for the tokens: [T, G, ...]."""
        return x[self.slots // self.block_size, :, self.slots % self.block_size]

    def untouched(self, x: torch.Tensor, poison: int) -> bool:
        """Every byte beside the tokens' slots is still ``poison``."""
        blocks, groups, block_size = x.shape[:3]
        raw = x.view(torch.uint8).view(blocks, groups, block_size, -1).clone()
        live = self.slots[self.slots >= 0]
        raw[live // block_size, :, live % block_size] = poison
        return bool((raw == poison).all())


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    assert out.shape == expected.shape
    return float((out.double() - expected).norm() / expected.norm())


@DTYPES
@pytest.mark.parametrize("norms", [True, False], ids=["norms", "bare"])
@pytest.mark.parametrize("turned", [True, False], ids=["turned", "still"])
def test_queries_turn_in_place_and_the_rest_goes_to_the_cache(norms, turned, dtype, device):
    case = Case(device, dtype)
    cache, before = case.cache(), case.qkv.clone()
    q, k, _ = case.expected(norms, turned)
    rope_kv(case.qkv, case.norms if norms else None, case.angles if turned else None, cache, case.slots)
    assert error(case.qkv[:, : case.heads], q) < BOUND[dtype]
    assert error(case.at_slots(cache.keys), k) < BOUND[dtype]
    assert torch.equal(case.at_slots(cache.values), before[:, case.heads + case.groups :])
    assert torch.equal(case.qkv[:, case.heads :], before[:, case.heads :]), "qkv keeps its keys and values"
    assert case.untouched(cache.keys, 0xFF) and case.untouched(cache.values, 0xFF)


@DTYPES
@pytest.mark.parametrize(
    ("tokens", "heads", "groups", "dim", "block_size"),
    [(1, 1, 1, 2, 1), (3, 9, 3, 64, 5), (2, 5, 5, 80, 16), (3, 6, 2, 96, 7), (2, 8, 1, 128, 32), (2, 2, 1, 256, 16)],
)
def test_any_shape(tokens, heads, groups, dim, block_size, dtype, device):
    case = Case(device, dtype, tokens, heads, groups, dim, block_size, seed=dim)
    cache = case.cache()
    q, k, v = case.expected(True, True)
    rope_kv(case.qkv, case.norms, case.angles, cache, case.slots)
    assert error(case.qkv[:, :heads], q) < BOUND[dtype]
    assert error(case.at_slots(cache.keys), k) < BOUND[dtype]
    assert error(case.at_slots(cache.values), v) == 0
    assert case.untouched(cache.keys, 0xFF) and case.untouched(cache.values, 0xFF)


@DTYPES
def test_rows_of_qkv_may_be_wider_and_positions_32_bits(dtype, device):
    case = Case(device, dtype)
    wide = torch.full((5, 12, 64), 7.0, dtype=dtype, device=device)
    wide[:, 3:11] = case.qkv
    q, k, _ = case.expected(True, True)
    cache = case.cache()
    rope_kv(wide[:, 3:11], case.norms, (*case.angles[:2], case.positions.int()), cache, case.slots)
    assert error(wide[:, 3 : 3 + case.heads], q) < BOUND[dtype]
    assert error(case.at_slots(cache.keys), k) < BOUND[dtype]
    assert (wide[:, :3] == 7).all() and (wide[:, 11:] == 7).all()


@pytest.mark.parametrize("quantized", [False, True], ids=["as it is", "int8"])
def test_a_token_without_a_slot_is_not_written(quantized, device):
    case = Case(device, torch.float32)
    cache = case.cache(quantized=quantized)
    case.slots[1] = case.slots[4] = -1
    rope_kv(case.qkv, case.norms, case.angles, cache, case.slots)
    for x in (cache.keys, cache.values):
        assert case.untouched(x, 0x7F if quantized else 0xFF)
    if quantized:
        assert case.untouched(cache.key_scales, 0xFF) and case.untouched(cache.value_scales, 0xFF)
    rope_kv(case.qkv[:0], case.norms, (*case.angles[:2], case.positions[:0]), cache, case.slots[:0])


@DTYPES
@pytest.mark.parametrize("dim", [64, 80])
def test_int8_errs_by_half_a_step_of_its_head(dim, dtype, device):
    case = Case(device, dtype, dim=dim)
    case.qkv[2, -1] = 0  # a head of zeros has scale 0
    case.qkv[3] *= 1000
    cache = case.cache(quantized=True)
    _, k, v = case.expected(True, True)
    rope_kv(case.qkv, case.norms, case.angles, cache, case.slots)
    for data, scales, exact in ((cache.keys, cache.key_scales, k), (cache.values, cache.value_scales, v)):
        codes, scale = case.at_slots(data).double(), case.at_slots(scales).double()
        torch.testing.assert_close(scale, exact.abs().amax(-1) / 127, rtol=1e-5, atol=0)
        off = (codes * scale[..., None] - exact).abs()
        assert (off <= scale[..., None] * 0.501).all(), f"{off.max()} beyond half of a step"
        assert (codes.abs().amax(-1) == 127).logical_or(scale == 0).all(), "the largest component takes the last code"
        assert case.untouched(data, 0x7F) and case.untouched(scales, 0xFF)


@DTYPES
def test_fp8_holds_what_it_can_and_saturates(dtype, device):
    """Numbers that e4m3 holds: exact (the interpreter does not round fp8 as hardware does, so no others here)."""
    case = Case(device, dtype)
    exact = torch.tensor([0.0, 1.0, -1.5, 0.25, 448.0, -448.0, 3.5, -0.0625])
    case.qkv.copy_(exact[torch.randint(8, case.qkv.shape)])
    case.qkv[0, -1, :3] = case.qkv[1, case.heads, -3:] = torch.tensor([1000.0, -1e30, 460.0])
    cache = case.cache(FP8)
    _, k, v = case.expected(False, False)
    rope_kv(case.qkv, None, None, cache, case.slots)
    for data, numbers in ((cache.keys, k), (cache.values, v)):
        got = case.at_slots(data.view(torch.uint8)).view(FP8)
        assert torch.equal(got.double(), numbers.clamp(-448, 448))
        assert case.untouched(data, 0xFF)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter does not round fp8 as hardware does")
@DTYPES
def test_fp8_rounds_to_nearest(dtype, device):
    case = Case(device, dtype)
    cache = case.cache(FP8)
    _, k, v = case.expected(True, True)
    rope_kv(case.qkv, case.norms, case.angles, cache, case.slots)
    for data, numbers in ((cache.keys, k), (cache.values, v)):
        got = case.at_slots(data.view(torch.uint8)).view(FP8).double()
        assert ((got - numbers).abs() <= (numbers.abs() / 16).clamp_min(2**-10) * 1.0001).all(), "3 bits of mantissa"


def test_what_the_kernel_cannot_read_is_refused(device):
    case = Case(device, torch.float32)
    cache, (cos, sin, positions) = case.cache(), case.angles
    for qkv in (case.qkv[:, :4], case.qkv[..., :32], case.qkv.mT.contiguous().mT):
        with pytest.raises(ValueError, match="qkv is"):
            rope_kv(qkv, None, None, cache, case.slots)
    with pytest.raises(ValueError, match="slots"):
        rope_kv(case.qkv, None, None, cache, case.slots[:3])
    with pytest.raises(ValueError, match="positions"):
        rope_kv(case.qkv, None, (cos, sin, positions[:3]), cache, case.slots)
    with pytest.raises(ValueError, match="angles"):
        rope_kv(case.qkv, None, (cos[:, :16], sin, positions), cache, case.slots)
    with pytest.raises(ValueError, match="norms"):
        rope_kv(case.qkv, HeadNorms(case.norms.q[:32], case.norms.k, EPS), None, cache, case.slots)

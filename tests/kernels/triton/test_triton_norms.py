"""RMSNorm (+ residual) and gated activations in Triton, beside float64 and beside the reference's shapes and dtypes."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import ref
from minillm_kernels.triton import activation, norms

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # exp, in the interpreter's numpy

EPS = 1e-5
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
# A bf16 rounding errs by 2**-9 at most where hardware rounds; the interpreter cuts off, twice that and all one way.
BOUND = {torch.float32: 1e-6, torch.bfloat16: 4e-3 if torch.cuda.is_available() else 1.2e-2}


@pytest.fixture(autouse=True)
def nan_where_nothing_is_written():
    """torch fills memory that nobody wrote with NaN: a kernel that leaves an element out is found by its error."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(5).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def error(out: torch.Tensor, expected: torch.Tensor) -> float:
    assert out.shape == expected.shape
    return float((out.cpu().double() - expected.cpu()).norm() / expected.norm().clamp_min(1e-300))


def norm64(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x, weight = x.double(), weight.double()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def rand(seed: int, *shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


@DTYPES
@pytest.mark.parametrize(("rows", "size"), [(0, 8), (1, 1), (3, 8), (7, 576), (2, 577), (5, 4096), (2, 8192)])
def test_norms_equal_float64(rows, size, dtype, device):
    x, residual = (rand(size + i, rows, size, dtype=dtype, device=device) * 3 for i in range(2))
    weight = rand(size + 2, size, dtype=dtype, device=device)
    assert error(norms.rms_norm(x, weight, EPS), norm64(x, weight)) < BOUND[dtype]
    expected, exact = ref.add_rms_norm(x, residual, weight, EPS)[1], x.double() + residual.double()
    normed, total = norms.add_rms_norm(x, residual, weight, EPS)
    assert total is residual, "the sum takes the place of the residual"
    assert error(total, exact) < BOUND[dtype]
    if device.type == "cuda" or dtype == torch.float32:
        assert torch.equal(total, expected), "one addition, rounded once"
    assert error(normed, norm64(total, weight)) < BOUND[dtype], "the norm of the rounded sum"


@DTYPES
def test_a_norm_reads_heads_out_of_wider_rows_and_leaves_them_alone(dtype, device):
    qkv = rand(0, 5, 7, 80, dtype=dtype, device=device)
    weight = rand(1, 80, dtype=dtype, device=device)
    for part in (qkv[:, :4], qkv[:, 2:], qkv[:, 3:4], qkv.transpose(0, 1), qkv.transpose(1, 2).contiguous().mT):
        before = part.clone()
        out = norms.rms_norm(part, weight, EPS)
        assert out.is_contiguous() and error(out, norm64(part, weight)) < BOUND[dtype]
        assert torch.equal(part, before)


@DTYPES
def test_the_sum_goes_into_rows_of_a_wider_residual(dtype, device):
    wide = rand(0, 4, 100, dtype=dtype, device=device)
    before = wide.clone()
    x, weight = rand(1, 4, 120, dtype=dtype, device=device)[:, 20:92], rand(2, 72, dtype=dtype, device=device)
    normed, total = norms.add_rms_norm(x, wide[:, 8:80], weight, EPS)
    assert total.data_ptr() == wide[:, 8:80].data_ptr()
    assert error(total, x.double() + before[:, 8:80].double()) < BOUND[dtype]
    assert error(normed, norm64(total, weight)) < BOUND[dtype]
    assert torch.equal(wide[:, :8], before[:, :8]) and torch.equal(wide[:, 80:], before[:, 80:])


def test_rows_of_any_scale_keep_their_norm(device):
    x = rand(0, 3, 64, dtype=torch.float32, device=device) * torch.tensor([[1e-6], [1.0], [1e15]], device=device)
    weight = torch.ones(64, device=device)
    out = norms.rms_norm(x, weight, EPS)
    for row, expected in zip(out, norm64(x, weight), strict=True):
        assert error(row, expected) < 1e-6


@DTYPES
@pytest.mark.parametrize("name", ["silu_mul", "gelu_tanh_mul"])
@pytest.mark.parametrize(("rows", "size"), [(0, 8), (1, 1), (5, 100), (2, 1536), (3, 1025)])
def test_gated_activations_equal_float64(rows, size, name, dtype, device):
    gate_up = rand(size, rows, 2 * size, dtype=dtype, device=device) * 5
    out = getattr(activation, name)(gate_up)
    assert out.dtype == dtype and error(out, getattr(ref, name)(gate_up.double())) < BOUND[dtype]
    wide = rand(size, 2 * size, rows, dtype=dtype, device=device).T
    assert error(getattr(activation, name)(wide), getattr(ref, name)(wide.double())) < BOUND[dtype]


@DTYPES
@pytest.mark.parametrize("name", ["silu_mul", "gelu_tanh_mul"])
def test_gated_activations_stay_finite_at_the_ends(name, dtype, device):
    gate = torch.tensor([1e30, -1e30, 100.0, -100.0, 0.0, 20.0, -20.0])
    gate_up = torch.cat((gate, torch.full_like(gate, 2.0)))[None].to(device, dtype)
    out = getattr(activation, name)(gate_up)
    torch.testing.assert_close(out.cpu(), getattr(ref, name)(gate_up.cpu()), rtol=2 * BOUND[dtype], atol=1e-7)


def test_what_a_kernel_cannot_read_is_refused(device):
    x, weight = torch.randn(3, 8, device=device), torch.randn(8, device=device)
    for wrong in (weight[:7], weight.bfloat16(), weight.repeat(2)[::2]):
        with pytest.raises(ValueError, match="weight"):
            norms.rms_norm(x, wrong, EPS)
        with pytest.raises(ValueError, match="weight"):
            norms.add_rms_norm(x, x.clone(), wrong, EPS)
    for residual in (x[:2], x.bfloat16()):
        with pytest.raises(ValueError, match="residual"):
            norms.add_rms_norm(x, residual, weight, EPS)
    with pytest.raises(ValueError, match="heads"):
        norms.rms_norm(x[None, None], weight, EPS)
    with pytest.raises(ValueError, match="two halves"):
        activation.silu_mul(torch.randn(2, 5, device=device))

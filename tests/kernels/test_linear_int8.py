"""W8A8 layers: every backend gives the reference's integers, and the rounding error has a bound."""

from __future__ import annotations

import ctypes
import platform

import pytest
import torch

from minillm_kernels import compiler, resolve
from minillm_kernels.cpu import build, int8_cpp, int8_torch, linear_cpp
from minillm_kernels.cpu.build import library as compiled_library
from minillm_kernels.ref import INT8_GROUP, pack_linear_int8, quantize_rows

REF = resolve("ref")
needs_compiler = pytest.mark.skipif(compiled_library() is None, reason="no C++ compiler")
BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_compiler)]
SHAPES = [(50, 72), (1, 1), (48, 4), (577, 33), (97, 1538), (5, 2500)]  # (out, in): not whole panels, not whole quads


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(rows: int, depth: int, seed: int = 0) -> torch.Tensor:
    """Numbers that are their own codes: integers, ±127 in each group, so every scale is 1."""
    x = torch.randint(-127, 128, (rows, depth), generator=torch.Generator().manual_seed(seed)).float()
    x[:, ::INT8_GROUP] = 127 * (1 - 2 * (torch.arange(rows) % 2)).unsqueeze(1)
    return x


@pytest.mark.parametrize("backend", ["ref", *BACKENDS])
@pytest.mark.parametrize(("n_out", "n_in"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 2, 8, 9, 50])
def test_integers_are_multiplied_exactly(backend, n_out, n_in, rows):
    """Also the largest, all of one sign: 16-bit partial sums would saturate."""
    ops, all_large = resolve(backend), torch.full((n_out, n_in), -127.0)
    for x, w in ((integers(rows, n_in), integers(n_out, n_in, 1)), (integers(rows, n_in).fill_(127), all_large)):
        assert torch.equal(ops.linear_int8(x, ops.pack_linear_int8(w), None), (x.double() @ w.double().T).float())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n_out", "n_in"), SHAPES)
def test_every_backend_rounds_to_the_same_codes(backend, n_out, n_in):
    """One other code would move an output by a whole step, far more than fp32 rounding does."""
    ops, x, weight = resolve(backend), random(50, n_in), random(n_out, n_in, seed=1)
    got = ops.linear_int8(x, ops.pack_linear_int8(weight), None)
    torch.testing.assert_close(got, REF.linear_int8(x, REF.pack_linear_int8(weight), None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bias_is_added_after_the_scales(backend):
    ops, x, weight, bias = resolve(backend), random(7, 72), random(50, 72, seed=1), 10 * random(50, seed=2)
    got = ops.linear_int8(x, ops.pack_linear_int8(weight), bias)
    torch.testing.assert_close(got, REF.linear_int8(x, REF.pack_linear_int8(weight), bias), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", ["ref", *BACKENDS])
def test_the_error_is_that_of_rounding_to_half_a_step(backend):
    ops, x, weight = resolve(backend), random(6, 200), random(40, 200, seed=1)
    error = (ops.linear_int8(x, ops.pack_linear_int8(weight), None) - x @ weight.T).abs()
    half_x, half_w = (t.abs().amax(1) / 127 / 2 for t in (x, weight))
    sizes_x, sizes_w = x.abs().sum(1), weight.abs().sum(1)
    bound = torch.outer(half_x, sizes_w) + torch.outer(sizes_x, half_w) + 200 * torch.outer(half_x, half_w)
    assert (error <= 1.0001 * bound).all()


@pytest.mark.parametrize("backend", ["ref", *BACKENDS])
def test_an_outlier_spoils_the_precision_of_its_group_alone(backend):
    ops, x, weight = resolve(backend), random(4, 3 * INT8_GROUP), random(40, 3 * INT8_GROUP, seed=1)
    x[:, 0] = 1000
    weight[:, :INT8_GROUP] = 0
    exact = x @ weight.T
    error = (ops.linear_int8(x, ops.pack_linear_int8(weight), None) - exact).norm() / exact.norm()
    assert error < 0.02, "with one scale for the whole row, nothing but the outlier would be left"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_has_the_same_bits_in_every_batch_and_at_every_place(backend):
    ops, x = resolve(backend), random(70, 130)
    packed = ops.pack_linear_int8(random(101, 130, seed=1))
    alone = torch.cat([ops.linear_int8(row.unsqueeze(0), packed, None) for row in x])
    generator = torch.Generator().manual_seed(3)
    for rows in (1, 2, 3, 7, 8, 9, 16, 17, 31, 50, 70):
        chosen = torch.randperm(70, generator=generator)[:rows]
        assert torch.equal(ops.linear_int8(x[chosen], packed, None), alone[chosen]), f"{rows} rows"


@pytest.mark.parametrize("backend", ["ref", *BACKENDS])
def test_zeros_give_zeros_and_what_is_not_a_number_stays_in_its_row(backend):
    ops, x = resolve(backend), random(3, 72)
    x[0], x[1, 5] = 0, float("nan")
    weight = random(50, 72, seed=1)
    weight[3] = 0
    out = ops.linear_int8(x, ops.pack_linear_int8(weight), None)
    assert (out[0] == 0).all() and out[1].isnan().all() and out[2].isfinite().all() and (out[:, 3][[0, 2]] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_goes_in_and_comes_out(backend):
    ops, x, weight, bias = resolve(backend), random(5, 72).bfloat16(), random(50, 72).bfloat16(), random(50).bfloat16()
    got = ops.linear_int8(x, ops.pack_linear_int8(weight), bias)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, REF.linear_int8(x, REF.pack_linear_int8(weight), bias))


@pytest.mark.parametrize(("n_out", "n_in"), SHAPES)
def test_the_fallback_without_integer_products_is_exact_too(monkeypatch, n_out, n_in):
    monkeypatch.setattr(int8_torch, "_int_mm_is_exact", lambda: False)
    for x, w in ((integers(9, n_in), integers(n_out, n_in, 1)), (torch.full((9, n_in), 127.0), -integers(n_out, n_in))):
        assert torch.equal(int8_torch.linear_int8(x, pack_linear_int8(w), None), (x.double() @ w.double().T).float())


@needs_compiler
def test_what_the_kernel_cannot_read_is_refused():
    packed = int8_cpp.pack_linear_int8(random(50, 72))
    with pytest.raises(ValueError, match=r"takes float32 \[tokens, 72\], got"):
        int8_cpp.linear_int8(torch.zeros(2, 76), packed, None)
    with pytest.raises(ValueError, match=r"bias"):
        int8_cpp.linear_int8(torch.zeros(2, 72), packed, torch.zeros(1))


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets named here are x86's")
@pytest.mark.parametrize(("march", "needs"), [("x86-64", "sse2"), ("haswell", "avx2"), ("skylake-avx512", "avx512bw")])
def test_older_machines_get_the_same_integers_and_the_same_fp32_invariance(march, needs, tmp_path, monkeypatch):
    """Builds of the same source for SSE2 (portable loop), AVX2 and AVX-512 without VNNI (16-bit products)."""
    if needs not in compiler._cpu_flags().split():
        pytest.skip(f"this machine has no {needs}")
    gcc, target = compiler.find_compiler(), tmp_path / "kernels.so"
    flags = ["-march=" + march if flag == "-march=native" else flag for flag in build.FLAGS]
    compiler._run(gcc, *flags, "-o", str(target), *map(str, sorted(build.SOURCES.glob("linear*.cpp"))))
    library = ctypes.CDLL(str(target))
    functions = (linear_cpp.panel_width, linear_cpp._kernel, linear_cpp._packer, int8_cpp._kernel, int8_cpp._packer)
    monkeypatch.setattr(build, "library", lambda: library)
    try:
        for function in functions:
            function.cache_clear()
        x, weight = integers(21, 450), integers(101, 450, 1)
        got = int8_cpp.linear_int8(x, int8_cpp.pack_linear_int8(weight), None)
        assert torch.equal(got, (x.double() @ weight.double().T).float())
        x, weight, bias = random(21, 130), random(101, 130, seed=1), random(101, seed=2)
        packed = linear_cpp.pack_linear(weight)
        together = linear_cpp.linear(x, packed, bias)
        torch.testing.assert_close(together, REF.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
        assert torch.equal(together, torch.cat([linear_cpp.linear(row.unsqueeze(0), packed, bias) for row in x]))
    finally:
        for function in functions:
            function.cache_clear()


def test_codes_are_symmetric_and_the_largest_is_127():
    codes, scales = quantize_rows(torch.tensor([[-2.0, 1.0, 0.0], [1e-3, 5e-4, -1e-3]]))
    assert codes.tolist() == [[-127, 64, 0], [127, 64, -127]]
    torch.testing.assert_close(scales, torch.tensor([2 / 127, 1e-3 / 127]))

"""The fp32 linear layers: equal to the reference, and in C++ a row's result never depends on its neighbours."""

from __future__ import annotations

import pytest
import torch

from minillm_kernels import resolve
from minillm_kernels.cpu.build import library

REF = resolve("ref")
needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler")
BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_compiler)]
SHAPES = [(50, 72), (1, 1), (48, 16), (577, 33), (97, 130)]  # (out, in): not whole panels, not whole steps


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n_out", "n_in"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 50])
def test_a_packed_linear_equals_the_reference(backend, n_out, n_in, rows):
    ops, x, weight, bias = resolve(backend), random(rows, n_in), random(n_out, n_in, seed=1), random(n_out, seed=2)
    packed = ops.pack_linear(weight)
    for b in (None, bias):
        torch.testing.assert_close(ops.linear(x, packed, b), REF.linear(x, weight, b), rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize(("n_out", "n_in"), [(101, 77), (576, 1536)])
def test_a_row_has_the_same_bits_in_every_batch_and_at_every_place(n_out, n_in):
    ops = resolve("cpp")
    x, bias = random(70, n_in), random(n_out, seed=2)
    packed = ops.pack_linear(random(n_out, n_in, seed=1))
    alone = torch.cat([ops.linear(row.unsqueeze(0), packed, bias) for row in x])
    generator = torch.Generator().manual_seed(3)
    for rows in range(1, 71):
        chosen = torch.randperm(70, generator=generator)[:rows]
        assert torch.equal(ops.linear(x[chosen], packed, bias), alone[chosen]), f"{rows} rows"


@needs_compiler
@pytest.mark.parametrize(("n_out", "n_in"), SHAPES)
def test_bf16_values_are_kept_in_half_the_memory_and_give_the_same_bits(n_out, n_in, monkeypatch):
    ops, weight = resolve("cpp"), random(n_out, n_in, seed=1).bfloat16().float()
    short = ops.pack_linear(weight)
    finer = weight.clone()
    finer[0, 0] += 2.0**-20  # one value that needs its last bits: nothing may be lost
    whole = ops.pack_linear(finer)
    assert (short.halves, whole.halves, short.data.nbytes * 2) == (True, False, whole.data.nbytes)
    for rows in (1, 5, 8, 9):
        x = random(rows, n_in)
        ours, theirs = ops.linear(x, short, None), ops.linear(x, whole, None)
        assert torch.equal(ours[:, 1:], theirs[:, 1:])
        torch.testing.assert_close(ours, REF.linear(x, weight, None), rtol=1e-4, atol=1e-4)


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    ops, x, threads = resolve("cpp"), random(9, 77), torch.get_num_threads()
    packed = ops.pack_linear(random(500, 77, seed=1))
    try:
        results = []
        for count in (1, 2, 3, 40):
            torch.set_num_threads(count)
            results.append(ops.linear(x, packed, None))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_that_is_a_view_is_read_as_it_looks(backend):
    ops, x, weight = resolve(backend), random(72, 9).t(), random(50, 144, seed=1)[:, ::2]
    torch.testing.assert_close(ops.linear(x, ops.pack_linear(weight), None), REF.linear(x, weight, None))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_weights_are_left_to_torch(backend):
    ops, x, weight, bias = resolve(backend), random(5, 72).bfloat16(), random(50, 72).bfloat16(), random(50).bfloat16()
    assert torch.equal(ops.linear(x, ops.pack_linear(weight), bias), REF.linear(x, weight, bias))


@needs_compiler
@pytest.mark.parametrize("x", [torch.zeros(2, 71), torch.zeros(2, 72, dtype=torch.float64), torch.zeros(72)])
def test_what_the_kernel_cannot_read_is_refused(x):
    ops = resolve("cpp")
    packed = ops.pack_linear(random(50, 72))
    with pytest.raises(ValueError, match=r"takes float32 \[tokens, 72\], got"):
        ops.linear(x, packed, None)
    with pytest.raises(ValueError, match=r"bias"):
        ops.linear(torch.zeros(2, 72), packed, torch.zeros(49))

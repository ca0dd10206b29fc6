"""Every op of every backend equals its reference, on shapes that are not powers of two."""

from __future__ import annotations

import json

import pytest
import torch
from kernel_backends import FAST, REF, compiled_only
from paged_case import PagedCase

from minillm_kernels import bench, resolve
from minillm_kernels import ops as op_table
from minillm_kernels.limits import fastest

BACKENDS = pytest.mark.parametrize("ops", FAST, ids=lambda ops: ops.name)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2}}


@BACKENDS
@DTYPES
@pytest.mark.parametrize("size", [1, 8, 72, 576, 577])
@pytest.mark.parametrize("rows", [1, 3, 130])
def test_norms_equal_the_reference(ops, dtype, size, rows):
    torch.manual_seed(size)
    x, residual = torch.randn(2, rows, size).to(dtype)
    weight = torch.randn(size).to(dtype)
    torch.testing.assert_close(ops.rms_norm(x, weight, 1e-5), REF.rms_norm(x, weight, 1e-5), **TOLERANCE[dtype])
    expected = REF.add_rms_norm(x, residual, weight, 1e-5)
    got = ops.add_rms_norm(x, residual.clone(), weight, 1e-5)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE[dtype])


@BACKENDS
@DTYPES
@pytest.mark.parametrize(("heads", "dim"), [(12, 64), (3, 10), (1, 2), (2, 96)])
def test_rope_and_head_norms_read_slices_of_a_projection(ops, dtype, heads, dim):
    torch.manual_seed(dim)
    qkv = torch.randn(7, heads + 2, dim).to(dtype)
    angles = torch.randn(7, dim // 2)
    cos, sin, weight = angles.cos().to(dtype), angles.sin().to(dtype), torch.randn(dim).to(dtype)
    for part in (qkv[:, :heads], qkv[:, 1:], qkv.transpose(0, 1).contiguous().transpose(0, 1)):
        before = part.clone()
        torch.testing.assert_close(
            ops.rms_norm(part, weight, 1e-5), REF.rms_norm(part, weight, 1e-5), **TOLERANCE[dtype]
        )
        assert torch.equal(part, before), "a norm leaves its input alone"
    values = qkv[:, heads:].clone()
    expected = REF.rope(qkv[:, :heads], cos, sin)  # first: a backend may rotate in place
    torch.testing.assert_close(ops.rope(qkv[:, :heads], cos, sin), expected, **TOLERANCE[dtype])
    assert torch.equal(qkv[:, heads:], values), "only the slice is rotated"
    apart = torch.randn(heads, 7, dim).to(dtype).transpose(0, 1)
    expected = REF.rope(apart, cos, sin)
    torch.testing.assert_close(ops.rope(apart, cos, sin), expected, **TOLERANCE[dtype])


@BACKENDS
@DTYPES
@pytest.mark.parametrize("op", ["silu_mul", "gelu_tanh_mul"])
def test_gated_activations_equal_the_reference(ops, dtype, op):
    torch.manual_seed(0)
    for rows, size in ((1, 1), (5, 100), (40, 1536)):
        gate_up = (torch.randn(rows, 2 * size) * 5).to(dtype)
        torch.testing.assert_close(getattr(ops, op)(gate_up), getattr(REF, op)(gate_up), **TOLERANCE[dtype])
    extremes = torch.tensor([[1e30, -1e30, 100.0, -100.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]]).to(dtype)
    torch.testing.assert_close(getattr(ops, op)(extremes), getattr(REF, op)(extremes), **TOLERANCE[dtype])


@BACKENDS
@pytest.mark.parametrize("size", [1, 3, 16, 17, 1000])
def test_argmax_takes_the_first_of_the_largest(ops, size):
    torch.manual_seed(size)
    x = torch.randint(-3, 3, (60, size)).float()  # many equal ones
    x[0], x[1] = float("-inf"), 0
    expected = torch.tensor([row.index(max(row)) for row in x.tolist()])
    assert torch.equal(ops.argmax(x), expected)
    assert torch.equal(ops.argmax(x.t().contiguous().t()), expected)
    x[:, 0] = float("-inf")
    assert torch.equal(ops.argmax(x), torch.tensor([row.index(max(row)) for row in x.tolist()]))


@compiled_only
def test_a_row_of_a_compiled_pointwise_op_does_not_depend_on_the_others():
    """Bit for bit: alone, and among enough rows for several threads."""
    cpp, threads = resolve("cpp"), torch.get_num_threads()
    torch.manual_seed(2)
    x, residual, weight, gate_up = torch.randn(300, 576), torch.randn(300, 576), torch.randn(576), torch.randn(300, 400)
    try:
        torch.set_num_threads(2)
        together = [cpp.rms_norm(x, weight, 1e-5), *cpp.add_rms_norm(x, residual.clone(), weight, 1e-5)]
        together.append(cpp.silu_mul(gate_up))
        for row in (0, 1, 149, 150, 299):
            one = slice(row, row + 1)
            alone = [cpp.rms_norm(x[one], weight, 1e-5), *cpp.add_rms_norm(x[one], residual[one].clone(), weight, 1e-5)]
            alone.append(cpp.silu_mul(gate_up[one]))
            assert all(torch.equal(a, b[one]) for a, b in zip(alone, together, strict=True))
    finally:
        torch.set_num_threads(threads)


@compiled_only
def test_what_a_compiled_op_cannot_read_is_refused():
    cpp, x = resolve("cpp"), torch.randn(3, 8)
    with pytest.raises(ValueError, match="weight"):
        cpp.rms_norm(x, torch.randn(7), 1e-5)
    with pytest.raises(ValueError, match="weight"):
        cpp.add_rms_norm(x, x.clone(), torch.randn(8).double(), 1e-5)
    with pytest.raises(ValueError, match="angles"):
        cpp.rope(x.view(3, 1, 8), torch.randn(2, 4), torch.randn(2, 4))
    with pytest.raises(ValueError, match="two halves"):
        cpp.silu_mul(torch.randn(2, 5))


@BACKENDS
@pytest.mark.parametrize("rows", [1, 2, 50, 129])
@DTYPES
def test_packed_linear_equals_the_reference(ops, rows, dtype):
    torch.manual_seed(rows)
    x, weight, bias = torch.randn(rows, 72).to(dtype), torch.randn(50, 72).to(dtype), torch.randn(50).to(dtype)
    packed = ops.pack_linear(weight)
    for b in (None, bias):
        torch.testing.assert_close(ops.linear(x, packed, b), REF.linear(x, weight, b), rtol=1e-4, atol=1e-4)


def test_unknown_backend_is_refused_by_name():
    with pytest.raises(ValueError, match="cuda-magic"):
        resolve("cuda-magic")


def test_without_a_compiler_auto_is_torch_and_cpp_is_refused(monkeypatch):
    monkeypatch.setattr(op_table, "library", lambda: None)
    assert resolve("auto").name == resolve().name == "torch"
    with pytest.raises(RuntimeError, match="compiler"):
        resolve("cpp")


def test_the_benchmark_times_the_backends_in_turn():
    def cell(ops):
        return lambda: order.append(ops.name)

    order: list[str] = []
    times = bench.measure(cell, repeats=3, names=("ref", "torch"))
    assert order == ["ref", "torch"] * 4, "they alternate, and one more turn is thrown away"
    assert [len(t) for t in times.values()] == [3, 3]


@pytest.mark.parametrize("title", [title for title in bench.CELLS if "512 rows" not in title])
def test_a_cell_of_the_benchmark_gives_all_backends_the_same_work(title, monkeypatch):
    """Same seed, same inputs: what is timed is also equal."""
    monkeypatch.setattr(bench, "LAYERS", 2)
    expected, *others = (_result(bench.CELLS[title], ops) for ops in (REF, *FAST))
    for got in others:
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def _result(cell, ops):
    torch.manual_seed(0)
    return cell(ops)()


def test_the_benchmark_command_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "LAYERS", 1)
    monkeypatch.setattr("minillm_kernels.limits.SIDE", 64)
    monkeypatch.setattr("minillm_kernels.limits.READ_BYTES", 1 << 20)
    monkeypatch.setattr(bench, "kv_error", lambda: 0.004)
    bench.main(["--repeats", "2", "--threads", "1", "--only", "1 decode", "--json", str(tmp_path / "out.json")])
    data = json.loads((tmp_path / "out.json").read_text())
    assert {row["cell"] for row in data["results"]} == {title for title in bench.CELLS if "1 decode" in title}
    assert all(len(row["ms"]) == 2 and min(row["ms"]) > 0 for row in data["results"])
    assert data["limits"]["threads"] == 1 and data["limits"]["read_gb_s"] > 0
    assert "GFLOP/s" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench.main(["--only", "no such cell"])


def test_the_fastest_of_some_runs_leaves_the_first_out():
    runs = []
    assert fastest(lambda: runs.append(1), repeats=3) >= 0
    assert len(runs) == 4


@pytest.mark.parametrize("ops", [REF, *FAST], ids=lambda ops: ops.name)
def test_an_int8_cache_stays_near_the_exact_one(ops):
    """Its error on random normal tokens: about half a step in 127, averaged over the components."""
    case = PagedCase([(200, 200), (80, 1)], heads=9, groups=3, dim=64, block_size=16)
    exact, rounded = case.run(ops), case.run(ops, quantized=True)
    assert 0.001 < float((rounded - exact).norm() / exact.norm()) < 0.012
    assert ops.kv_bytes_per_token(3, 64, torch.float32, True) * 3.7 < ops.kv_bytes_per_token(
        3, 64, torch.float32, False
    )


@pytest.mark.parametrize("ops", [REF, *FAST], ids=lambda ops: ops.name)
@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "int8"])
def test_a_cache_takes_no_memory_until_it_is_written(ops, quantized):
    """4 GiB of cache, five tokens written: a few pages are resident."""
    tokens = (4 << 30) // ops.kv_bytes_per_token(3, 64, torch.float32, quantized)
    before = resident_bytes()
    cache = ops.make_kv_cache(1, tokens // 16, 16, 3, 64, torch.float32, quantized)[0]
    k = torch.randn(5, 3, 64)
    ops.write_kv(k, k, cache, torch.tensor([0, 17, 5000, tokens // 2, tokens // 16 * 16 - 1]))
    assert resident_bytes() - before < 100 << 20


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        pytest.skip("no /proc on this system")


@pytest.mark.parametrize("ops", [REF, *FAST], ids=lambda ops: ops.name)
def test_kv_bytes_per_token_is_what_the_cache_takes(ops):
    for dim, dtype, quantized in ((64, torch.float32, False), (64, torch.bfloat16, False), (10, torch.float32, True)):
        cache = ops.make_kv_cache(1, 5, 16, 3, dim, dtype, quantized)[0]
        tensors = cache.data if hasattr(cache, "data") else vars(cache).values()
        held = sum(x.numel() * x.itemsize for x in tensors if x is not None)
        assert held == 5 * 16 * ops.kv_bytes_per_token(3, dim, dtype, quantized)
